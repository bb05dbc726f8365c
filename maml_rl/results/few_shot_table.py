"""Few-shot evaluations as a table: what the terminal and experiments/README.md show."""

import math
from collections.abc import Sequence
from pathlib import Path

from maml_envs import InputError
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.results.runs import read_runs
from maml_rl.results.table import Table, after
from maml_rl.supervised.measures import MEASURES

STEPS = (0, 1, 3, 5, 10)
"""After which steps, where there are so many."""


def shown(value: float, measure: str) -> str:
    """An accuracy in per cent; an error short also where a task has diverged."""
    if math.isinf(value):
        return "infinite"
    if measure != "error":
        return f"{100 * value:.2f} %"
    return f"{value:.3f}" if abs(value) < 1e4 else f"{value:.0e}"


def tabulate(runs: Sequence[Path | str]) -> Table:
    """A row for each evaluated run and measure: means after some steps with 95 % intervals over tasks.

    Raises:
        InputError: There is no run, or one that is not of few-shot learning, or none is evaluated.
    """
    found = [run for run in read_runs(runs, FewShotConfig) if run.evaluation]
    if not found:
        raise InputError(f"nothing is evaluated yet: maml-rl evaluate {runs[0]}")
    data = {run.config.data for run in found}
    if len(data) > 1:
        raise InputError(f"errors compare only on the same data: these runs are of {' and '.join(sorted(data))}")
    steps = [k for k in STEPS if all(k < len(next(iter((run.evaluation or {})["mean"].values()))) for run in found)]
    methods = [f"{run.config.method}, seed {run.config.seed}" for run in found]
    alike = len(set(methods)) < len(methods)
    labels = [Path(run.name).name if alike else method for run, method in zip(found, methods, strict=True)]
    rows = []
    for run, label in zip(found, labels, strict=True):
        content = run.evaluation or {}
        for measure, mean in content["mean"].items():
            half = (content["ci95"] or {}).get(measure)
            cells = [
                shown(mean[k], measure) + (f" ± {shown(half[k], measure)}" if half and math.isfinite(half[k]) else "")
                for k in steps
            ]
            last = [shown(content[name][measure][steps[-1]], measure) for name in ("median", "trimmed_mean")]
            lost = f"{100 * content['diverged']:.1f} %" if measure == "error" else ""
            rows.append((label, str(content.get("iteration", "")), MEASURES[measure], *cells, *last, lost))
    ends = (f"median, {after(steps[-1])}", "trimmed mean", "diverged")
    return Table(("", "iterations", "measure", *map(after, steps), *ends), tuple(rows))
