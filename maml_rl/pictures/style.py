"""The look of every figure, and writing it to a file.

Matplotlib is used without pyplot: no display, no global figure. The colours of Okabe and Ito (2008) can be told apart
with colour-vision deficiency; markers and line styles repeat them.
"""

import io
import textwrap
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from maml_rl.machine.files import write

Floats = NDArray[np.float64]

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#555555"
OKABE_ITO = (BLUE, "#D55E00", "#009E73", "#CC79A7", ORANGE, "#56B4E9")
MARKERS = "os^vPX"
SIZE = (5.5, 2.9)  # inches: the text width of a one-column paper; the legend's height comes on top
MARGIN = 0.03  # inches around what is drawn
RETURN = "return (undiscounted)"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.unicode_minus": False,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "errorbar.capsize": 2.5,
    "savefig.dpi": 200,
    "svg.hashsalt": "maml_rl",
    "text.parse_math": False,  # a run may have dollar signs in its name
}
style = matplotlib.style.context(["default", STYLE])  # a decorator; the user's matplotlibrc has no say


@style
def save(figure: Figure, path: Path | str) -> Path:
    """Write PNG and SVG, the same bytes for the same figure; savefig on a bare Figure takes Agg for PNG.

    Args:
        figure: Of this package.
        path: Where to write; .png or .svg at its end is replaced. Its folder is made.

    Returns:
        The PNG.
    """
    whole = Path(path)
    stem = whole.with_suffix("") if whole.suffix in (".png", ".svg") else whole
    stem.parent.mkdir(parents=True, exist_ok=True)
    engine = figure.get_layout_engine()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once and not for each file, which takes most of the time
    box = figure.get_tightbbox().padded(MARGIN)
    for kind, metadata in (("svg", {"Date": None}), ("png", {})):
        content = io.BytesIO()
        figure.savefig(content, format=kind, bbox_inches=box, metadata=metadata)
        write(Path(f"{stem}.{kind}"), content.getvalue())
    figure.set_layout_engine(engine)
    return Path(f"{stem}.png")


@style
def png(figure: Figure, dpi: int = 100) -> bytes:
    """Encode a figure as a PNG; a file has 200 dots an inch."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, bbox_inches="tight")
    return content.getvalue()


def after(k: int, before: str = "before adaptation") -> str:
    """Name k gradient steps, in headings, legends and tables."""
    return before if k == 0 else f"after {k} step{'s' * (k > 1)}"


def legend(figure: Figure, handles: list[Any]) -> None:
    """Put the legend above the axes, where it hides nothing, and make the figure higher by its height."""
    room = 100 * figure.get_figwidth() / SIZE[0]  # characters that fill the width
    widths = [len(handle.get_label()) + 11 for handle in handles]  # with the handle and a gap
    columns = len(handles) if sum(widths) <= room else max(1, int(room / max(widths)))
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + 0.17 * rows)
    figure.legend(handles=handles, loc="outside upper center", ncols=-(-len(handles) // rows))


def heading(axes: Axes, name: str, below: str = "") -> None:
    """Title axes at their left with a name, in lines that fit between its neighbours, and a line ``below`` it."""
    figure, grid = axes.get_figure(root=True), axes.get_gridspec()
    assert figure is not None
    assert grid is not None
    lines = textwrap.wrap(name, int(12 * figure.get_figwidth() / grid.ncols))
    axes.set_title("\n".join([*lines, *[below] * bool(below)]), loc="left", fontsize=8)


def dashes(k: int) -> tuple[float, Sequence[float]] | None:
    """Dots before adaptation, solid after one step, then a dash with one more dot for each further step."""
    return (0, (1, 1.2)) if k == 0 else None if k == 1 else (0, (5, 1.5) + (1, 1.5) * (k - 2))


def colours_for(count: int) -> Sequence[Any]:
    """At least as many different colours; where Okabe and Ito's run out, a scale that is safe too."""
    scale = matplotlib.colormaps["viridis"]
    return OKABE_ITO if count <= len(OKABE_ITO) else list(scale(np.linspace(0, 0.95, count)))


def logarithmic(axes: Axes) -> None:
    """Give the y axis a logarithmic scale, with plain numbers at 1, 2 and 5 of a decade, or at 1 of many."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,), numticks=6))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def panels(count: int, columns: int, height: float, sharey: bool = False) -> tuple[Figure, list[Any]]:
    """A figure of text width with so many axes, in rows of at most so many; ``height`` of a row in inches."""
    across = min(count, columns)
    rows = -(-count // across)
    figure = Figure(figsize=(SIZE[0], height * rows), layout="constrained")
    grid = figure.subplots(rows, across, squeeze=False, sharey=sharey).flatten().tolist()
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def at_least_one(runs: Sized) -> None:
    """Raise a ValueError where there is none."""
    if not runs:
        raise ValueError("nothing to draw: no run given")
