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


def bootstrap(values: NDArray[np.float64], resamples: int = 2000, seed: int = 0) -> Interval:
    """The interquartile mean of (seeds, tasks) returns, and its percentile bootstrap interval.

    Every seed is evaluated on the same tasks, so that a resample draws tasks once for all of its seeds: seeds with
    replacement, tasks with replacement, and the returns where they cross. Of one seed the interval is over tasks alone.
    """
    random = np.random.default_rng(seed)
    seeds, tasks = values.shape
    rows = random.integers(seeds, size=(resamples, seeds, 1))
    columns = random.integers(tasks, size=(resamples, 1, tasks))
    drawn = interquartile_mean(values[rows, columns].reshape(resamples, -1))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(interquartile_mean(values.reshape(-1))), float(low), float(high))
