"""Facts of a gymnasium environment and rows of its steps: plain arrays and data, which another process can send.

Nothing here imports torch, as a worker loads this file.
"""

from typing import Any, NamedTuple

from numpy.typing import NDArray

Array = NDArray[Any]


class StepRows(NamedTuple):
    """The results of a step, a row for each environment."""

    observation: Array  # (batch, obs) float32
    reward: Array  # (batch,) float32
    terminated: Array  # (batch,) bool
    truncated: Array  # (batch,) bool
    info: Array  # (batch, names) float32; NaN where the environment did not give it


class About(NamedTuple):
    """Facts of an environment; plain data, which another process can send."""

    low: Array  # bounds of a flattened observation
    high: Array
    actions: tuple[Any, ...]  # the fields of ``Actions``
    space: tuple[Any, ...] | None  # ``described`` of observations
    horizon: int | None  # its own, or its time limit; None where nothing says
    names: tuple[str, ...]  # of numbers in its info; the first is success
    flat: bool  # a task is one number, and not a row
    whole: str  # the type of whole numbers or flags that a task is made of; empty for others
    draws: bool  # it was made to draw RGB arrays
    warnings: tuple[str, ...]  # what is odd about how it was asked for
    versions: dict[str, str]  # of Python, gymnasium, and MuJoCo where it is loaded
