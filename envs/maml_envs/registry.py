"""Environments by name, and of a user's own class."""

import difflib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import torch

from maml_envs.adapters.attribute_tasks import Options, refuse_options
from maml_envs.adapters.from_gymnasium import GymnasiumTaskEnv, VectorOptions
from maml_envs.adapters.metaworld import BY_METAWORLD
from maml_envs.adapters.named import BY_ID
from maml_envs.adapters.to_gymnasium import SingleEnv
from maml_envs.bandit import Bandit
from maml_envs.contract import check_contract
from maml_envs.errors import InputError
from maml_envs.navigation import Navigation
from maml_envs.robots.ant import AntDirection, AntDirection2D, AntGoal, AntVelocity
from maml_envs.robots.half_cheetah import HalfCheetahDirection, HalfCheetahVelocity
from maml_envs.robots.hopper import HopperRandomDynamics
from maml_envs.robots.humanoid import HumanoidDirection
from maml_envs.robots.walker2d import Walker2dDirection, Walker2dRandomDynamics, Walker2dVelocity
from maml_envs.tabular_mdp import TabularMDP
from maml_envs.task_env import TaskEnv
from maml_envs.user_code import gymnasium_batch, own_class

FAMILIES: dict[str, type[TaskEnv]] = {
    "navigation": Navigation,
    "half-cheetah-dir": HalfCheetahDirection,
    "half-cheetah-vel": HalfCheetahVelocity,
    "ant-dir": AntDirection,
    "ant-dir-2d": AntDirection2D,
    "ant-vel": AntVelocity,
    "ant-goal": AntGoal,
    "humanoid-dir": HumanoidDirection,
    "walker-dir": Walker2dDirection,
    "walker-vel": Walker2dVelocity,
    "walker-rand-params": Walker2dRandomDynamics,
    "hopper-rand-params": HopperRandomDynamics,
    "bandit": Bandit,
    "tabular-mdp": TabularMDP,
}


def names() -> list[str]:
    """Return the names that ``make`` takes."""
    return list(FAMILIES)


def family(name: str, elsewhere: bool = False) -> type[TaskEnv]:
    """Return the class of a name or a "module:Class" path; GymnasiumTaskEnv for any gymnasium environment.

    With ``elsewhere``, a class is one that another Python imports, as ``vector.worker_python``, and a gymnasium one.

    Raises:
        InputError: There is none; the message lists near names.
    """
    if ":" in name:
        kind = GymnasiumTaskEnv if elsewhere or name.startswith((BY_ID, BY_METAWORLD)) else own_class(name)
        return kind if issubclass(kind, TaskEnv) else GymnasiumTaskEnv
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(FAMILIES)}."
        if name in gymnasium.registry:
            hint = f"gymnasium's is 'gymnasium:{name}'."
        raise InputError(f"env = {name!r} is not an environment; {hint} Your own class is 'module:Class'")
    return FAMILIES[name]


def _preset_options(name: str, kind: type[TaskEnv], preset: str | None) -> dict[str, Any]:
    if preset is None:
        return {}
    if preset not in kind.presets:
        known = ", ".join(kind.presets) or "none"
        raise InputError(f"preset = {preset!r} does not exist for {name}; its presets: {known}")
    return {"preset": preset}


def _refuse_reserved(name: str, options: Options) -> None:
    for key in ("preset", "device", "threads"):
        if key in options:
            raise InputError(f"env_options.{key} with env = {name!r}: it is a key of its own, {key} = {options[key]!r}")


def _takes(kind: type[TaskEnv], option: str) -> bool:
    parameters = inspect.signature(kind).parameters
    return option in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def make(
    name: str,
    preset: str | None = None,
    horizon: int | None = None,
    vector: VectorOptions | None = None,
    render_mode: str | None = None,
    device: torch.device | None = None,
    threads: int | None = None,
    env_options: Options | None = None,
) -> TaskEnv:
    """Make an environment.

    Args:
        name: One of ``names()``; "module:Class" for a class of your own; "gymnasium:ID"; "metaworld:NAME".
        preset: One of the family's presets; None for its first.
        horizon: Control steps in an episode; None for the environment's own.
        vector: How a gymnasium environment is stepped, and which of its attributes make the task.
        render_mode: "rgb_array" makes a gymnasium environment so that it can draw itself; others always can.
        device: Where it has its tensors and simulates; None for the CPU. Passed to a class of your own if its
            ``__init__`` takes ``device``, or any option; other environments are on the CPU.
        threads: Threads that it simulates on; None for its own number. Passed on likewise.
        env_options: Arguments of its constructor.

    Raises:
        InputError: Unknown name or preset, an option that does nothing, a class that breaks the TaskEnv contract, or
            a MuJoCo environment on a GPU without the extra ``gpu``.
    """
    here = Path.cwd()
    kind = family(name, vector is not None and vector.worker_python is not None)
    options, vector = _preset_options(name, kind, preset), vector or VectorOptions()
    env: TaskEnv
    if kind is GymnasiumTaskEnv:
        env = gymnasium_batch(name, vector, horizon, render_mode, env_options)
    else:
        vector.refuse(name)
        _refuse_reserved(name, env_options or {})
        refuse_options(kind, env_options or {})
        options |= env_options or {}
        given = {"device": device, "threads": threads}
        options |= {key: value for key, value in given.items() if value is not None and _takes(kind, key)}
        env = kind(**options)
    if horizon is not None:
        env.horizon = horizon
    if ":" in name:
        with closed_on_error([env]):
            check_contract(env)
            if (there := Path.cwd()) != here:
                os.chdir(here)
                raise InputError(
                    f"env = {name!r} changes the working directory, to {there}, where files named by a relative path "
                    "would then be written: let it use absolute paths and no os.chdir"
                )
    return env


def make_copies(make_one: Callable[[], TaskEnv], count: int | None = None) -> list[TaskEnv]:
    """Make as many copies of an environment as work best side by side, for threads that step one each.

    Args:
        make_one: Makes one, such as ``partial(make, "navigation")``.
        count: How many; None for as many as the environment asks for. On a GPU, one does all the work and records it.
    """
    copies = [make_one()]
    with closed_on_error(copies):
        if count is None:
            count = copies[0].copies if copies[0].device.type == "cpu" else 1
        copies.extend(make_one() for _ in range(count - 1))
    return copies


@contextmanager
def closed_on_error(envs: Sequence[TaskEnv]) -> Iterator[None]:
    """Close these environments if the block raises."""
    try:
        yield
    except BaseException:
        for env in envs:
            env.close()
        raise


def register() -> None:
    """Register every preset of every family with gymnasium, such as maml_rl/navigation-finn2017-v0."""
    for name, kind in FAMILIES.items():
        for preset in kind.presets:
            gymnasium.register(
                id=f"maml_rl/{name}-{preset}-v0",
                entry_point="maml_envs.registry:single",
                kwargs={"name": name, "preset": preset},
                order_enforce=True,
            )


def single(
    name: str, preset: str | None = None, horizon: int | None = None, render_mode: str | None = None
) -> SingleEnv:
    """Make the environment of ``gymnasium.make("maml_envs:maml_rl/<name>-<preset>-v0")``."""
    return SingleEnv(make(name, preset, horizon), render_mode)
