"""The adaptation curve: return on held-out tasks after 0, 1, ... gradient steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maml_rl.pictures.style import MARKERS, SIZE, at_least_one, colours_for, legend, style


@style
def adaptation_curve(
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    published: Mapping[str, Sequence[float]] | None = None,
    average: str = "interquartile mean",
    over: str = "tasks",
) -> Figure:
    """Draw the return on held-out tasks after 0, 1, ... gradient steps.

    x: gradient steps k on the new task; groups are set a little apart, lest their intervals hide each other. y:
    undiscounted return with its 95 % interval as a bar. One with k = 0 only, such as an oracle, is a dashed
    horizontal line with its interval as a band. Published values are black: diamonds MAML, squares pretrained,
    triangles random, a dotted line the oracle.

    Args:
        curves: for each name (value, low, high) after 0, 1, ... steps, such as `statistics.Interval`.
        published: values by label to compare with: what is labelled "... oracle" after no step, others after 0, 1, ...
        average: what the values are.
        over: what the intervals are over, such as "seeds and tasks".

    Raises:
        ValueError: no group, or one whose values are not (k, 3).
    """
    at_least_one(curves)
    values = {name: np.asarray(points, dtype=float) for name, points in curves.items()}
    for name, points in values.items():
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"{name}: wanted value, low and high after each step, (k, 3), got {points.shape}")
    moving = [name for name, points in values.items() if len(points) > 1]
    apart = min(0.08, 0.4 / max(1, len(moving)))
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    handles: list[Any] = []
    for i, (colour, (name, points)) in enumerate(zip(colours_for(len(values)), values.items(), strict=False)):
        value, low, high = points.T
        if name not in moving:
            axes.axhspan(low[0], high[0], color=colour, alpha=0.15, linewidth=0)
            handles.append(axes.axhline(value[0], color=colour, linestyle="--", label=name))
        else:
            x = np.arange(len(value)) + (moving.index(name) - (len(moving) - 1) / 2) * apart
            look = {"color": colour, "marker": MARKERS[i % len(MARKERS)], "zorder": 3}
            handles.append(axes.errorbar(x, value, [value - low, high - value], **look, label=name))
    last = max(len(points) for points in values.values()) - 1
    if published:
        handles += _published(axes, published)
        last = max(last, *(len(values) - 1 for values in published.values()))
    axes.set(xlabel="gradient steps on the new task", xticks=range(last + 1), xlim=(-0.3, last + 0.3))
    axes.set_ylabel(f"return on held-out tasks\n(undiscounted, {average},\n95 % interval over {over})")
    legend(figure, handles)
    return figure


def _published(axes: Axes, published: Mapping[str, Sequence[float]]) -> list[Any]:
    """Open black markers for what was published; artists for the legend."""
    handles: list[Any] = []
    markers = {"MAML": "D", "pretrained": "s", "random": "v"}
    for label, values in published.items():
        method = label.split()[-1]
        if method == "oracle":
            handles.append(axes.axhline(values[0], color="black", linestyle=":", zorder=4, label=label))
        else:
            look: dict[str, Any] = {"color": "black", "linestyle": "", "fillstyle": "none", "markersize": 7}
            handles += axes.plot(range(len(values)), values, markers[method], **look, zorder=4, label=label)
    return handles
