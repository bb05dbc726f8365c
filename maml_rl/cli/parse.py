"""The flags of every command, and how they are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro
from pydantic import ValidationError

from maml_envs import InputError
from maml_rl.config import toml
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.rl import Config
from maml_rl.config.toml import AnyConfig

T = TypeVar("T")

Settings = Annotated[Config, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
"""The keys of a configuration as flags; one that is true or false takes true or false."""


@dataclass(frozen=True)
class Run:
    """Where runs go."""

    out: Path | None = None
    """Run folder, by default runs/<configuration>-s<seed>; with --seeds the folder of theirs: s1, s2 and so on."""
    seeds: tuple[int, ...] | None = None
    """Train a run of each of these seeds at once: --seeds 1 2 3."""
    resume: bool = False
    """Continue the runs there, if there are any."""


@dataclass(frozen=True)
class Train(Run):
    """Meta-train and write a run folder. Flags replace the keys of the configuration file."""

    config: Settings = field(kw_only=True)


@dataclass(frozen=True)
class TrainFewShot(Run):
    """Meta-train and write a run folder. Flags replace the keys of the configuration file."""

    config: Annotated[FewShotConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(kw_only=True)


@dataclass(frozen=True)
class EvaluateFewShot:
    """Adapt to held-out tasks and print the error or accuracy after each gradient step; several runs are compared."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    tasks: int | None = None
    """Held-out tasks; None: the configuration's number."""
    steps: int | None = None
    """Gradient steps; None: the configuration's number."""
    shots: int | None = None
    """Support examples, of each class where there are classes; None: the configuration's number."""
    which: Literal["checkpoint", "best", "initial"] = "checkpoint"
    """The last parameters, those with the lowest training loss, or those before training."""
    tune_lr: bool | None = None
    """Adapt at the step size that serves validation tasks best, true or false; None: where method = "pretrained"."""


@dataclass(frozen=True)
class DownloadOmniglot:
    """Fetch the two zips of Omniglot as published, 15 MB, and check them."""

    folder: tyro.conf.Positional[Path]
    """Where they go."""


@dataclass(frozen=True)
class Evaluate:
    """Adapt to held-out tasks and print the return after each gradient step; several runs are compared."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    tasks: int | None = None
    """Held-out tasks; None: the configuration's number."""
    steps: int | None = None
    """Gradient steps; None: the configuration's number."""
    episodes: int | None = None
    """Episodes for each task and step; None: the configuration's number."""
    split: Literal["in", "out"] = "in"
    """Held-out tasks of the training distribution, or beyond it."""
    which: Literal["checkpoint", "best", "initial"] = "checkpoint"
    """The last parameters, those with the best training return, or those before training."""
    tune_lr: bool | None = None
    """Adapt at the inner rate that serves training tasks best, true or false; None: where method = "pretrained"."""


@dataclass(frozen=True)
class Render:
    """Film held-out tasks before adaptation and after each gradient step, side by side: mp4, gif and a picture."""

    run: tyro.conf.Positional[Path]
    """Run folder, or a checkpoint file."""
    steps: int | None = None
    """Gradient steps; None: the configuration's number."""
    tasks: int = 2
    """Held-out tasks, a row for each."""
    episodes: int | None = None
    """Episodes to adapt with, for each task and step; None: the configuration's number."""
    split: Literal["in", "out"] = "in"
    """Held-out tasks of the training distribution, or beyond it."""
    which: Literal["checkpoint", "best", "initial"] = "checkpoint"
    """The last parameters, those with the best training return, or those before training."""
    out: Path | None = None
    """Folder for the video; None: videos/ in the run folder."""
    fps: int = 20
    """Frames a second, one for each control step."""


@dataclass(frozen=True)
class CheckEnv:
    """Look for what would break or spoil training with an environment, and say how to mend it."""

    env: tyro.conf.Positional[str]
    """A name, module:Class, gymnasium:ID, or a TOML file that has one with its other keys."""
    preset: str | None = None
    """Definition of the task family; None: the family's first."""


@dataclass(frozen=True)
class CheckGradients:
    """Finite differences of the meta-gradient and the Fisher product, in float64. Flags replace the file's keys.

    It samples 2 tasks and 4 episodes, whatever the file says, unless --tasks and --episodes are given.
    """

    config: Settings


@dataclass(frozen=True)
class CheckEstimators:
    """Sample every estimator of the meta-gradient on a random Markov decision process and hold it against the truth."""

    seed: int = 0
    """Of the task, the policy and the episodes."""
    states: int = 2
    """States of the process, the first being where episodes start."""
    actions: int = 2
    """Actions in each state."""
    horizon: int = 4
    """Steps in an episode."""
    lr: float = 2.0
    """Inner rate."""
    episodes: int = 1000
    """Episodes for each gradient and step."""
    repetitions: int = 200
    """Gradients to sample."""


@dataclass(frozen=True)
class Compare:
    """Put evaluated runs of one environment side by side: methods, seeds, what adaptation is worth."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    which: Literal["checkpoint", "best", "initial"] = "checkpoint"
    """Evaluations of the last parameters, of those with the best training return, or of those before training."""
    split: Literal["in", "out"] = "in"
    """Evaluations on held-out tasks of the training distribution, or beyond it."""
    markdown: bool = False
    """Print the table alone, in Markdown."""


@dataclass(frozen=True)
class Report:
    """Write one HTML page of runs, to open anywhere: words, tables, figures, films, configurations, commands."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    out: Path | None = None
    """The page; None: report.html in the first run, numbered if it is there already."""
    films: bool = True
    """Also film meta-trained runs that were not filmed yet."""


@dataclass(frozen=True)
class Plot:
    """Draw curves of learning and of adaptation, tasks before and after, the optimisation, and paths for navigation."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    out: Path | None = None
    """Folder for the pictures; None: figures/ in the first run."""


def parse(kind: type[T], arguments: Sequence[str], command: str) -> T:
    """Options of a command."""
    return tyro.cli(kind, prog=f"maml-rl {command}", args=_spell_truths(arguments))


def _spell_truths(flags: Sequence[str]) -> list[str]:
    """The flags with true and false, also after "=", as tyro spells them."""
    words = [part for flag in flags for part in (flag.split("=", 1) if flag.startswith("--") else [flag])]
    return [
        word.capitalize() if before.startswith("--") and word.lower() in ("true", "false") else word
        for before, word in zip(["", *words], words, strict=False)
    ]


def with_config(options: Callable[[AnyConfig], T], arguments: Sequence[str], command: str) -> T:
    """Options of a command whose first argument is a configuration, and whose flags replace its keys."""
    named = bool(arguments) and not arguments[0].startswith("-")
    if not named and not {"-h", "--help"} & set(arguments):
        raise InputError(f"which configuration? A TOML file, or one of: {', '.join(toml.experiments())}")
    config: AnyConfig = toml.load(arguments[0]) if named else Config(env="...")
    flags, default = _spell_truths(arguments[1 if named else 0 :]), options(config)
    try:
        return tyro.cli(type(default), prog=f"maml-rl {command} CONFIG", args=flags, default=default)
    except ValidationError as error:
        raise toml.explain(error, "the command line") from None
