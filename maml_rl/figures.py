"""Figures of a run: learning curve, adaptation curve, navigation paths.

Each function takes data, writes one figure as `.png` and as `.svg` and returns the path of the PNG.
Matplotlib is imported here and nowhere else, and without pyplot: no display, no global figure. The colours
of Okabe and Ito (2008) can be told apart with colour-vision deficiency; markers and line styles repeat them.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#555555"
OKABE_ITO = (BLUE, "#D55E00", "#009E73", "#CC79A7", ORANGE, "#56B4E9")
MARKERS = "os^vPX"
SIZE = (5.5, 2.9)  # inches: the text width of a one-column paper; the legend's height comes on top
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
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.03,
    "svg.hashsalt": "maml_rl",
    "text.parse_math": False,  # a run may have dollar signs in its name
}
style = matplotlib.style.context(["default", STYLE])  # a decorator; the user's matplotlibrc has no say


@style
def learning_curve(metrics: Mapping[str, Sequence[Mapping[str, float]]], path: Path, window: int | None = None) -> Path:
    """Draw the return during training, before and after adaptation.

    x: environment steps so far, those of adaptation included. y: undiscounted return, the sum of the rewards
    of an episode, mean over episodes and tasks. One line for each `return/k`, k the number of gradient steps.
    The faint line is the data, the strong one its centred moving average. One run: a colour and a line style
    per k. Several: a colour per run, a line style per k.

    Args:
        metrics: rows of `metrics.jsonl` (see `read_metrics`) for each run name.
        path: where to write; `.png` or `.svg` at its end is replaced.
        window: rows in the moving average; 1: only the data. Default: a twentieth of the run.

    Raises:
        ValueError: no run, or a run without rows, without `env_steps` or without `return/k`.
    """
    _at_least_one(metrics)
    every_k = sorted(set().union(*(_return_keys(name, rows) for name, rows in metrics.items())))
    several = len(metrics) > 1
    colours = colours_for(len(metrics) if several else len(every_k))
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for i, (name, rows) in enumerate(metrics.items()):
        for j, k in enumerate(_return_keys(name, rows)):
            x, y = _series(name, rows, f"return/{k}")
            colour = colours[i if several else j]
            size = max(1, len(y) // 20) if window is None else window
            if size > 1:
                axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.3, zorder=2)
                y = moving_average(y, size)
            axes.plot(x, y, color=colour, linestyle=dashes(k), marker="o" if len(y) == 1 else "", zorder=3)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.margins(x=0.02)
    axes.set(xlabel="environment steps (adaptation included)", ylabel="return (undiscounted)")
    handles = [Line2D([], [], color=colours[i], label=name) for i, name in enumerate(metrics) if several]
    for j, k in enumerate(every_k):
        colour = GREY if several else colours[j]
        handles.append(Line2D([], [], color=colour, linestyle=dashes(k), label=after(k)))
    legend(figure, handles)
    if not several:
        axes.set_title(next(iter(metrics)), loc="left")
    return save(figure, path)


@style
def adaptation_curve(
    evaluations: Mapping[str, Mapping[str, Any]],
    path: Path,
    published: Sequence[float] | None = None,
    published_label: str = "published",
) -> Path:
    """Draw the return on held-out tasks after 0, 1, ... gradient steps.

    x: gradient steps k on the new task; runs are set a little apart, lest their intervals hide each other. y:
    undiscounted return, mean over tasks, with its 95 % interval over tasks as a bar. A run evaluated without
    adaptation (an oracle: `mean` has k = 0 only) is a dashed horizontal line with its interval as a band.

    Args:
        evaluations: content of `evaluation.json` for each run name; read are `mean` and `ci95` (half width).
        path: where to write; `.png` or `.svg` at its end is replaced.
        published: returns after 0, 1, ... steps to compare with: open diamonds.
        published_label: what the legend calls them.

    Raises:
        ValueError: no run, or `mean` and `ci95` of a run missing, empty or of different lengths.
    """
    _at_least_one(evaluations)
    curves = {name: _mean_and_interval(name, content) for name, content in evaluations.items()}
    apart = min(0.08, 0.4 / len(curves))
    colours = colours_for(len(curves))
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    handles: list[Any] = []
    for i, (name, (mean, half)) in enumerate(curves.items()):
        if len(mean) == 1:
            axes.axhspan(mean[0] - half[0], mean[0] + half[0], color=colours[i], alpha=0.15, linewidth=0)
            handles.append(axes.axhline(mean[0], color=colours[i], linestyle="--", label=name))
        else:
            x = np.arange(len(mean)) + (i - (len(curves) - 1) / 2) * apart
            look = {"color": colours[i], "marker": MARKERS[i % len(MARKERS)]}
            handles.append(axes.errorbar(x, mean, half, **look, zorder=3, label=name))
    if published:
        handles += axes.plot(published, "kD", fillstyle="none", markersize=7, zorder=4, label=published_label)
    last = max([len(mean) for mean, _ in curves.values()] + [len(published or ())]) - 1
    axes.set(xlabel="gradient steps on the new task")
    axes.set_ylabel("return on held-out tasks\n(undiscounted, 95 % interval)")
    axes.set(xticks=range(last + 1), xlim=(-0.3, last + 0.3))
    legend(figure, handles)
    return save(figure, path)


@style
def navigation_paths(positions: ArrayLike, mask: ArrayLike, goals: ArrayLike, returns: ArrayLike, path: Path) -> Path:
    """Draw where the 2-D navigation agent goes, before and after adaptation.

    A row per task, a column per number of gradient steps, in each panel a line per episode, start and goal.
    Both axes: position, in the environment's units of length; the same limits and scale everywhere.

    Args:
        positions: (tasks, k, episodes, T+1, 2), x and y; the first is the start.
        mask: (tasks, k, episodes, T+1), true where the position was visited; others are not drawn.
        goals: (tasks, 2).
        returns: (tasks, k), undiscounted return, mean over episodes; above each panel.
        path: where to write; `.png` or `.svg` at its end is replaced.

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
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return save(figure, path)


def moving_average(values: Floats, window: int) -> Floats:
    """Mean of the `window` values around each, at the ends of fewer; an even window counts as one more."""
    half = window // 2
    padded = np.concatenate([np.full(half, np.nan), values, np.full(half, np.nan)])
    return np.asarray(np.nanmean(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=-1))


def after(k: int) -> str:
    """What k gradient steps are called in headings and legends."""
    return "before adaptation" if k == 0 else f"after {k} step{'s' * (k > 1)}"


def _paths(axes: Axes, seen: Floats, goal: Floats) -> list[Line2D]:
    """One panel: paths (episodes, T+1, 2), NaN where there is none; artists for the legend."""
    paths = axes.plot(seen[..., 0].T, seen[..., 1].T, color=BLUE, linewidth=0.7, alpha=0.55, label="episode")
    goals = axes.plot(*goal, "k*", markersize=10, markerfacecolor=ORANGE, mew=0.6, zorder=3, label="goal")
    start = axes.plot(*seen[0, 0], "ko", markersize=3.5, zorder=4, label="start")
    axes.set_aspect("equal")
    return [paths[0], *start, *goals]


def legend(figure: Figure, handles: list[Any]) -> None:
    """Put the legend above the axes, where it hides nothing, and make the figure higher by its height."""
    widths = [len(handle.get_label()) + 11 for handle in handles]  # characters, with the handle and a gap
    columns = len(handles) if sum(widths) <= 100 else max(1, 100 // max(widths))  # 100 fill the width
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + 0.17 * rows)
    figure.legend(handles=handles, loc="outside upper center", ncols=-(-len(handles) // rows))


def save(figure: Figure, path: Path) -> Path:
    """Write PNG and SVG, the same bytes for the same figure; savefig on a bare Figure takes Agg for PNG."""
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{stem}.svg", metadata={"Date": None})
    figure.savefig(f"{stem}.png")
    return Path(f"{stem}.png")


def dashes(k: int) -> tuple[float, Sequence[float]] | None:
    """Dots before adaptation, solid after one step, then a dash with one more dot for each further step."""
    return (0, (1, 1.2)) if k == 0 else None if k == 1 else (0, (5, 1.5) + (1, 1.5) * (k - 2))


def colours_for(count: int) -> Sequence[Any]:
    """At least as many different colours; where Okabe and Ito's run out, a scale that is safe too."""
    scale = matplotlib.colormaps["viridis"]
    return OKABE_ITO if count <= len(OKABE_ITO) else list(scale(np.linspace(0, 0.95, count)))


def _return_keys(name: str, rows: Sequence[Mapping[str, float]]) -> list[int]:
    """The k of every `return/k`."""
    found = {int(match[1]) for row in rows for key in row if (match := re.fullmatch(r"return/(\d+)", key))}
    if not found:
        raise ValueError(f"{name}: nothing to draw, no return/0, return/1 ... in {len(rows)} rows of metrics")
    return sorted(found)


def _series(name: str, rows: Sequence[Mapping[str, float]], key: str) -> tuple[Floats, Floats]:
    """Environment steps and values of `key`, from the rows that have it."""
    pairs = [(row.get("env_steps"), row[key]) for row in rows if key in row]
    if any(steps is None for steps, _ in pairs):
        raise ValueError(f"{name}: a row of its metrics has {key} and no env_steps")
    x, y = np.array(pairs, dtype=float).T
    return x, y


def _mean_and_interval(name: str, evaluation: Mapping[str, Any]) -> tuple[Floats, Floats]:
    mean = np.asarray(evaluation.get("mean", ()), dtype=float)
    interval = evaluation.get("ci95", ())
    half = np.full_like(mean, np.nan) if interval is None else np.asarray(interval, dtype=float)  # None: one task
    if mean.ndim != 1 or mean.shape != half.shape or not len(mean):
        raise ValueError(f"{name}: wanted mean and ci95 of shape (k,), got {mean.shape} and {half.shape}")
    return mean, half


def _at_least_one(runs: Mapping[str, Any]) -> None:
    if not runs:
        raise ValueError("nothing to draw: no run given")
