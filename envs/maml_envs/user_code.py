"""Environments from a user's code, gymnasium and Meta-World: "module:Class", "gymnasium:ID", "metaworld:NAME"."""

import importlib.util
import inspect
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium

from maml_envs.adapters.attribute_tasks import Options, by_class
from maml_envs.adapters.from_gymnasium import GymnasiumTaskEnv, VectorOptions
from maml_envs.adapters.metaworld import BY_METAWORLD
from maml_envs.adapters.named import BY_ID, MakeEnv, Named, current_folder_first, import_own, origin
from maml_envs.errors import InputError
from maml_envs.task_env import TaskEnv


def warn_foreign_import(name: str, source: Path) -> None:
    """Print to standard error which module is about to be imported for "module:Class", and which file names it.

    A configuration is a user's own; a run folder may be anybody's.
    """
    module, colon, _ = name.removeprefix(BY_ID).partition(":")
    package = module.partition(".")[0]
    if not colon or name.startswith(BY_METAWORLD) or not package.isidentifier() or module in sys.modules:
        return
    current_folder_first()
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
    if module_name.endswith(".py"):
        raise InputError(f"env = {path!r}: name the module and not its file: '{module_name[:-3]}:{class_name}'")
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
        where = f"{module_name} ({origin(module)})"
        raise InputError(f"env = {path!r}: {where} has no {class_name!r}; its environment classes: {defined}")
    if not (isinstance(kind, type) and issubclass(kind, TaskEnv | gymnasium.Env)):
        raise InputError(
            f"env = {path!r} is not an environment class: derive it from maml_envs.TaskEnv, or from gymnasium.Env "
            "with the methods sample_tasks and set_task"
        )
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
        raise InputError(f"env = {path!r} is abstract: define {missing}")
    return kind


def gymnasium_batch(
    name: str,
    vector: VectorOptions,
    horizon: int | None,
    render_mode: str | None = None,
    options: Options | None = None,
) -> GymnasiumTaskEnv:
    """Make the environments of "gymnasium:ID", "metaworld:NAME", or a gymnasium.Env class by "module:Class".

    Raises:
        InputError: There is no such environment, or it cannot be used.
    """
    make: MakeEnv | Named = Named(name, horizon, vector.task_ranges, render_mode, options)
    if name.startswith("__main__:"):  # a script's or notebook's, which a worker cannot import
        kind = own_class(name)
        assert issubclass(kind, gymnasium.Env)
        ranges = vector.task_ranges or {}
        given = ranges or render_mode or options
        make = partial(by_class, kind, ranges, render_mode, options) if given else kind
    return GymnasiumTaskEnv(make, vector, horizon, where=f"env = {name!r}")
