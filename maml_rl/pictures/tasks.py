"""Returns task by task: before against after adaptation, and over what the tasks are."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from maml_rl.pictures.maps import maps
from maml_rl.pictures.style import (
    BLUE,
    GREY,
    MARKERS,
    RETURN,
    SIZE,
    Floats,
    after,
    at_least_one,
    colours_for,
    heading,
    legend,
    panels,
    style,
)

PAIR = (BLUE, "#D55E00")
STILL = (("--", "_"), (":", "x"), ("-.", "+"))
"""Line and marker of groups that took no step."""


class Tasks(NamedTuple):
    """Tasks as a picture can show them."""

    kind: Literal["two", "line", "circle", "plane", "other"]
    values: Floats  # (tasks,): of two and line the number, of circle degrees; (tasks, 2) of plane
    name: str


def tasks_of(rows: ArrayLike, name: str = "task") -> Tasks:
    """Numbers with two values, other numbers, unit vectors of the plane, points of the plane, or something else.

    Args:
        rows: (tasks, width), or (tasks,) for a width of 1.
        name: What a task is, with its unit, such as "goal velocity (m/s)".
    """
    tasks = np.asarray(rows, dtype=float)
    tasks = tasks.reshape(len(tasks), -1)
    if tasks.shape[1] == 1:
        return Tasks("two" if len(np.unique(tasks)) == 2 else "line", tasks[:, 0], name)
    if tasks.shape[1] != 2:
        return Tasks("other", np.arange(len(tasks), dtype=float), name)
    if len(tasks) > 2 and np.allclose(np.hypot(*tasks.T), 1, atol=1e-3):
        return Tasks("circle", np.degrees(np.arctan2(tasks[:, 1], tasks[:, 0])), f"{name}, angle (degrees)")
    return Tasks("plane", tasks, name)


@style
def before_after(returns: Mapping[str, ArrayLike], tasks: ArrayLike, name: str = "task") -> Figure:
    """Draw a point for every held-out task: return before adaptation (x) against that after one step (y).

    Tasks below the diagonal were made worse; their share is above the panel. Their colour says which they are: that of
    one number on a scale, one of two values by two colours and markers, an angle on a scale that closes.

    Args:
        returns: for each group (tasks, k), mean over episodes and seeds, after 0, 1, ... steps; a panel each.
        tasks: (tasks, width), what they are.
        name: what a task is called, with its unit.

    Raises:
        ValueError: no group with at least one step, or shapes that do not fit.
    """
    values = {group: each for group, each in _checked(returns, tasks).items() if each.shape[1] > 1}
    at_least_one(values)
    of = tasks_of(tasks, name)
    alone = len(values) == 1
    figure, grid = panels(len(values), columns=3, height=3.2 if alone else 2.1)
    figure.set_figwidth(4.2 if alone else SIZE[0])
    every = np.concatenate([each[:, :2] for each in values.values()])
    low, high = every.min(), every.max()
    margin = 0.06 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    scale: ScalarMappable | None = None
    for axes, (group, each) in zip(grid, values.items(), strict=True):
        before, then = each[:, 0], each[:, 1]
        axes.axline((low, low), slope=1, color=GREY, linewidth=0.8, zorder=1)
        scale = _points(axes, before, then, of)
        axes.set(xlim=limits, ylim=limits)
        corner: dict[str, Any] = {"ha": "right", "va": "bottom", "transform": axes.transAxes, "fontsize": 8}
        axes.text(0.97, 0.03, "worse", **corner, color=GREY, zorder=1)
        heading(axes, group, f"{100 * np.mean(then < before):.0f} % of tasks worse")
    figure.supxlabel("return before adaptation", fontsize=9)
    figure.supylabel("return after 1 step", fontsize=9)
    if scale is not None:
        figure.colorbar(scale, ax=grid, label=of.name, shrink=0.9)
    if of.kind == "two":
        legend(figure, _two_handles(of))
    return figure


def _points(axes: Axes, x: Floats, y: Floats, of: Tasks) -> ScalarMappable | None:
    """A point for every task in the colour that says which it is; the scale, if there is one."""
    look: dict[str, Any] = {"s": 20, "edgecolors": GREY, "linewidths": 0.4, "zorder": 3}
    if of.kind in ("line", "circle"):
        round_trip = of.kind == "circle"
        norm = Normalize(-180, 180) if round_trip else Normalize(of.values.min(), of.values.max())
        return axes.scatter(x, y, c=of.values, cmap="twilight" if round_trip else "viridis", norm=norm, **look)
    if of.kind == "two":
        for value, colour, marker in zip(np.unique(of.values), PAIR, MARKERS, strict=False):
            chosen = of.values == value
            axes.scatter(x[chosen], y[chosen], color=colour, marker=marker, **look)
    else:
        axes.scatter(x, y, color=BLUE, **look)
    return None


def _two_handles(of: Tasks) -> list[Any]:
    pairs = zip(np.unique(of.values), PAIR, MARKERS, strict=False)
    said = Line2D([], [], linestyle="", label=f"{of.name}:")
    return [said] + [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=f"{value:g}") for value, colour, marker in pairs
    ]


@style
def return_by_task(returns: Mapping[str, ArrayLike], tasks: ArrayLike, name: str = "task") -> Figure:
    """Draw the return after 0, 1, ... steps over what the task is.

    Numbers and angles: a line per k. Two values: the tasks of each value side by side, a column of points per k
    with a bar at its mean. Points of the plane: a map per k. Others: a dot before and
    one after a step, tasks sorted by the return before. A group that took no step, such as an oracle, is grey in
    the panels of the others, and among maps in the last row.

    Args:
        returns: for each group (tasks, k), mean over episodes and seeds.
        tasks: (tasks, width), what they are.
        name: what a task is called, with its unit.

    Raises:
        ValueError: no group, or shapes that do not fit.
    """
    values = _checked(returns, tasks)
    at_least_one(values)
    of = tasks_of(tasks, name)
    if of.kind == "plane":
        return maps(values, of.values, of.name)
    moved = {group: each for group, each in values.items() if each.shape[1] > 1} or values
    still = {group: each[:, 0] for group, each in values.items() if group not in moved}
    draw = {"two": _columns, "other": _sorted}.get(of.kind, _lines)
    figure, grid = panels(len(moved), columns=3, height=2.9 if len(moved) == 1 else 2.2, sharey=True)
    handles: dict[str, Any] = {}
    for axes, (group, each) in zip(grid, moved.items(), strict=True):
        handles |= {str(handle.get_label()): handle for handle in draw(axes, each, still, of)}
        heading(axes, group)
    figure.supxlabel("tasks, sorted by return before adaptation" if of.kind == "other" else of.name, fontsize=9)
    figure.supylabel(RETURN, fontsize=9)
    legend(figure, list(handles.values()))
    return figure


def _lines(axes: Axes, values: Floats, still: Mapping[str, Floats], of: Tasks) -> Iterator[Line2D]:
    order = np.argsort(of.values)
    x, colours = of.values[order], colours_for(values.shape[1])
    for k, y in enumerate(values[order].T):
        yield from axes.plot(
            x, y, color=colours[k], marker=MARKERS[k % len(MARKERS)], markersize=3, linewidth=0.9, label=after(k)
        )
    for i, (group, each) in enumerate(still.items()):
        dash = STILL[i % len(STILL)][0]
        yield from axes.plot(x, each[order], color=GREY, linestyle=dash, linewidth=0.9, label=group)
    if of.kind == "circle":
        axes.set_xticks([-180, -90, 0, 90, 180])


def _columns(axes: Axes, values: Floats, still: Mapping[str, Floats], of: Tasks) -> Iterator[Line2D]:
    series = [(after(k), y) for k, y in enumerate(values.T)]
    colours = [*colours_for(len(series))[: len(series)], *[GREY] * len(still)]
    series += list(still.items())
    width = 0.8 / len(series)
    for i, (label, y) in enumerate(series):
        look = {"color": colours[i], "marker": MARKERS[i % len(MARKERS)], "linestyle": "", "markersize": 3}
        for place, value in enumerate(np.unique(of.values)):
            found = y[of.values == value]
            centre = place + (i - (len(series) - 1) / 2) * width
            spread = np.linspace(-0.3, 0.3, len(found)) * width if len(found) > 1 else np.zeros(1)
            axes.plot(centre + spread, found, **look, alpha=0.55, zorder=2)
            axes.hlines(found.mean(), centre - 0.42 * width, centre + 0.42 * width, color="black", zorder=3)
        yield Line2D([], [], **look, label=label)
    axes.set_xticks([0, 1], [f"{value:g}" for value in np.unique(of.values)])
    axes.grid(visible=False, axis="x")


def _sorted(axes: Axes, values: Floats, still: Mapping[str, Floats], of: Tasks) -> Iterator[Line2D]:
    order = np.argsort(values[:, 0])
    x = np.arange(len(order))
    series = [(after(k), values[order, k]) for k in range(min(2, values.shape[1]))]
    if len(series) == 2:
        axes.vlines(x, series[0][1], series[1][1], color="#CCCCCC", linewidth=0.9, zorder=1)
    for (label, y), colour, marker in zip(series, PAIR, MARKERS, strict=False):
        yield from axes.plot(x, y, color=colour, marker=marker, linestyle="", markersize=3.5, label=label)
    for i, (group, each) in enumerate(still.items()):
        marker = STILL[i % len(STILL)][1]
        yield from axes.plot(x, each[order], color=GREY, marker=marker, linestyle="", label=group)
    axes.set_xticks([])


def _checked(returns: Mapping[str, ArrayLike], tasks: ArrayLike) -> dict[str, Floats]:
    values = {group: np.asarray(each, dtype=float) for group, each in returns.items()}
    count = len(np.asarray(tasks))
    for group, each in values.items():
        if each.ndim != 2 or len(each) != count or not each.size:
            raise ValueError(f"{group}: wanted returns (tasks, k) of {count} tasks, got {each.shape}")
    return values
