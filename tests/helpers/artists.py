"""Figures read back: the data of lines, the texts, and whether something hides something."""

from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

TOUCH = 1.0
"""Pixels that boxes around texts may share: they are wider than the ink."""


def data(line: Any) -> np.ndarray:
    """A line's x and y (2, n)."""
    return np.stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])


def legend(figure: Figure) -> list[str]:
    """The words of the legend."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


def _of_ticks(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [label for tick in ticks for label in (tick.label1, tick.label2) if label.get_visible()]


def _of_axes(axes: Axes) -> list[Text]:
    own = [child for child in axes.get_children() if isinstance(child, Text)]
    if not axes.axison:
        return own
    return [*own, axes.xaxis.label, axes.yaxis.label, *_of_ticks(axes.xaxis), *_of_ticks(axes.yaxis)]


def texts(figure: Figure) -> list[Text]:
    """All texts that are drawn, with their places; lays the figure out."""
    figure.draw_without_rendering()
    found = [child for child in figure.get_children() if isinstance(child, Text)]
    for each in figure.legends:
        found += [*each.get_texts(), each.get_title()]
    for axes in figure.axes:
        found += [text for each in (axes, *axes.child_axes) for text in _of_axes(each)]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that overlap, and texts of the legend or the figure that reach into axes."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    found = []
    for (one, a), (other, b) in combinations(boxes, 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if min(width, height) > TOUCH:
            found.append((one, other))
    for each in figure.legends:
        box = each.get_window_extent()
        found += [("legend", "axes") for axes in figure.axes if box.overlaps(axes.get_tightbbox())]
        if box.x0 < figure.bbox.x0 or box.x1 > figure.bbox.x1:
            found.append(("legend", "edge"))
    return found
