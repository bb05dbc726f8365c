"""Environments from a user's code, gymnasium and Meta-World: "module:Class", "gymnasium:ID", "metaworld:NAME"."""

import importlib
import importlib.util
import inspect
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

from maml_envs.adapters.attribute_tasks import Ranges, by_class, by_spec
from maml_envs.adapters.from_gymnasium import GymnasiumTaskEnv, VectorOptions
from maml_envs.adapters.metaworld import BY_METAWORLD, metaworld_maker
from maml_envs.adapters.sync_envs import MakeEnv
from maml_envs.errors import InputError
from maml_envs.task_env import TaskEnv

BY_ID = "gymnasium:"


def _current_folder_first() -> None:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def import_own(module_name: str, where: str) -> ModuleType:
    """Import a user's module, which may be in the current folder; ``where`` names the key in errors.

    Raises:
        InputError: There is none. A module that it imports and that is missing is an error of its own.
    """
    _current_folder_first()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"{where}: no module {module_name!r} in {Path.cwd()} or the installed packages; "
            "run where the file is, or install it"
        ) from error


def warn_foreign_import(name: str, source: Path) -> None:
    """Print to standard error which module is about to be imported for "module:Class", and which file names it.

    A configuration is a user's own; a run folder may be anybody's.
    """
    module, colon, _ = name.partition(":")
    package = module.partition(".")[0]
    if not colon or name.startswith((BY_ID, BY_METAWORLD)) or not package.isidentifier() or module in sys.modules:
        return
    _current_folder_first()
    spec = importlib.util.find_spec(package)
    origin = Path(spec.origin) if spec and spec.origin else None
    where = f" from {origin if module == package else origin.parent}" if origin else ""
    print(f"{source} names code that is not of this package: importing {module}{where}", file=sys.stderr)


def own_class(path: str) -> type[TaskEnv] | type[gymnasium.Env[Any, Any]]:
    """Return the class of "module:Class", which may be in the current folder.

    Raises:
        InputError: There is none, or it is not an environment.
    """
    module_name, _, class_name = path.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise InputError(f"env = {path!r}: no module can be named {module_name!r}; write 'my_module:MyTaskEnv'")
    module = import_own(module_name, f"env = {path!r}")
    kind = getattr(module, class_name, None)
    if kind is None:
        bases = (TaskEnv, gymnasium.Env)
        defined = [
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, bases) and value.__module__ == module_name
        ]
        raise InputError(f"env = {path!r}: {module_name} has no {class_name!r}; its environment classes: {defined}")
    if not (isinstance(kind, type) and issubclass(kind, TaskEnv | gymnasium.Env)):
        raise InputError(
            f"env = {path!r} is not an environment class: derive it from maml_envs.TaskEnv, or from gymnasium.Env "
            "with the methods sample_tasks and set_task"
        )
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
        raise InputError(f"env = {path!r} is abstract: define {missing}")
    return kind


def _maker(name: str, horizon: int | None, ranges: Ranges, render_mode: str | None) -> MakeEnv:
    if name.startswith(BY_METAWORLD):
        if ranges:
            raise InputError(
                f"vector.task_ranges does nothing for env = {name!r}, which has tasks of its own: leave it out"
            )
        return metaworld_maker(name.removeprefix(BY_METAWORLD))
    if not name.startswith(BY_ID):
        kind = own_class(name)
        assert issubclass(kind, gymnasium.Env)
        return partial(by_class, kind, ranges, render_mode)
    _current_folder_first()
    try:
        spec = gymnasium.spec(name.removeprefix(BY_ID))
        return partial(by_spec, spec, horizon, ranges, render_mode)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise InputError(f"env = {name!r}: {error}") from error


def gymnasium_batch(
    name: str, vector: VectorOptions, horizon: int | None, render_mode: str | None = None
) -> GymnasiumTaskEnv:
    """Make the environments of "gymnasium:ID", "metaworld:NAME", or a gymnasium.Env class by "module:Class".

    Raises:
        InputError: There is no such environment, or it cannot be used.
    """
    try:
        make_one = _maker(name, horizon, vector.task_ranges or {}, render_mode)
        return GymnasiumTaskEnv(make_one, vector, horizon, where=f"env = {name!r}")
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise InputError(f"env = {name!r}: {error}") from error
