"""Aggregates over runs and tasks that stand up to outliers, with bootstrap intervals (Agarwal et al. 2021)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


def interquartile_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the middle half over the last axis: a quarter, rounded down, is left out at each end."""
    ordered = np.sort(values, -1)
    cut = values.shape[-1] // 4
    return np.asarray(ordered[..., cut : values.shape[-1] - cut].mean(-1))


def _resampled(values: list[NDArray[np.float64]], resamples: int, seed: int) -> list[NDArray[np.float64]]:
    """Interquartile means (resamples,) of each (seeds, tasks): its seeds drawn for itself, the tasks once for all."""
    random = np.random.default_rng(seed)
    tasks = values[0].shape[1]
    columns = random.integers(tasks, size=(resamples, 1, tasks))
    rows = [random.integers(len(each), size=(resamples, len(each), 1)) for each in values]
    return [
        interquartile_mean(each[row, columns].reshape(resamples, -1)) for each, row in zip(values, rows, strict=True)
    ]


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def bootstrap(values: NDArray[np.float64], resamples: int = 2000, seed: int = 0) -> Interval:
    """The interquartile mean of (seeds, tasks) returns, and its percentile bootstrap interval.

    Every seed is evaluated on the same tasks, so that a resample draws tasks once for all of its seeds: seeds with
    replacement, tasks with replacement, and the returns where they cross. Of one seed the interval is over tasks alone.
    """
    (drawn,) = _resampled([values], resamples, seed)
    return _interval(float(interquartile_mean(values.reshape(-1))), drawn)


def bootstrap_difference(
    values: NDArray[np.float64], others: NDArray[np.float64], resamples: int = 2000, seed: int = 0
) -> Interval:
    """How far one interquartile mean is above another's, where both are of the same tasks and of seeds of their own."""
    first, second = _resampled([values, others], resamples, seed)
    whole, other = (float(interquartile_mean(each.reshape(-1))) for each in (values, others))
    return _interval(whole - other, first - second)
