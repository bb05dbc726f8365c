"""Environments by name, "gymnasium:ID", "metaworld:NAME" or "module:Class", where they are made: here or in a worker.

Nothing here imports torch, as a worker loads this file.
"""

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium

from maml_envs.adapters.attribute_tasks import Options, Ranges, by_class, by_spec
from maml_envs.adapters.metaworld import BY_METAWORLD, metaworld_maker
from maml_envs.errors import InputError

MakeEnv = Callable[[], "gymnasium.Env[Any, Any]"]

BY_ID = "gymnasium:"


def current_folder_first() -> None:
    """Let modules of the current folder be imported."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def import_own(module_name: str, where: str) -> ModuleType:
    """Import a user's module, which may be in the current folder; ``where`` names the key in errors.

    Raises:
        InputError: There is none, or it ends the program. A module that it imports and that is missing is an error of
            its own.
    """
    current_folder_first()
    try:
        return importlib.import_module(module_name)
    except SystemExit as error:
        raise InputError(
            f"{where}: importing {module_name} ends the program: what it does as a script, such as reading arguments, "
            "goes under if __name__ == '__main__':"
        ) from error
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"{where}: no module {module_name!r} in {Path.cwd()} or the installed packages; "
            "run where the file is, or install it"
        ) from error


def own_object(path: str, where: str, otherwise: str) -> object:
    """Import what "my_module:Name" names; None where the module has no such name.

    Args:
        path: The module, which may be in the current folder or in packages, and the name.
        where: Names the key in errors.
        otherwise: What the error says of a path of another form.

    Raises:
        InputError: It is of another form, or there is no such module; see ``import_own``.
    """
    module, _, name = path.partition(":")
    if not name or not all(part.isidentifier() for part in module.split(".")):
        raise InputError(otherwise)
    return getattr(import_own(module, where), name, None)


def origin(module: ModuleType) -> str:
    """Return where a module is from, for errors: a folder without code hides a file of its name."""
    if file := getattr(module, "__file__", None):
        return str(file)
    folders = list(getattr(module, "__path__", ()))
    return f"the folder {folders[0]}, which is found before a file of that name" if folders else "built into Python"


class Named(NamedTuple):
    """An environment by its name; plain data, which another process can be sent."""

    name: str
    horizon: int | None = None  # replaces the time limit of one that is registered
    ranges: Ranges | None = None  # of attributes that make the task; none: it draws its own
    render_mode: str | None = None
    options: Options | None = None  # arguments of its constructor

    def maker(self) -> MakeEnv:
        """Import what it needs, and return what makes it.

        Raises:
            InputError: There is no such environment, or it cannot be used.
        """
        try:
            return self._maker()
        except ModuleNotFoundError as error:
            raise InputError(
                f"env = {self.name!r}: {error}, which it imports; install that for {sys.executable}"
            ) from error
        except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
            raise InputError(f"env = {self.name!r}: {error}") from error

    def _maker(self) -> MakeEnv:
        name, ranges = self.name, self.ranges or {}
        if name.startswith(BY_METAWORLD):
            for key, given in (("vector.task_ranges", ranges), ("env_options", self.options)):
                if given:
                    raise InputError(f"{key} does nothing for env = {name!r}, which has tasks of its own: leave it out")
            return metaworld_maker(name[len(BY_METAWORLD) :])
        if not name.startswith(BY_ID):
            module, _, kind = name.partition(":")
            imported = import_own(module, f"env = {name!r}")
            found = getattr(imported, kind, None)
            if not (isinstance(found, type) and issubclass(found, gymnasium.Env)):
                raise InputError(f"env = {name!r}: {module} ({origin(imported)}) has no gymnasium.Env {kind!r}")
            return partial(by_class, found, ranges, self.render_mode, self.options)
        current_folder_first()
        module, colon, identifier = name[len(BY_ID) :].rpartition(":")
        if colon:  # whose import registers it
            import_own(module, f"env = {name!r}")
        try:
            spec = gymnasium.spec(identifier)
        except (gymnasium.error.Error, ModuleNotFoundError) as error:
            raise InputError(f"env = {name!r}: {error}") from error
        if isinstance(spec.entry_point, str):  # with what it imports, MuJoCo too, before one is made
            importlib.import_module(spec.entry_point.partition(":")[0])
        return partial(by_spec, spec, self.horizon, ranges, self.render_mode, self.options)
