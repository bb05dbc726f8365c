"""The adaptation curve: a measure on held-out tasks after 0, 1, ... gradient steps."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maml_rl.pictures.style import GREY, MARKERS, SIZE, Floats, at_least_one, colours_for, legend, style


@style
def adaptation_curve(
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    published: Sequence[tuple[str, Sequence[float], bool]] = (),
    average: str = "interquartile mean",
    over: str = "tasks",
    of: str = "return",
    trimmed: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Draw a measure on held-out tasks after 0, 1, ... gradient steps.

    x: gradient steps k on the new task; groups are set a little apart, lest their intervals hide each other. y: the
    measure with its 95 % interval as a bar, such as the undiscounted return. One with k = 0 only, such as an oracle, is
    a dashed horizontal line with its interval as a band. Published values are black: open markers in the order
    diamond, square, triangle, or a dotted line where they are a level. What is not finite is not drawn.

    Args:
        curves: for each name (value, low, high) after 0, 1, ... steps, such as `statistics.Interval`.
        published: label and values after 0, 1, ... steps to compare with, and whether they are a level.
        average: what the values are.
        over: what the intervals are over, such as "seeds and tasks".
        of: what is measured.
        trimmed: for each name the mean without the 5 % of tasks at each end, a dotted line. The axis goes from 0 to a
            little above these and what is there before adaptation, not to a mean that a diverged task carries away.

    Raises:
        ValueError: no group, or one whose values are not (k, 3).
    """
    at_least_one(curves)
    values = {name: _points(name, points) for name, points in curves.items()}
    moving = [name for name, points in values.items() if len(points) > 1]
    apart = min(0.08, 0.4 / max(1, len(moving)))
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    handles: list[Any] = []
    for i, (colour, (name, points)) in enumerate(zip(colours_for(len(values)), values.items(), strict=False)):
        if name not in moving:
            handles.append(_level(axes, points[0], colour, name))
            continue
        x = np.arange(len(points)) + (moving.index(name) - (len(moving) - 1) / 2) * apart
        look = {"color": colour, "marker": MARKERS[i % len(MARKERS)], "zorder": 3}
        handles.append(axes.errorbar(x, _finite(points[:, 0]), _bars(points), **look, label=name))
        if trimmed:
            axes.plot(x, _finite(trimmed[name]), color=colour, linestyle=":", zorder=2)
    if trimmed:
        handles.append(_scaled_to_trimmed(axes, values, trimmed))
    handles += _published(axes, published)
    last = max(len(known) for known in [*values.values(), *(known for _, known, _ in published)]) - 1
    axes.set(xlabel="gradient steps on the new task", xticks=range(last + 1), xlim=(-0.3, last + 0.3))
    words = f"({'undiscounted, ' if of == 'return' else ''}{average}, 95 % interval over {over})"
    axes.set_ylabel(f"{of} on held-out tasks\n{textwrap.fill(words, 36)}")
    legend(figure, handles)
    return figure


def _points(name: str, points: Sequence[tuple[float, float, float]]) -> Floats:
    array = np.asarray(points, dtype=float)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"{name}: wanted value, low and high after each step, (k, 3), got {array.shape}")
    return array


def _scaled_to_trimmed(axes: Axes, values: Mapping[str, Floats], trimmed: Mapping[str, Sequence[float]]) -> Line2D:
    highest = [*(points[0, 2] for points in values.values()), *(x for each in trimmed.values() for x in each)]
    axes.set_ylim(0, 1.2 * np.nanmax(_finite(highest)) or 1)
    return Line2D([], [], color=GREY, linestyle=":", label="mean without the 5 % of tasks at each end")


def _level(axes: Axes, point: Floats, colour: Any, name: str) -> Line2D:  # noqa: ANN401 (a colour of matplotlib)
    axes.axhspan(point[1], point[2], color=colour, alpha=0.15, linewidth=0)
    return axes.axhline(point[0], color=colour, linestyle="--", label=name)


def _finite(values: Sequence[float] | Floats) -> Floats:
    numbers = np.asarray(values, dtype=float)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _bars(points: Floats) -> Floats:
    """Lengths (2, k) of the bars below and above; NaN where an end is not finite."""
    value, low, high = _finite(points).T
    return np.stack([value - low, high - value])


def _published(axes: Axes, published: Sequence[tuple[str, Sequence[float], bool]]) -> list[Any]:
    """Draw what was published in black; artists for the legend."""
    handles: list[Any] = []
    markers = iter("Dsv^<>")
    for label, values, level in published:
        if level:
            handles.append(axes.axhline(values[0], color="black", linestyle=":", zorder=4, label=label))
        else:
            look: dict[str, Any] = {"color": "black", "linestyle": "", "fillstyle": "none", "markersize": 7}
            handles += axes.plot(range(len(values)), values, next(markers), **look, zorder=4, label=label)
    return handles
