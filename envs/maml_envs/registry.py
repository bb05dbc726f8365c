"""Task distributions: a name, or a user's own class, makes a batch of environments."""

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import torch

from maml_envs.adapters.attribute_tasks import Ranges
from maml_envs.adapters.from_gymnasium import GymnasiumTaskEnv, Vector
from maml_envs.adapters.metaworld import BY_METAWORLD
from maml_envs.adapters.to_gymnasium import SingleEnv
from maml_envs.bandit import Bandit
from maml_envs.contract import check_contract
from maml_envs.errors import InputError
from maml_envs.navigation import Navigation
from maml_envs.physics import gpu_extra, require_gpu_extra
from maml_envs.robots.ant import AntDirection, AntDirection2D, AntGoal, AntVelocity
from maml_envs.robots.half_cheetah import HalfCheetahDirection, HalfCheetahVelocity
from maml_envs.robots.hopper import HopperRandomDynamics
from maml_envs.robots.humanoid import HumanoidDirection
from maml_envs.robots.mujoco_task import MujocoTask
from maml_envs.robots.walker2d import Walker2dDirection, Walker2dRandomDynamics, Walker2dVelocity
from maml_envs.tabular_mdp import TabularMDP
from maml_envs.task_env import TaskEnv
from maml_envs.user_code import BY_ID, gymnasium_batch, own_class, refuse_vector

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
    """The names that ``make`` takes."""
    return list(FAMILIES)


def family(name: str) -> type[TaskEnv]:
    """The class behind a name or a "module:Class" path; that of any gymnasium environment is GymnasiumTaskEnv.

    Raises:
        InputError: There is none; the message lists near names.
    """
    if ":" in name:
        found = GymnasiumTaskEnv if name.startswith((BY_ID, BY_METAWORLD)) else own_class(name)
        return found if issubclass(found, TaskEnv) else GymnasiumTaskEnv
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(FAMILIES)}."
        if name in gymnasium.registry:
            hint = f"gymnasium's is 'gymnasium:{name}'."
        raise InputError(f"env = {name!r} is not an environment; {hint} Your own class is 'module:Class'")
    return FAMILIES[name]


def device_of(name: str, device: torch.device) -> torch.device:
    """Where an environment runs best beside a policy on ``device``: MuJoCo without the extra ``gpu`` on the CPU."""
    on_cpu = issubclass(family(name), MujocoTask) and not gpu_extra()
    return torch.device("cpu") if on_cpu else device


def _several(make_one: Callable[[], TaskEnv], copies: int | None) -> list[TaskEnv]:
    """So many copies, or as many as the environment asks for; on a GPU one does all, and records its steps."""
    first = make_one()
    if copies is None:
        copies = first.copies if first.device.type == "cpu" else 1
    return [first, *(make_one() for _ in range(copies - 1))]


def make(
    name: str,
    preset: str | None = None,
    horizon: int | None = None,
    copies: int | None = None,
    vector: Vector | None = None,
    task_ranges: Ranges | None = None,
    render_mode: str | None = None,
    device: torch.device | None = None,
) -> list[TaskEnv]:
    """Make the environment, in as many copies as work best side by side.

    Args:
        name: One of ``names()``; "module:Class" for a class of your own, called without arguments; "gymnasium:ID";
            "metaworld:NAME".
        preset: One of the family's presets; None for its first.
        horizon: Control steps in an episode; None for the environment's own.
        copies: How many; None for what the environment asks for, and for one on a GPU.
        vector: How a gymnasium environment is stepped; None for in this process.
        task_ranges: Attributes of a gymnasium environment whose values are the task.
        render_mode: "rgb_array" makes a gymnasium environment so that it can draw itself; others always can.
        device: Where one of ``names()`` has its tensors and simulates; None for the CPU. A class of your own chooses
            its device, and other environments are on the CPU.

    Returns:
        The copies.

    Raises:
        InputError: Unknown name or preset, an argument that does nothing, a class that breaks the TaskEnv contract, or
            a MuJoCo environment on a GPU without the extra ``gpu``.
    """
    chosen = family(name)
    options: dict[str, Any] = {} if preset is None else {"preset": preset}
    vector, ranges = vector or Vector(), task_ranges or {}
    if preset is not None and preset not in chosen.presets:
        known = ", ".join(chosen.presets) or "none"
        raise InputError(f"preset = {preset!r} does not exist for {name}; its presets: {known}")
    made: list[TaskEnv]
    if chosen is GymnasiumTaskEnv:
        made = [gymnasium_batch(name, vector, horizon, ranges, render_mode) for _ in range(copies or 1)]
    else:
        refuse_vector(name, vector, ranges)
        if device is not None and device.type != "cpu" and name in FAMILIES:
            if issubclass(chosen, MujocoTask):
                require_gpu_extra(name, device)
            options["device"] = device
        made = _several(partial(chosen, **options), copies)
    for env in made:
        if horizon is not None:
            env.horizon = horizon
    if ":" in name:
        try:
            check_contract(made[0])
        except BaseException:
            for env in made:
                env.close()
            raise
    return made


def register() -> None:
    """Give every preset of every family an id of gymnasium's, such as maml_rl/navigation-finn2017-v0."""
    for name, chosen in FAMILIES.items():
        for preset in chosen.presets:
            gymnasium.register(
                id=f"maml_rl/{name}-{preset}-v0",
                entry_point="maml_envs.registry:single",
                kwargs={"name": name, "preset": preset},
                order_enforce=True,
            )


def single(
    name: str, preset: str | None = None, horizon: int | None = None, render_mode: str | None = None
) -> SingleEnv:
    """Make what ``gymnasium.make("maml_envs:maml_rl/<name>-<preset>-v0")`` asks for."""
    return SingleEnv(make(name, preset, horizon, copies=1)[0], render_mode)
