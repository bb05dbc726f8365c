"""Figures of few-shot runs: learning curve, adaptation curve, fits of a sinusoid, an episode of images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maml_rl.pictures.curves import moving_average
from maml_rl.pictures.style import (
    BLUE,
    GREY,
    MARKERS,
    OKABE_ITO,
    SIZE,
    Floats,
    after,
    colours_for,
    heading,
    legend,
    logarithmic,
    style,
)

RIGHT, WRONG = "#009E73", "#D55E00"


@style
def learning_curve(metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Draw the query loss over the iterations of training, and its moving average.

    It is the loss after adaptation, where the method adapts in training.

    Args:
        metrics: Rows of metrics.jsonl for each run.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    colours, handles = colours_for(len(metrics)), []
    for (name, rows), colour in zip(metrics.items(), colours, strict=False):
        x = np.array([row["iteration"] for row in rows])
        y = np.array([row["loss"] for row in rows])
        axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.3)
        axes.plot(x, moving_average(y, max(1, len(y) // 20)), color=colour)
        handles.append(Line2D([], [], color=colour, label=name))
    axes.set(xlabel="iteration", ylabel="query loss in training")
    logarithmic(axes)
    legend(figure, handles)
    return figure


@style
def adaptation_curve(
    evaluations: Mapping[str, Mapping[str, Any]],
    measure: str,
    label: str,
    published: Mapping[int, float] | None = None,
) -> Figure:
    """Draw a measure on held-out tasks after 0, 1, ... gradient steps, with its 95 % interval over tasks.

    An error is drawn as the trimmed mean beside the mean, which few diverging tasks can move.

    Args:
        evaluations: Content of evaluation.json for each run.
        measure: "error", "accuracy" or "accuracy_one_by_one".
        label: What the axis calls it.
        published: What the MAML paper has, by the number of steps.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    handles: list[Any] = []
    for i, (name, found) in enumerate(evaluations.items()):
        mean = np.asarray(found["mean"][measure], dtype=float)
        half = np.asarray(found["ci95"][measure], dtype=float) if found["ci95"] else None  # None: one task
        colour = colours_for(len(evaluations))[i]
        at = np.arange(len(mean)) + 0.08 * (i - (len(evaluations) - 1) / 2)
        look = {"color": colour, "marker": MARKERS[i % len(MARKERS)]}
        handles.append(axes.errorbar(at, mean, half, **look, zorder=3, label=name))
        if measure == "error":
            axes.plot(at, found["trimmed_mean"][measure], color=colour, linestyle=":", zorder=2)
    if measure == "error":
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="mean without the 5 % of tasks at each end"))
        axes.set_ylim(bottom=0)
    if published:
        said = "Finn et al. 2017: MAML"
        handles += axes.plot(list(published), list(published.values()), "kD", fillstyle="none", ms=7, label=said)
    axes.set(xlabel="gradient steps on the new task", ylabel=f"{label}\n(held-out tasks, 95 % interval)")
    legend(figure, handles)
    return figure


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
