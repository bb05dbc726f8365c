"""Paths of the 2-D navigation agent, before and after adaptation."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from maml_rl.pictures.style import BLUE, ORANGE, Floats, after, style


@style
def navigation_paths(
    positions: ArrayLike, mask: ArrayLike, goals: ArrayLike, returns: ArrayLike, name: str | None = None
) -> Figure:
    """Draw where the 2-D navigation agent goes, before and after adaptation.

    A row per task, a column per number of gradient steps, in each panel a line per episode, start and goal.
    Both axes: position, in the environment's units of length; the same limits and scale everywhere.

    Args:
        positions: (tasks, k, episodes, T+1, 2), x and y; the first is the start.
        mask: (tasks, k, episodes, T+1), true where the position was visited; others are not drawn.
        goals: (tasks, 2).
        returns: (tasks, k), undiscounted return, mean over episodes; above each panel.
        name: whose paths they are; above all.

    Raises:
        ValueError: the shapes do not fit together, or there is nothing to draw.
    """
    where, live = np.asarray(positions, dtype=float), np.asarray(mask, dtype=bool)
    goal, value = np.asarray(goals, dtype=float), np.asarray(returns, dtype=float)
    tasks, steps = (*where.shape, 0, 0)[:2]
    fits = where.ndim == 5 and where.shape == (*live.shape, 2) and live.any()
    if not (fits and goal.shape == (tasks, 2) and value.shape == (tasks, steps)):
        raise ValueError(
            "wanted: positions (tasks, k, episodes, T+1, 2), mask (tasks, k, episodes, T+1) not all false, "
            f"goals (tasks, 2), returns (tasks, k); got: positions {where.shape}, mask {live.shape} with "
            f"{live.sum()} true, goals {goal.shape}, returns {value.shape}"
        )
    seen = np.where(live[..., None], where, np.nan)
    figure = Figure(figsize=(1.35 * steps + 0.7, 1.5 * tasks + 0.8), layout="compressed")
    grid = figure.subplots(tasks, steps, sharex=True, sharey=True, squeeze=False).tolist()
    for task, k in np.ndindex(tasks, steps):
        axes: Axes = grid[task][k]
        handles = _paths(axes, seen[task, k], goal[task])
        heading = f"{after(k)}\n" if task == 0 else ""
        axes.set_title(f"{heading}return {value[task, k]:.1f}", fontsize=8)
        axes.set_xlabel("x position", fontsize=8)
        axes.set_ylabel(f"task {task + 1}\ny position", fontsize=8)
        axes.label_outer(remove_inner_ticks=True)
    points = np.concatenate([seen.reshape(-1, 2), goal])
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    (x, y), half = (low + high) / 2, 0.55 * (high - low).max()  # a square: the data and a tenth more
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_major_formatter("{x:g}")
    figure.legend(handles=handles, loc="outside upper center", ncols=3, title=name)
    return figure


def _paths(axes: Axes, seen: Floats, goal: Floats) -> list[Line2D]:
    """One panel: paths (episodes, T+1, 2), NaN where there is none; artists for the legend."""
    paths = axes.plot(seen[..., 0].T, seen[..., 1].T, color=BLUE, linewidth=0.7, alpha=0.55, label="episode")
    goals = axes.plot(*goal, "k*", markersize=10, markerfacecolor=ORANGE, mew=0.6, zorder=3, label="goal")
    start = axes.plot(*seen[0, 0], "ko", markersize=3.5, zorder=4, label="start")
    axes.set_aspect("equal")
    return [paths[0], *start, *goals]
