"""The evaluate command of few-shot learning, a thin layer over the Python call."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from maml_rl.cli.parse import EvaluateFewShot, parse


def evaluate(arguments: Sequence[str]) -> None:
    """``maml-rl evaluate RUN ...`` of a run of few-shot learning."""
    from maml_rl.results.few_shot_table import tabulate

    chosen = parse(EvaluateFewShot, arguments, "evaluate")
    for run in chosen.runs:
        _evaluate(run, chosen)
    if len(chosen.runs) > 1:
        tabulate(chosen.runs).show("few-shot learning on held-out tasks, 95 % intervals")


def _evaluate(run: Path, chosen: EvaluateFewShot) -> None:
    from maml_rl.evaluate_few_shot import evaluate as run_evaluation
    from maml_rl.results.few_shot_table import shown
    from maml_rl.supervised.measures import MEASURES

    result = run_evaluation(run, chosen.tasks, chosen.steps, chosen.shots, chosen.which, chosen.tune_lr)
    count = len(next(iter(result.values.values())))
    shots = "" if result.shots is None else f" shots {result.shots},"
    table = Table(title=f"{run}: {count} held-out tasks,{shots} rate {result.lr:g}")
    table.add_column("gradient steps", justify="right")
    regression = "error" in result.mean
    for name in result.mean:
        for column in (MEASURES[name], "95 % interval", *(("median", "trimmed mean") if regression else ())):
            table.add_column(column, justify="right")
    for k in range(len(next(iter(result.mean.values())))):
        row = []
        for name, mean in result.mean.items():
            numbers = [
                mean[k],
                result.ci95[name][k] if result.ci95 else math.nan,
                *((result.median[name][k], result.trimmed_mean[name][k]) if regression else ()),
            ]
            cells = [shown(x, name) for x in numbers]
            row += [cells[0], f"± {cells[1]}" if result.ci95 else "", *cells[2:]]
        table.add_row(str(k), *row)
    Console().print(table)
    if regression:
        print(f"share of tasks that diverged: {100 * result.diverged:.2f} %")
    for name, value in result.references.items():
        print(f"{name}: {value:.3f}" if regression else f"{name}: {100 * value:.2f} %")
    print(f"written: {result.file}")
