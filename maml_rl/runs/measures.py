"""Measures of held-out tasks, and how their numbers are written."""

import math
from typing import NamedTuple

from maml_rl.core.statistics import Interval


class Measure(NamedTuple):
    """A quantity that is measured on held-out tasks."""

    label: str  # in tables and figures
    higher_is_better: bool = True
    is_share: bool = False  # shown in per cent
    per_episode: bool = False  # of each episode, and not of a task as a whole


MEASURES = {
    "return": Measure("return", per_episode=True),
    "success": Measure("success", is_share=True),
    "error": Measure("mean squared error", higher_is_better=False),
    "accuracy": Measure("accuracy", is_share=True),
    "accuracy_one_by_one": Measure("accuracy, one query at a time", is_share=True),
    "accuracy_spread": Measure("spread over label permutations", higher_is_better=False, is_share=True),
}


def number(value: float) -> str:
    """Write a return or a score with three digits or so."""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def shown(value: float, measure: str = "return") -> str:
    """Write a value of a measure: a share in per cent, an error short also where a task has diverged."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "infinite"
    if MEASURES[measure].is_share:
        return f"{100 * value:.2f} %"
    if measure != "error":
        return number(value)
    return f"{value:.3f}" if abs(value) < 1e4 else f"{value:.0e}"


def with_interval(estimate: Interval | None, measure: str = "return") -> str:
    """Write a value of a measure with its interval; nothing where there is none."""
    if estimate is None or not math.isfinite(estimate.value):
        return "" if estimate is None else shown(estimate.value, measure)
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return f"{shown(estimate.value, measure)} (unknown)"
    return f"{shown(estimate.value, measure)} ({shown(estimate.low, measure)} to {shown(estimate.high, measure)})"
