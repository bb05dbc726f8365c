"""The evaluate command of few-shot learning, a thin layer over the Python call."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from maml_rl.cli.parse import EvaluateFewShot, parse


def evaluate(arguments: Sequence[str]) -> EvaluateFewShot:
    """``maml-rl evaluate RUN ...`` of runs of few-shot learning; returns the options."""
    chosen = parse(EvaluateFewShot, arguments, "evaluate")
    for run in chosen.runs:
        _evaluate(run, chosen)
    return chosen


def _evaluate(run: Path, chosen: EvaluateFewShot) -> None:
    from maml_rl.evaluate import evaluate as run_evaluation
    from maml_rl.runs.measures import MEASURES, shown

    result = run_evaluation(
        run, chosen.tasks, chosen.steps, which=chosen.which, tune_lr=chosen.tune_lr, shots=chosen.shots
    )
    title = f"{run}: {len(result.per_task)} held-out tasks"
    title += "" if result.shots is None else f", shots {result.shots}"
    table = Table(title=title + (f", rate {result.lr[0]:g}" if result.steps else ""))
    table.add_column("gradient steps", justify="right")
    regression = result.measure == "error"
    columns: list[list[str]] = []
    for name in result.values:
        one = result.of(name)
        half = (
            [] if one.ci95 is None else [f"± {shown(each, name)}" if math.isfinite(each) else "" for each in one.ci95]
        )
        numbers = (one.mean, one.median, one.trimmed_mean) if regression else (one.mean,)
        mean, *others = ([shown(each, name) for each in values] for values in numbers)
        columns += [mean, half or [""] * len(mean), *others]
        for column in (MEASURES[name].label, "95 % interval", *(("median", "trimmed mean") if regression else ())):
            table.add_column(column, justify="right")
    for k, cells in enumerate(zip(*columns, strict=True)):
        table.add_row(str(k), *cells)
    Console().print(table)
    if regression:
        print(f"share of tasks that diverged: {100 * result.diverged:.2f} %")
    for name, value in result.references.items():
        print(f"{name}: {value:.3f}" if regression else f"{name}: {100 * value:.2f} %")
    print(f"written: {result.file}")
