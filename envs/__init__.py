"""Task distributions: a name, or a user's own class, makes a batch of environments."""

import difflib
import importlib
import inspect
import sys
from pathlib import Path

import gymnasium

from envs.ant import AntDirection, AntDirection2D, AntGoal, AntVelocity
from envs.bandit import Bandit
from envs.check import check_contract
from envs.errors import InputError
from envs.half_cheetah import HalfCheetahDirection, HalfCheetahVelocity
from envs.hopper import HopperRandomDynamics
from envs.humanoid import HumanoidDirection
from envs.navigation import Navigation
from envs.tabular_mdp import TabularMDP
from envs.task_env import Step, TaskEnv
from envs.walker2d import Walker2dDirection, Walker2dRandomDynamics, Walker2dVelocity

__all__ = ["InputError", "Step", "TaskEnv", "check_contract", "family", "make", "names"]

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


def _own_class(path: str) -> type[TaskEnv]:
    module_name, _, class_name = path.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise InputError(f"env = {path!r}: no module can be named {module_name!r}; write 'my_module:MyTaskEnv'")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"env = {path!r}: no module {module_name!r} in {Path.cwd()} or the installed packages; "
            "run where the file is, or install it"
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        defined = [
            name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, TaskEnv)
        ]
        raise InputError(f"env = {path!r}: {module_name} has no {class_name!r}; its TaskEnv classes: {defined}")
    if not (isinstance(found, type) and issubclass(found, TaskEnv)):
        raise InputError(f"env = {path!r} is not a TaskEnv class: derive it from envs.TaskEnv")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(f"env = {path!r} is abstract: define {missing}")
    return found


def family(name: str) -> type[TaskEnv]:
    """The class behind a name or a "module:Class" path.

    Raises:
        InputError: There is none; the message lists near names.
    """
    if ":" in name:
        return _own_class(name)
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(FAMILIES)}"
        raise InputError(f"env = {name!r} is not an environment; {hint} Your own class is 'module:Class'")
    return FAMILIES[name]


def make(name: str, preset: str | None = None, horizon: int | None = None, copies: int | None = None) -> list[TaskEnv]:
    """Make the environment, in as many copies as work best side by side.

    Args:
        name: One of ``names()``, or "module:Class" for a class of your own, called without arguments.
        preset: One of the family's presets; None for its first.
        horizon: Control steps in an episode; None for the environment's own.
        copies: How many; None for what the environment asks for.

    Returns:
        The copies, usually for ``maml_rl.rollout``.

    Raises:
        InputError: Unknown name or preset, or a class that breaks the TaskEnv contract.
    """
    chosen = family(name)
    options = {} if preset is None else {"preset": preset}
    if preset is not None and preset not in chosen.presets:
        known = ", ".join(chosen.presets) or "none"
        raise InputError(f"preset = {preset!r} does not exist for {name}; its presets: {known}")
    made = [chosen(**options) for _ in range(copies or chosen.copies)]
    for env in made:
        if horizon is not None:
            env.horizon = horizon
    if ":" in name:
        check_contract(made[0])
    return made


def _register() -> None:
    for name, chosen in FAMILIES.items():
        for preset in chosen.presets:
            gymnasium.register(
                id=f"maml_rl/{name}-{preset}-v0",
                entry_point="envs.gymnasium_env:single",
                kwargs={"name": name, "preset": preset},
                order_enforce=True,
            )


_register()
