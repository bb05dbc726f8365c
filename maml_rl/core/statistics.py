"""Aggregates over runs and tasks that stand up to outliers, with bootstrap intervals (Agarwal et al. 2021).

Runs and tasks are crossed: all runs meet the same tasks. So a resample draws tasks once for all runs, and runs, and
takes the returns where they cross (Owen 2007, "The pigeonhole bootstrap", which on average is somewhat wide). Drawing
runs anew for each task, as is usual where the tasks are a fixed benchmark, says nothing of other tasks: an interval
for the mean over a distribution of tasks that is made so is too narrow.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Average = Callable[[Floats], Floats]
"""Over the last axis."""

AT_ONCE = 2**22
"""Numbers of resamples in memory at once."""


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


def interquartile_mean(values: Floats) -> Floats:
    """Mean of the middle half over the last axis: a quarter, rounded down, is left out at each end."""
    ordered = np.sort(values, -1)
    cut = values.shape[-1] // 4
    return np.asarray(ordered[..., cut : values.shape[-1] - cut].mean(-1))


def trimmed_mean(values: Floats) -> Floats:
    """Mean over the last axis without the lowest and the highest 5 %, rounded down; NaN counts as high."""
    ordered = np.sort(values, -1)
    cut = values.shape[-1] // 20
    with np.errstate(over="ignore"):
        return np.asarray(ordered[..., cut : values.shape[-1] - cut].mean(-1))


def mean(values: Floats) -> Floats:
    """Mean over the last axis; infinite where the sum is beyond the largest float."""
    with np.errstate(over="ignore"):
        return np.asarray(values.mean(-1))


def overall(values: Floats, average: Average) -> Floats:
    """One average over the seeds and tasks of (seeds, tasks, ...)."""
    return average(np.moveaxis(values.reshape(-1, *values.shape[2:]), 0, -1))


def strata(tasks: Floats | None, count: int) -> NDArray[np.int64]:
    """Return the stratum of each of ``count`` tasks (count, numbers of a task): equal ones are one, all others another.

    Where a family has two tasks, forty held-out ones are twenty adaptations to each: how many are of which is no
    chance, and no part of an interval. Tasks that are not known, or differ, are one stratum.
    """
    if tasks is None or len(tasks) != count:
        return np.zeros(count, np.int64)
    _, which, counts = np.unique(tasks.reshape(count, -1), axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(count)
    return np.where(counts[which] > 1, which + 1, 0)


def in_words(tasks: Floats | None, count: int, kind: str = "") -> str:
    """Return how many tasks of a kind these are: "40 tasks", or "2 tasks, 20 adaptations each" where they repeat."""
    different = len(np.unique(tasks.reshape(count, -1), axis=0)) if tasks is not None and len(tasks) == count else count
    if different == count:
        return f"{count} {kind}task{'s' * (count != 1)}"
    each = f"{count // different}" if count % different == 0 else f"about {count / different:.0f}"
    return f"{different} {kind}task{'s' * (different != 1)}, {each} adaptations each"


def _columns(random: np.random.Generator, of: NDArray[np.int64], resamples: int) -> NDArray[np.int64]:
    """Draw tasks with replacement, (resamples, tasks), as many of each stratum as there are."""
    columns = np.empty((resamples, len(of)), np.int64)
    for stratum in np.unique(of):
        (members,) = np.nonzero(of == stratum)
        columns[:, members] = members[random.integers(len(members), size=(resamples, len(members)))]
    return columns


def half_width(values: Floats, of: NDArray[np.int64]) -> Floats:
    """Return half the normal 95 % interval (...) of the mean over tasks (tasks, ...), drawn within their strata.

    1.96 sqrt(sum over strata of n_s var_s) / n, of unbiased variances; of one stratum 1.96 s / sqrt(n).
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of a task that has diverged, nothing is known
        parts = [(of == stratum).sum() * values[of == stratum].var(0, ddof=1) for stratum in np.unique(of)]
        return np.asarray(1.96 * np.sqrt(np.sum(parts, axis=0)) / len(values))


def resample(
    samples: Sequence[Floats],
    average: Average = interquartile_mean,
    resamples: int = 2000,
    seed: int = 0,
    of: NDArray[np.int64] | None = None,
) -> list[Floats]:
    """Averages of bootstrap resamples of several samples that were evaluated on the same tasks.

    A resample draws the tasks once for all samples, the seeds of each for itself, both with replacement, and takes
    the returns where they cross. What is computed from the same resample of two samples thereby keeps what the tasks
    make them share.

    Args:
        samples: (seeds, tasks, ...) each; the number of seeds may differ.
        average: Over seeds and tasks together.
        resamples: How many.
        seed: Of the draws.
        of: The stratum of each task, within which tasks are drawn; None for one.

    Returns:
        For each sample (resamples, ...).
    """
    random = np.random.default_rng(seed)
    tasks = samples[0].shape[1]
    columns = _columns(random, np.zeros(tasks, np.int64) if of is None else of, resamples)[:, None]
    rows = [random.integers(len(each), size=(resamples, len(each), 1)) for each in samples]

    def averages(sample: Floats, row: NDArray[np.int64]) -> Floats:
        at_once = max(1, AT_ONCE // sample.size)
        parts = []
        for first in range(0, resamples, at_once):
            drawn = sample[row[first : first + at_once], columns[first : first + at_once]]
            parts.append(average(np.moveaxis(drawn.reshape(len(drawn), -1, *sample.shape[2:]), 1, -1)))
        return np.concatenate(parts)

    return [averages(sample, row) for sample, row in zip(samples, rows, strict=True)]


def improvement(
    values: Floats,
    others: Floats,
    of: NDArray[np.int64] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Probability that a run of one sample is above a run of another on a task; ties count half (Agarwal et al. 2021).

    Args:
        values: (seeds, tasks).
        others: (seeds, tasks), of the same tasks; the number of seeds may differ.
        of: The stratum of each task, as in ``resample``.
        resamples: How many.
        seed: Of the draws.
    """
    ahead = (values[:, None] > others) + 0.5 * (values[:, None] == others)  # (seeds, seeds, tasks)
    random, tasks = np.random.default_rng(seed), values.shape[1]
    columns = _columns(random, np.zeros(tasks, np.int64) if of is None else of, resamples)
    first, second = (random.integers(len(each), size=(resamples, len(each))) for each in (values, others))

    def shares(drawn: NDArray[np.int64], count: int) -> Floats:
        times = np.zeros((resamples, count))
        np.add.at(times, (np.arange(resamples)[:, None], drawn), 1 / drawn.shape[1])
        return times

    of_tasks = ahead @ shares(columns, tasks).T  # (seeds, seeds, resamples)
    drawn = np.einsum("ra,abr,rb->r", shares(first, len(values)), of_tasks, shares(second, len(others)))
    return interval(float(ahead.mean()), drawn.clip(0, 1))


def interval(value: float, drawn: Floats) -> Interval:
    """The percentile interval of an estimate from its resamples."""
    if np.isfinite(drawn).all():
        low, high = np.percentile(drawn, [2.5, 97.5])
    else:  # between two resamples, one of which is infinite, there is nothing
        low, high = np.percentile(drawn, 2.5, method="lower"), np.percentile(drawn, 97.5, method="higher")
    return Interval(float(value), float(low), float(high))


def ratio(over: float, under: float, drawn_over: Floats, drawn_under: Floats) -> Interval:
    """A ratio of two estimates, with its percentile interval from resamples that both were computed from.

    Where the interval of the denominator holds 0, the ratio may be anything: its interval is then -inf to inf.
    """
    if under == 0:
        return Interval(float("nan"), -np.inf, np.inf)
    low, high = np.percentile(drawn_under, [2.5, 97.5])
    if low <= 0 <= high:
        return Interval(float(over / under), -np.inf, np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        return interval(over / under, drawn_over / drawn_under)


def bootstrap(values: Floats, resamples: int = 2000, seed: int = 0, average: Average = interquartile_mean) -> Interval:
    """The interquartile mean, or another average, of (seeds, tasks) returns, and its percentile bootstrap interval.

    Every seed is evaluated on the same tasks, so that a resample draws tasks once for all of its seeds: seeds with
    replacement, tasks with replacement, and the returns where they cross. Of one seed the interval is over tasks alone.
    """
    (drawn,) = resample([values], average, resamples, seed)
    return interval(float(overall(values, average)), drawn)


def bootstrap_difference(values: Floats, others: Floats, resamples: int = 2000, seed: int = 0) -> Interval:
    """Measure how far one interquartile mean is above another's, of the same tasks and of seeds of their own."""
    first, second = resample([values, others], interquartile_mean, resamples, seed)
    whole, other = (float(overall(each, interquartile_mean)) for each in (values, others))
    return interval(whole - other, first - second)
