"""A comparison of runs in sentences."""

from collections.abc import Iterator

import numpy as np

from maml_rl.config.base import METHODS
from maml_rl.core.statistics import Floats, Interval, improvement, interval, mean, overall, resample
from maml_rl.results.comparison import Comparison, GroupResult
from maml_rl.runs.measures import MEASURES, shown, with_interval

FEW_SEEDS = 5
"""With fewer seeds an interval over them is rough (Agarwal et al. 2021)."""


UNCHANGED = ", where a policy that does not change would have about half"
"""New episodes of the same policy are as often worse as better; the same queries of few-shot learning are neither."""


def share_worse(values: Floats, higher_is_better: bool = True) -> float:
    """Share of tasks that are worse after one step than before, each the mean of its seeds; (seeds, tasks, k)."""
    before, after = values.mean(0)[:, :2].T
    return float((after < before if higher_is_better else after > before).mean())


def _adaptation(row: GroupResult, comparison: Comparison) -> Iterator[str]:
    measure = comparison.measure
    label, better = MEASURES[measure].label, MEASURES[measure].higher_is_better
    before, after = row.points[0], row.points[1]
    (changes,) = resample([row.values[..., 1] - row.values[..., 0]], mean, of=comparison.strata)
    change = interval(after.mean.value - before.mean.value, changes)
    chance = f"changes the {label} by no more than chance might,"
    effect = f"raises the {label}" if change.low > 0 else f"lowers the {label}" if change.high < 0 else chance
    seeds = f"{len(row.seeds)} seeds" if len(row.seeds) > 1 else "one seed"
    yield (
        f"{row.label}: one gradient step on a held-out task {effect} from {with_interval(before.mean, measure)} to "
        f"{with_interval(after.mean, measure)}, mean over {comparison.tasks_in_words()} and {seeds}."
    )
    worse = share_worse(row.values, better)
    yield (
        f"{row.label}: {100 * worse:.0f} % of the tasks have a {'lower' if better else 'higher'} {label} after the "
        f"step than before it{UNCHANGED if comparison.is_rl else ''}."
    )
    best = max(row.points[1:], key=lambda point: point.mean.value if better else -point.mean.value)
    if best.steps > 1:
        yield f"{row.label}: its best {label} is after {best.steps} steps, {with_interval(best.mean, measure)}."
    if row.diverged:
        share = shown(row.diverged, "success")
        yield f"{row.label}: {share} of the tasks diverge within {row.points[-1].steps} steps and carry the mean away."


def _against(row: GroupResult, other: GroupResult, steps: int, comparison: Comparison) -> Iterator[str]:
    measure = comparison.measure
    told = METHODS[other.method].told
    when = "After one step" if steps == 1 else f"After {steps} steps"
    ours, theirs = row.values[..., steps], other.values[..., 0 if told else steps]
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return
    resamples = resample([ours, theirs], mean, of=comparison.strata)
    difference = interval(float(overall(ours, mean) - overall(theirs, mean)), resamples[0] - resamples[1])
    against = "the oracle" if told else other.label
    sign = 1.0 if MEASURES[measure].higher_is_better else -1.0
    better = improvement(sign * ours, sign * theirs, comparison.strata)
    odds = f"better on a task with probability {with_interval(better)}"
    if difference.low <= 0 <= difference.high:
        apart = with_interval(difference, measure)
        yield f"{when} {row.label} cannot be told from {against}: difference {apart}; {odds}."
        return
    size = Interval(abs(difference.value), *sorted((abs(difference.low), abs(difference.high))))
    side = "above" if difference.low > 0 else "below"
    yield f"{when} {row.label} is {side} {against} by {with_interval(size, measure)}; {odds}."


def _gap(row: GroupResult, comparison: Comparison) -> Iterator[str]:
    closed = row.points[1].gap_closed
    if closed is None or not np.isfinite(closed[1:]).all():
        return
    known = comparison.published.gap_closed(1) if comparison.published else None
    paper = f"; {known:.2f} in {comparison.published.source}" if known and comparison.published else ""
    yield f"{row.label} closes {with_interval(closed)} of the way to the oracle in one step{paper}."


def sentences(comparison: Comparison) -> list[str]:
    """Say what is worth saying first. Numbers in brackets are 95 % intervals over seeds and tasks."""
    others = [row for row in comparison.rows if not METHODS[row.method].adapts]
    lines: list[str] = []
    for row in comparison.rows:
        if not METHODS[row.method].adapts or len(row.points) < 2:
            continue
        lines += _adaptation(row, comparison)
        for other in others:
            last = min(len(row.points), len(row.points if METHODS[other.method].told else other.points)) - 1
            for k in sorted({1, last}) if last else []:
                lines += _against(row, other, k, comparison)
        lines += _gap(row, comparison)
    few = sorted({len(row.seeds) for row in comparison.rows if METHODS[row.method].trains})
    if few and few[0] == 1:
        lines.append("With one seed the interval is over tasks alone: how much seeds differ is not shown.")
    elif few and few[0] < FEW_SEEDS:
        lines.append(f"With {few[0]} seeds the part of the interval that comes from them is rough.")
    return lines
