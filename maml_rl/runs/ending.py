"""When a run ends before its iterations: it is good enough, or its time is up."""

import math
import time
from collections.abc import Mapping, Sequence

from maml_rl.config.base import METHODS
from maml_rl.config.toml import AnyConfig

LAST = 3
"""Evaluations whose mean says how good a run is."""

JUDGED = {"evaluation/{}": 1, "validation/accuracy/{}": 1, "validation/error/{}": -1}
"""Metrics that a run is judged by, after a number of gradient steps, and whether more (1) or less (-1) is better."""


def lately(values: Sequence[float]) -> float:
    """Return the mean of the last evaluations; NaN, which reaches no score, where there are too few."""
    return sum(values[-LAST:]) / LAST if len(values) >= LAST else math.nan


class Ending:
    """Looks at the evaluations and the time of training, for the keys of ``stop``.

    Args:
        config: Of the runs, which train together.
        runs: How many.
    """

    def __init__(self, config: AnyConfig, runs: int) -> None:
        self._stop = config.stop
        steps = 0 if METHODS[config.method].told else config.evaluation.steps
        self._signs = {name.format(steps): sign for name, sign in JUDGED.items()}
        self._sign = 1
        self._values: list[list[float]] = [[] for _ in range(runs)]
        self._began = time.monotonic()
        self.asked = self._stop.at is not None or self._stop.minutes is not None

    def note(self, runs: Sequence[int], rows: Sequence[Mapping[str, float]]) -> None:
        """Take rows of metrics, of which some have an evaluation."""
        for run, row in zip(runs, rows, strict=True):
            for name in self._signs.keys() & row.keys():
                self._values[run].append(row[name])
                self._sign = self._signs[name]

    def reason(self) -> str:
        """Say why the runs end now; empty while they go on. All of them have to be good enough."""
        at, minutes = self._stop.at, self._stop.minutes
        means = [lately(values) for values in self._values if values]  # a run that is complete already has none
        if at is not None and means and all(self._sign * mean >= self._sign * at for mean in means):
            return f"stop.at = {at:g} is reached, by {', '.join(f'{mean:.4g}' for mean in means)}"
        if minutes is not None and time.monotonic() - self._began >= 60 * minutes:
            return f"stop.minutes = {minutes:g} are over"
        return ""
