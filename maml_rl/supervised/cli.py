"""The commands of few-shot learning, thin layers over Python calls."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from maml_rl.few_shot_config import FewShotConfig

MEASURES = {
    "error": "mean squared error",
    "accuracy": "accuracy",
    "accuracy_one_by_one": "accuracy, one query at a time",
}


@dataclass(frozen=True)
class TrainFewShot:
    """Meta-train and write a run folder. Flags replace the keys of the configuration file."""

    config: Annotated[FewShotConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
    out: Path | None = None
    """Run folder; None: runs/<configuration>-s<seed>."""
    resume: bool = False
    """Continue the run in that folder, if it holds one."""


@dataclass(frozen=True)
class EvaluateFewShot:
    """Adapt to held-out tasks and print the error or the accuracy after each gradient step."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    tasks: int | None = None
    """Held-out tasks; None: the configuration's number."""
    steps: int | None = None
    """Gradient steps; None: the configuration's number."""
    shots: int | None = None
    """Support examples, of each class where there are classes; None: the configuration's number."""
    which: Literal["checkpoint", "best", "initial"] = "checkpoint"
    """The last parameters, those with the lowest training loss, or those before training."""
    tune_lr: bool = False
    """Adapt at the step size that serves validation tasks best, as a baseline that was not meta-trained needs."""


@dataclass(frozen=True)
class DownloadOmniglot:
    """Fetch the two zips of Omniglot as published, 15 MB, and check them."""

    folder: tyro.conf.Positional[Path]
    """Where they go."""


def download_omniglot(arguments: Sequence[str]) -> None:
    """``maml-rl download-omniglot FOLDER``."""
    from maml_rl.supervised.omniglot import download

    for path in download(tyro.cli(DownloadOmniglot, prog="maml-rl download-omniglot", args=list(arguments)).folder):
        print(path)


def evaluate(arguments: Sequence[str]) -> None:
    """``maml-rl evaluate RUN ...`` of a run of few-shot learning."""
    from maml_rl.supervised.evaluate import evaluate as run_evaluation

    chosen = tyro.cli(EvaluateFewShot, prog="maml-rl evaluate", args=list(arguments))
    result, path = run_evaluation(chosen.run, chosen.tasks, chosen.steps, chosen.shots, chosen.which, chosen.tune_lr)
    count = len(next(iter(result.values.values())))
    table = Table(title=f"{chosen.run}: {count} held-out tasks, {result.shots} shots, rate {result.lr:g}")
    table.add_column("gradient steps", justify="right")
    regression = "error" in result.mean
    for name in result.mean:
        for column in (MEASURES[name], "95 % interval", *(("median", "trimmed mean") if regression else ())):
            table.add_column(column, justify="right")
    for k in range(len(next(iter(result.mean.values())))):
        row = []
        for name, mean in result.mean.items():
            shown = [
                mean[k],
                result.ci95[name][k] if result.ci95 else math.nan,
                *((result.median[name][k], result.trimmed_mean[name][k]) if regression else ()),
            ]
            cells = [f"{x:.3f}" if regression else f"{100 * x:.2f} %" for x in shown]
            row += [cells[0], f"± {cells[1]}" if result.ci95 else "", *cells[2:]]
        table.add_row(str(k), *row)
    Console().print(table)
    if regression:
        print(f"share of tasks that diverged: {100 * result.diverged:.2f} %")
    for name, value in result.references.items():
        print(f"{name}: {value:.3f}" if regression else f"{name}: {100 * value:.2f} %")
    print(f"written: {path}")
