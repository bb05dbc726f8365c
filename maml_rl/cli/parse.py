"""A command as a class, and how its fields are read from the command line."""

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_type_hints

import tyro
from pydantic import ValidationError
from tyro.conf import Positional as Positional
from tyro.conf import arg

from maml_envs import InputError
from maml_rl.config import toml
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.rl import Config
from maml_rl.config.toml import AnyConfig

COMPLETION = "--tyro-print-completion"
SHELLS = ("bash", "zsh", "fish")

AnyCommand = TypeVar("AnyCommand", bound="Command")
T = TypeVar("T")

ConfigName = Annotated[Positional[str], tyro.conf.Suppress]
"""A configuration's TOML file or name, which ``with_config`` takes off the arguments before tyro sees them."""

Keys = Annotated[T, arg(name=""), tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands]
"""The keys of a configuration as flags; one that is true or false takes true or false."""

Runs = Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]", help="Run folders.")]
RunOrCheckpoint = Annotated[
    Positional[Path],
    arg(metavar="RUN", help="Run folder, checkpoint file, or a trained agent: half_cheetah_dir."),
]
Which = Annotated[
    Literal["checkpoint", "best", "initial"],
    arg(
        help="The last parameters, those with the best training return (few-shot learning: with evaluation.every the "
        "best on validation tasks, else the lowest training loss), or those before training."
    ),
]
TemplateKind = Annotated[
    Positional[Literal["gymnasium", "batch", "robot", "few_shot"]],
    arg(
        metavar="KIND",
        help="gymnasium: an environment with two more methods; batch: one of tensors, all stepped at once; robot: a "
        "MuJoCo model; few_shot: labelled examples.",
    ),
]
TrueOrFalse = Annotated[bool, tyro.conf.FlagConversionOff]
"""A flag that takes true or false, as those of a configuration."""

Device = Annotated[str | None, arg(help="auto, cpu or cuda; None: the run's, or the CPU where there is no GPU.")]
Env = Annotated[str | None, arg(help="The same environment where its module has moved; None: the run's.")]
WorkerPython = Annotated[str | None, arg(help="The Python that runs the workers here; None: the run's.")]
Split = Annotated[
    Literal["in", "out", "validation"],
    arg(help="Held-out tasks of the training distribution, or beyond it, or others of it to choose settings by."),
]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Command(ABC):
    """A command: each class of one is a frozen dataclass, whose fields are its flags and whose docstring is its help.

    The list shows the docstring up to its first stop. A class derived from a command is the same command with more
    flags, which its ``read`` may choose.
    """

    def __init_subclass__(cls) -> None:
        """Make it a dataclass."""
        dataclass(frozen=True)(cls)

    @classmethod
    def start(cls, arguments: Sequence[str]) -> None:
        """Run the command with these arguments."""
        cls.read(arguments).run()

    @classmethod
    def read(cls, arguments: Sequence[str]) -> "Command":
        """Return the command with these arguments."""
        return parse(cls, arguments)

    @abstractmethod
    def run(self) -> None:
        """Do it."""


def is_command(thing: object) -> bool:
    """Return whether it is a class of a command, and not of one with more flags."""
    return isinstance(thing, type) and Command in thing.__bases__


def name_of(kind: type[Command]) -> str:
    """Return the name of a command, such as check-env for the class CheckEnv and for those derived from it."""
    words = next(base.__name__ for base in kind.__mro__ if is_command(base))
    return re.sub(r"(?<!^)(?=[A-Z])", "-", words).lower()


def summary_of(kind: type[Command]) -> str:
    """Return a command's docstring up to the first stop: a full stop, colon or semicolon, or the line's end."""
    return re.split(r"[.:;\n]", kind.__doc__ or "")[0]


def usage_of(kind: type[Command]) -> str:
    """Return a command's name and positional arguments, such as "evaluate RUN [RUN ...]"."""
    words = [name_of(kind)]
    for name, hint in get_type_hints(kind, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        if Positional in marks:
            words.append(next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), name.upper()))
    return " ".join(words)


def parse(kind: type[AnyCommand], arguments: Sequence[str]) -> AnyCommand:
    """Return a command with the fields that the arguments give it."""
    return tyro.cli(kind, prog=f"maml-rl {name_of(kind)}", args=_spell_truths(arguments))


def _spell_truths(flags: Sequence[str]) -> list[str]:
    """Return the flags with true and false, also after "=", as tyro spells them."""
    words = [part for flag in flags for part in (flag.split("=", 1) if flag.startswith("--") else [flag])]
    return [
        word.capitalize() if before.startswith("--") and word.lower() in ("true", "false") else word
        for before, word in zip(["", *words], words, strict=False)
    ]


def with_config(
    kind: type[AnyCommand], arguments: Sequence[str], prepare: Callable[[AnyConfig], AnyConfig] = lambda config: config
) -> AnyCommand:
    """Return a command whose first argument, ``config``, names a configuration, and whose flags replace its keys.

    Its field ``keys`` is the configuration, as ``prepare`` made it from what the file says.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    if not named and not {"-h", "--help"} & set(arguments):
        raise InputError(f"which configuration? A TOML file, or one of: {', '.join(toml.experiments())}")
    name, *flags = arguments if named else ["", *arguments]
    values: dict[str, Any] = {"config": name, "keys": prepare(toml.load(name) if named else Config(env="..."))}
    try:
        return tyro.cli(kind, prog=f"maml-rl {usage_of(kind)}", args=_spell_truths(flags), default=kind(**values))
    except ValidationError as error:
        raise toml.explain(error, "the command line") from None


def complete(kinds: Iterable[type[Command]], arguments: Sequence[str]) -> None:
    """Print a shell's tab completion: the commands, their flags and the choices of each; then exit.

    Of a command with more flags for some runs, and of configurations, those of reinforcement learning.

    Raises:
        InputError: The shell is none that completions can be written for.
    """
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise InputError(f"{COMPLETION} {shlex.join(arguments)}: name one shell, {', '.join(SHELLS)}")
    options: list[Any] = []
    for kind in kinds:
        most: Any = next(iter(kind.__subclasses__()), kind)
        default = {"default": most(config="", keys=Config(env="..."))} if "keys" in get_type_hints(most) else {}
        options.append(Annotated[most, tyro.conf.subcommand(name_of(kind), **default)])
    tyro.cli(reduce(or_, options), prog="maml-rl", args=[COMPLETION, *arguments])


def few_shot(arguments: Sequence[str | Path]) -> bool:
    """Return whether the first run folder among the arguments, which flags may come before, is of few-shot learning."""
    from maml_rl.runs.folder import read_config

    runs = [Path(argument) for argument in arguments if (Path(argument) / "config.toml").is_file()]
    return bool(runs) and isinstance(read_config(runs[0]), FewShotConfig)
