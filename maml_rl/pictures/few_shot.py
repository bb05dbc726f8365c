"""Pictures of few-shot learning: fits of a curve, an episode of images."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from maml_rl.pictures.style import BLUE, GREY, OKABE_ITO, Floats, after, heading, legend, style

RIGHT, WRONG = "#009E73", "#D55E00"


@style
def fits(
    x: Floats, panels: Mapping[str, Mapping[int, Floats]], support: tuple[Floats, Floats], truth: Floats
) -> Figure:
    """Draw the curve of one task and the models' fits before and after gradient steps; a panel for each run.

    Args:
        x: Where the fits are evaluated, (n,).
        panels: For each run, the fit (n,) after so many steps.
        support: x and y of the support examples.
        truth: The curve, (n,).
    """
    figure = Figure(figsize=(2.9 * len(panels) + 0.4, 2.7), layout="constrained")
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    handles: list[Any] = []
    for axes, (name, curves) in zip(grid, panels.items(), strict=True):
        handles = axes.plot(x, truth, color=GREY, linewidth=2.5, alpha=0.4, label="the task")
        for (k, y), colour, dash in zip(curves.items(), OKABE_ITO, (":", "--", "-"), strict=False):
            handles += axes.plot(x, y, color=colour, linestyle=dash, label=after(k))
        handles += axes.plot(*support, "k^", label="support examples")
        heading(axes, name)
        axes.set(xlabel="x")
    grid[0].set_ylabel("y")
    legend(figure, handles)
    return figure


@style
def episode(support: Floats, labels: Sequence[int], queries: Floats, truths: Sequence[int],
            guesses: Mapping[int, Sequence[int]]) -> Figure:  # fmt: skip
    """Draw a task of images: the support set, and the queries with what the model calls them before and after.

    Args:
        support: (n, height, width), ink 1 on 0.
        labels: Their classes.
        queries: (m, height, width).
        truths: Their classes.
        guesses: For each number of gradient steps, the class that each query is given.
    """
    columns = max(len(support), len(queries))
    figure = Figure(figsize=(0.62 * columns + 0.9, 1.9 + 0.28 * len(guesses)), layout="constrained")
    grid = figure.subplots(2, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, label in zip(grid[0], support, labels, strict=False):
        axes.imshow(1 - image, cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"class {label + 1}", fontsize=8)
    for column, (axes, image) in enumerate(zip(grid[1], queries, strict=False)):
        axes.imshow(1 - image, cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"is {truths[column] + 1}", fontsize=8)
        for line, found in enumerate(guesses.values()):
            right = found[column] == truths[column]
            axes.text(0.5, -0.08 - 0.3 * line, f"{found[column] + 1} {'✓' if right else '✗'}", va="top", ha="center",
                      color=RIGHT if right else WRONG, fontsize=8, transform=axes.transAxes)  # fmt: skip
    for line, k in enumerate(guesses):
        grid[1][0].text(-0.25, -0.08 - 0.3 * line, after(k), va="top", ha="right", fontsize=8, color=BLUE,
                        transform=grid[1][0].transAxes)  # fmt: skip
    grid[0][0].text(-0.25, 0.5, "support", ha="right", va="center", fontsize=8, transform=grid[0][0].transAxes)
    grid[1][0].text(-0.25, 0.5, "queries", ha="right", va="center", fontsize=8, transform=grid[1][0].transAxes)
    return figure
