"""Maps of goals in the plane, in the colour of their return."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from maml_rl.pictures.style import GREY, RETURN, Floats, after


class Map(NamedTuple):
    """One map: its place in the grid, and the return of every task."""

    row: int
    column: int
    title: str
    returns: Floats
    group: str = ""  # where it begins a row of maps of one group


def _placed(values: Mapping[str, Floats], columns: int) -> Iterator[Map]:
    moved = {group: each for group, each in values.items() if each.shape[1] > 1}
    for row, (group, each) in enumerate(moved.items()):
        for k, returns in enumerate(each.T):
            yield Map(row, k, after(k), returns, "" if k else textwrap.fill(group, 24))
    still = [(group, each[:, 0]) for group, each in values.items() if group not in moved]
    for i, (group, returns) in enumerate(still):
        yield Map(len(moved) + i // columns, i % columns, textwrap.fill(group, 24), returns)


def maps(values: Mapping[str, Floats], goals: Floats, name: str) -> Figure:
    """Draw a row per group, a column per k; groups that took no step share the last row. One scale of colours.

    Args:
        values: for each group (tasks, k).
        goals: (tasks, 2).
        name: what a goal is called, with its unit.
    """
    columns = max(each.shape[1] for each in values.values())
    placed = list(_placed(values, columns))
    rows = placed[-1].row + 1
    figure = Figure(figsize=(1.5 * columns + 1.1, 1.95 * rows + 0.4), layout="compressed")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    every = np.concatenate([each.ravel() for each in values.values()])
    scale = ScalarMappable(Normalize(every.min(), every.max()), matplotlib.colormaps["viridis"])
    look = {"cmap": scale.cmap, "norm": scale.norm, "s": 26, "edgecolors": GREY, "linewidths": 0.3, "zorder": 3}
    wide, high = np.ptp(goals, axis=0)
    alike = 0.5 * high <= wide <= 2 * high  # equal units would leave a strip of one much longer than the other
    lowest = {each.column: each.row for each in placed}
    for each in placed:
        axes = grid[each.row, each.column]
        axes.scatter(*goals.T, c=each.returns, **look)
        axes.set_title(f"{each.title}\nmean return {each.returns.mean():.1f}", fontsize=8)
        axes.set_aspect("equal" if alike else "auto")
        axes.margins(0.12)
        axes.tick_params(labelsize=7, labelbottom=lowest[each.column] == each.row)
        axes.set_ylabel(each.group, fontsize=8)
    for row, column in {*np.ndindex(rows, columns)} - {(each.row, each.column) for each in placed}:
        grid[row, column].remove()
    figure.supxlabel(f"{name}, x", fontsize=9)
    figure.supylabel(f"{name}, y", fontsize=9)
    free = placed[-1].column + 1
    if free < columns:
        room = figure.add_subplot(grid[0, 0].get_gridspec()[-1, free:])
        room.set_axis_off()
        bar = room.inset_axes((0.15, 0.5, 0.7, 0.09))
        figure.colorbar(scale, cax=bar, orientation="horizontal", label=RETURN)
    else:
        figure.colorbar(scale, ax=grid, label=RETURN, shrink=0.85)
    return figure
