"""What a comparison of runs says, in sentences."""

from collections.abc import Iterator, Sequence

import numpy as np

from maml_rl.results.comparison import Comparison, Point, Row, evaluated, returns_of
from maml_rl.results.runs import Group
from maml_rl.results.statistics import Floats, Interval, interval, mean, overall, resample

FEW_SEEDS = 5
"""With fewer seeds an interval over them is rough (Agarwal et al. 2021)."""

CHANCE = "changes the return by no more than chance might,"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def _range(found: Interval) -> str:
    return f"{_number(found.value)} ({_number(found.low)} to {_number(found.high)})"


def _seeds(row: Row) -> str:
    return f"{len(row.seeds)} seeds" if len(row.seeds) > 1 else "one seed"


def share_worse(returns: Floats) -> float:
    """Share of tasks with a lower return after one step than before, each the mean of its seeds; (seeds, tasks, k)."""
    before, after = returns.mean(0)[:, :2].T
    return float((after < before).mean())


def _adaptation(row: Row, returns: Floats, tasks: int) -> Iterator[str]:
    before, after = row.points[0], row.points[1]
    (drawn,) = resample([returns[..., 1] - returns[..., 0]], mean)
    change = interval(after.mean.value - before.mean.value, drawn)
    effect = "raises the return" if change.low > 0 else "lowers the return" if change.high < 0 else CHANCE
    yield (
        f"{row.label}: one gradient step on a held-out task {effect} from {_range(before.mean)} to "
        f"{_range(after.mean)}, mean over {tasks} tasks and {_seeds(row)}."
    )
    worse = share_worse(returns)
    yield f"{row.label}: {100 * worse:.0f} % of the tasks have a lower return after the step than before it."
    best = max(row.points[1:], key=lambda point: point.mean.value)
    if best.steps > 1:
        yield f"{row.label}: its best return is after {best.steps} steps, {_range(best.mean)}."


def _against(row: Row, returns: Floats, other: Row, others: Floats, steps: int) -> str:
    oracle = other.method == "oracle"
    when = "After one step" if steps == 1 else f"After {steps} steps"
    k = 0 if oracle else steps
    ours, theirs = resample([returns[..., steps], others[..., k]], mean)
    difference = overall(returns[..., steps], mean) - overall(others[..., k], mean)
    found = interval(float(difference), ours - theirs)
    against = "the oracle" if oracle else other.label
    if found.low > 0:
        said = f"is above {against}"
    elif found.high < 0:
        said = f"is below {against}"
    else:
        return f"{when} {row.label} cannot be told from {against}: difference {_range(found)}."
    size = Interval(abs(found.value), *sorted((abs(found.low), abs(found.high))))
    return f"{when} {row.label} {said} by {_range(size)}."


def _gap(point: Point, comparison: Comparison, label: str) -> Iterator[str]:
    if point.gap_closed is None or not np.isfinite(point.gap_closed[1:]).all():
        return
    known = comparison.published.gap_closed(1) if comparison.published else None
    paper = f"; {known:.2f} in {comparison.published.source}" if known and comparison.published else ""
    yield f"{label} closes {_range(point.gap_closed)} of the way to the oracle in one step{paper}."


def sentences(comparison: Comparison, groups: Sequence[Group]) -> list[str]:
    """What is worth saying first. Numbers in brackets are 95 % intervals over seeds and tasks.

    Args:
        comparison: Of the groups.
        groups: Those that it was made of, with their evaluations.
    """
    found = {group.label: returns_of(group) for group in evaluated(groups)}
    adapts = [row for row in comparison.rows if row.method == "maml" and len(row.points) > 1]
    said: list[str] = []
    for row in adapts:
        said += _adaptation(row, found[row.label], len(comparison.tasks))
        for other in (each for each in comparison.rows if each.method != "maml"):
            last = min(len(row.points), len(row.points if other.method == "oracle" else other.points)) - 1
            steps = sorted({1, last}) if last else []
            said += [_against(row, found[row.label], other, found[other.label], k) for k in steps]
        said += _gap(row.points[1], comparison, row.label)
    few = sorted({len(row.seeds) for row in comparison.rows if row.method != "random"})
    if few and few[0] == 1:
        said.append("With one seed the interval is over tasks alone: how much seeds differ is not shown.")
    elif few and few[0] < FEW_SEEDS:
        said.append(f"With {few[0]} seeds the part of the interval that comes from them is rough.")
    return said
