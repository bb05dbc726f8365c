"""The commands that look at run folders."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maml_envs import InputError
from maml_rl.cli.parse import (
    Command,
    Device,
    Env,
    Runs,
    Split,
    TrueOrFalse,
    Which,
    WorkerPython,
    few_shot,
    name_of,
    parse,
)


def _require_runs(command: "Evaluate | Compare | Report") -> None:
    if not command.runs:
        name = name_of(type(command))
        raise InputError(f"which run? maml-rl {name} RUN [RUN ...], the folders that training wrote")


class Evaluate(Command):
    """Print what runs gain from adapting to held-out tasks."""

    runs: Runs
    tasks: int | None = None
    """Held-out tasks; None: the configuration's number."""
    steps: int | None = None
    """Gradient steps; None: the configuration's number."""
    which: Which = "checkpoint"
    tune_lr: bool | None = None
    """Adapt at the step size that serves training tasks best (few-shot learning: validation tasks), true or false;
    None: where method = "pretrained"."""
    device: Device = None

    @classmethod
    def read(cls, arguments: Sequence[str]) -> "Evaluate":
        return parse(EvaluateFewShot if few_shot(arguments) else EvaluateRL, arguments)

    def run(self) -> None:
        _require_runs(self)
        flags = {key: value for key, value in vars(self).items() if key != "runs"}
        for run in self.runs:
            (_show_measures if isinstance(self, EvaluateFewShot) else _show_returns)(run, flags)
        if len(self.runs) > 1:
            Compare(self.runs, self.which, flags.get("split", "in")).run()


class EvaluateRL(Evaluate):
    """Adapt to held-out tasks and print the return after each gradient step; several runs are compared."""

    episodes: int | None = None
    """Episodes for each task and step; None: the configuration's number."""
    split: Split = "in"
    env: Env = None
    worker_python: WorkerPython = None


class EvaluateFewShot(Evaluate):
    """Adapt to held-out tasks and print the error or accuracy after each gradient step; several runs are compared."""

    shots: int | None = None
    """Support examples, of each class where there are classes; None: the configuration's number."""
    seed: int | None = None
    """Another one draws other held-out tasks; None: the configuration's."""
    permutations: int | None = None
    """Adapt to each task with its labels permuted in so many ways, and show the spread; None: the configuration's."""
    backtracks: int | None = None
    """Halve a step up to n times, then leave it out, while it does not lower the support loss; None: the
    configuration's."""
    data: str | None = None
    """The same data where its module has moved; None: the run's."""
    root: str | None = None
    """Folder of Omniglot's zips here, or of what they hold; None: the variable OMNIGLOT_ROOT, or the run's."""


def _written(file: Path | None) -> None:
    """Print which file an evaluation is in, and whether another one holds the same numbers."""
    assert file is not None
    print(f"written: {file}")
    same = [
        one for one in file.parent.glob("evaluation*.json") if one.read_bytes() == file.read_bytes() and one != file
    ]
    if same:
        print(f"the same numbers as {min(same)}: held-out tasks, their starts and their noise are fixed for a run")


def _show_returns(run: Path, flags: dict[str, Any]) -> None:
    from maml_rl.config.rl import Config
    from maml_rl.evaluate import evaluate
    from maml_rl.results.published import published
    from maml_rl.runs.folder import read_config

    result, config = evaluate(run, **flags), read_config(run)
    paper = published(config, result, "return")
    steps, success = range(len(result.mean)), result.mean_success()
    columns = [("mean return", [f"{mean:.2f}" for mean in result.mean])]
    columns += [("95 % interval", [f"± {result.ci95[k]:.2f}" if result.ci95 is not None else "" for k in steps])]
    if paper and (theirs := paper.of(config.method)):
        columns += [(paper.source, [f"{theirs[k]:.2f}" if k < len(theirs) else "" for k in steps])]
    if success is not None:
        columns += [("success", [f"{100 * share:.0f} %" for share in success])]
    assert isinstance(config, Config)
    unit = f", action_scale {config.policy.action_scale:g}" if paper and config.policy.action_scale else ""
    _print_by_step(f"{run}: return on {result.tasks_in_words}{unit}", columns)
    if result.best is not None:
        print(f"best possible, knowing the task: {result.best:.2f}")
    if result.tuned:
        print(f"inner rate of the first step: {result.lr[0]:g}, chosen on training tasks")
    _written(result.file)


def _show_measures(run: Path, flags: dict[str, Any]) -> None:
    from maml_rl.evaluate import evaluate
    from maml_rl.runs.measures import MEASURES, shown

    result = evaluate(run, **flags)
    regression = result.measure == "error"
    columns = []
    for name in result.values:
        one = result.of(name)
        halves = (
            [f"± {shown(half, name)}" if math.isfinite(half) else "" for half in one.ci95]
            if one.ci95 is not None
            else [""] * len(one.mean)
        )
        columns += [(MEASURES[name].label, [shown(value, name) for value in one.mean]), ("95 % interval", halves)]
        robust = {"median": one.median, "trimmed mean": one.trimmed_mean} if regression else {}
        columns += [(header, [shown(value, name) for value in values]) for header, values in robust.items()]
    title = f"{run}: {len(result.per_task)} held-out tasks"
    title += f" of seed {result.seed}" if result.seed else ""
    title += "" if result.shots is None else f", shots {result.shots}"
    _print_by_step(title + (f", rate {result.lr[0]:g}" if result.steps else ""), columns)
    if regression:
        print(f"share of tasks that diverged: {100 * result.diverged:.2f} %")
    for name, value in result.references.items():
        print(f"{name}: {value:.3f}" if regression else f"{name}: {100 * value:.2f} %")
    _written(result.file)


def _print_by_step(title: str, columns: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Print a table with a row for each number of gradient steps; a column is its header and its cells."""
    table = Table(title=title)
    for header in ("gradient steps", *(header for header, _ in columns)):
        table.add_column(header, justify="right")
    for step, cells in enumerate(zip(*(cells for _, cells in columns), strict=True)):
        table.add_row(str(step), *cells)
    Console().print(table)


class Compare(Command):
    """Compare evaluated runs in a table and in words: methods, seeds, what adaptation is worth."""

    runs: Runs
    which: Which = "checkpoint"
    split: Split = "in"
    markdown: bool = False
    """Print the table alone, in Markdown."""

    def run(self) -> None:
        from maml_rl.results.comparison import comparisons
        from maml_rl.results.runs import grouped, read_runs
        from maml_rl.results.sentences import sentences
        from maml_rl.results.table import long_table, wide_table
        from maml_rl.runs.measures import MEASURES

        _require_runs(self)
        by_measure = comparisons(grouped(read_runs(self.runs)), self.which, self.split)
        if self.markdown:
            print("\n\n".join(wide_table(comparison).markdown() for comparison in by_measure))
            return
        of = {"checkpoint": "", "best": ", best parameters", "initial": ", before training"}[self.which]
        beyond = " beyond the training distribution" if self.split == "out" else ""
        for comparison in by_measure:
            label = MEASURES[comparison.measure].label
            tasks = comparison.tasks_in_words("validation " if self.split == "validation" else "held-out ")
            title = f"{comparison.subject}: {label} on {tasks}{beyond}{of}, 95 % intervals"
            long_table(comparison).show(title, keys=3)
        for sentence in sentences(by_measure[0]):
            print(f"- {sentence}")


class Plot(Command):
    """Draw learning, adaptation, tasks and paths: tasks before and after, paths for navigation, the optimisation."""

    runs: Runs
    out: Path | None = None
    """Folder for the pictures; None: figures/ in the first run."""

    def run(self) -> None:
        from maml_rl.results.plot import plot

        pictures = plot(self.runs, self.out)
        print(*pictures.files, sep="\n")
        if pictures.missing:
            print(*pictures.missing, sep="\n", file=sys.stderr)


class Report(Command):
    """Write one HTML page of runs, to open anywhere: words, tables, figures, films, configurations, commands."""

    runs: Runs
    out: Path | None = None
    """The page; None: report.html in the first run, numbered if it is there already."""
    films: TrueOrFalse = True
    """Also film meta-trained runs that were not filmed yet."""

    def run(self) -> None:
        from maml_rl.results.report import report

        _require_runs(self)
        print(report(self.runs, self.out, self.films))
