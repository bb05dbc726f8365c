"""Navigation with every inner estimator under every outer step: trains what is missing, then a table and a picture.

python experiments/compare_estimators.py runs/compare
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import tyro

from maml_rl.core.statistics import Interval, bootstrap, bootstrap_difference
from maml_rl.pictures.curves import seconds
from maml_rl.runs.evaluation import read_evaluation
from maml_rl.runs.folder import read_metrics

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ESTIMATORS = {
    "log_prob": ["--inner.estimator", "log_prob", "--inner.first-order", "false"],
    "lvc": ["--inner.estimator", "lvc", "--inner.first-order", "false"],
    "dice": ["--inner.estimator", "dice", "--inner.first-order", "false"],
    "first_order": ["--inner.estimator", "log_prob", "--inner.first-order", "true"],
}
OUTER = ("trpo", "promp")
COLORS = dict(zip(ESTIMATORS, ("#D55E00", "#0072B2", "#009E73", "#CC79A7"), strict=True))  # Okabe and Ito


@dataclass(frozen=True)
class Arguments:
    """What to compare, and where the runs are."""

    runs: tyro.conf.Positional[Path]
    """Folder of the run folders, <outer>-<estimator>-s<seed>; missing ones are trained."""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    iterations: int = 100
    jobs: int = os.cpu_count() or 1
    """Runs at the same time, one thread each; their number changes no result."""
    draw: bool = False
    """Train nothing: use the seeds that are there."""


def folder(runs: Path, outer: str, estimator: str, seed: int) -> Path:
    """Return the run folder of one run."""
    return runs / f"{outer}-{estimator}-s{seed}"


def finished(run: Path, iterations: int) -> bool:
    """Whether a run is trained and evaluated; an evaluation of other parameters would be compared as if it were."""
    if not (run / "evaluation.json").exists():
        return False
    evaluated = read_evaluation(run / "evaluation.json").iteration
    if evaluated != iterations:
        sys.exit(f"{run} was evaluated after {evaluated} iterations, not {iterations}: move it away")
    return True


def make(chosen: Arguments, outer: str, estimator: str, seed: int) -> None:
    """Train and evaluate one run, unless that is done."""
    run = folder(chosen.runs, outer, estimator, seed)
    if finished(run, chosen.iterations):
        return
    program = [sys.executable, "-m", "maml_rl"]
    settings = ["--outer.name", outer, *ESTIMATORS[estimator], "--seed", str(seed), "--threads", "1"]
    train = ["train", "navigation", "--iterations", str(chosen.iterations), *settings, "--out", str(run), "--resume"]
    for command in (train, ["evaluate", str(run)]):
        subprocess.run([*program, *command], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def returns(run: Path) -> np.ndarray:
    """Mean return of each held-out task after each step, (tasks, steps + 1)."""
    return read_evaluation(run / "evaluation.json").per_task


def summary(runs: list[Path], reference: list[Path]) -> dict[str, object]:
    """Interquartile means over seeds and tasks after 0 to 3 steps, how far a reference is ahead, and the cost."""
    values, others = (np.stack([returns(run) for run in each]) for each in (runs, reference))
    steps = range(values.shape[-1])
    return {
        "seeds": len(runs),
        "return": [bootstrap(values[..., k])._asdict() for k in steps],
        "log_prob_ahead": [bootstrap_difference(others[..., k], values[..., k])._asdict() for k in steps],
        "mean_of_each_seed": values.mean(1).tolist(),
        "seconds_an_iteration": float(np.median([np.median(seconds(read_metrics(run))) for run in runs])),
    }


def table(rows: dict[str, dict[str, object]]) -> str:
    """The comparison in Markdown."""
    lines = [
        "| outer | inner | seeds | after 1 step | after 3 steps | log_prob ahead: 1 | 3 | seconds an iteration |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        outer, estimator = name.split("-")
        cells = [Interval(**row["return"][k]) for k in (1, 3)]
        cells += [Interval(**row["log_prob_ahead"][k]) for k in (1, 3) if estimator != "log_prob"]
        shown = " | ".join([*(f"{x.value:.1f} ({x.low:.1f} to {x.high:.1f})" for x in cells), *[""] * (4 - len(cells))])
        lines.append(f"| {outer} | {estimator} | {row['seeds']} | {shown} | {row['seconds_an_iteration']:.1f} |")
    return "\n".join(lines) + "\n"


def draw(rows: dict[str, dict[str, object]], learning: dict[str, list[Path]], path: Path) -> None:
    """Training return over iterations, and held-out return after each step with intervals."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), sharey="col", layout="constrained")
    for (left, right), outer in zip(axes, OUTER, strict=True):
        for index, (estimator, color) in enumerate(COLORS.items()):
            name = f"{outer}-{estimator}"
            if name not in rows:
                continue
            curves = np.array([[row["return/1"] for row in read_metrics(run)] for run in learning[name]])
            left.plot(np.median(curves, 0), color=color, label=estimator)
            left.fill_between(range(curves.shape[1]), curves.min(0), curves.max(0), color=color, alpha=0.15, lw=0)
            points = [Interval(**point) for point in rows[name]["return"]]
            at = np.arange(len(points)) + 0.08 * (index - 1.5)
            error = [[p.value - p.low for p in points], [p.high - p.value for p in points]]
            right.errorbar(at, [p.value for p in points], error, color=color, marker="o", ms=4, capsize=3)
        left.set(title=f"{outer}: training", ylabel="return after 1 step", ylim=(-60, 0))
        right.set(title=f"{outer}: 40 held-out tasks", ylabel="return", xticks=range(4), ylim=(-50, 0))
        for axis in (left, right):
            axis.grid(alpha=0.3)
    axes[1][0].set_xlabel("iteration")
    axes[1][1].set_xlabel("gradient steps")
    axes[0][0].legend(frameon=False, title="median and range of seeds", loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train what is missing, then compare."""
    chosen = tyro.cli(Arguments, description=__doc__)
    if not chosen.draw:
        jobs = [(outer, name, seed) for seed in chosen.seeds for outer in OUTER for name in ESTIMATORS]
        for job in jobs:
            finished(folder(chosen.runs, *job), chosen.iterations)  # refuses before anything is trained
        with ThreadPoolExecutor(chosen.jobs) as executor:
            list(executor.map(lambda job: make(chosen, *job), jobs))
    done = {}
    for outer in OUTER:
        for name in ESTIMATORS:
            runs = [folder(chosen.runs, outer, name, seed) for seed in chosen.seeds]
            done[f"{outer}-{name}"] = [run for run in runs if finished(run, chosen.iterations)]
    learning = {name: runs for name, runs in done.items() if runs}
    rows = {name: summary(runs, learning[f"{name.split('-')[0]}-log_prob"]) for name, runs in learning.items()}
    (chosen.runs / "comparison.json").write_text(json.dumps(rows, indent=1))
    (chosen.runs / "comparison.md").write_text(table(rows))
    draw(rows, learning, chosen.runs / "comparison.png")
    print(table(rows))
    print(*(chosen.runs / f"comparison.{kind}" for kind in ("md", "json", "png")), sep="\n")


if __name__ == "__main__":
    main()
