"""The learning curve: return during training, before and after adaptation, or the loss of few-shot learning."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from maml_rl.pictures import curves
from maml_rl.pictures.curves import AXES, Rows
from maml_rl.pictures.style import (
    GREY,
    RETURN,
    SIZE,
    after,
    at_least_one,
    colours_for,
    dashes,
    legend,
    logarithmic,
    style,
)


@style
def learning_curve(groups: Mapping[str, Sequence[Rows]], window: int | None = None) -> Figure:
    """Draw the return during training over environment steps, or the loss of few-shot learning over iterations.

    x: environment steps so far, those of adaptation included, or iterations; where it was taken, also minutes of
    training. y: undiscounted return, the sum of the rewards of an episode, mean over episodes and tasks, a line for
    each `return/k`, k the number of gradient steps; or the query loss after adaptation, on a logarithmic scale. Lines
    are moving averages, of several seeds their mean in the band of their range. One group: a colour and a line style
    per k. Several: a colour per group, a line style per k.

    Args:
        groups: for each name the rows of `metrics.jsonl` of its seeds.
        window: rows in the moving average; 1: only the data. Default: a twentieth of the run.

    Raises:
        ValueError: no run, or a run without rows, without what they are drawn over, or without `return/k` or `loss`.
    """
    at_least_one(groups)
    loss = any("loss" in row for seeds in groups.values() for rows in seeds for row in rows)
    keys = {name: {1: "loss"} if loss else _returns(name, seeds) for name, seeds in groups.items()}
    timed = all(curves.seconds(rows).any() for seeds in groups.values() for rows in seeds)
    every_k = sorted(set().union(*keys.values()))
    several = len(groups) > 1
    colours = colours_for(len(groups) if several else len(every_k))
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = figure.subplots(1, 1 + timed, sharey=True, squeeze=False)[0]
    for axes, over in zip(panels, ("iteration" if loss else "env_steps", "minutes"), strict=False):
        for i, (name, seeds) in enumerate(groups.items()):
            for j, (k, key) in enumerate(keys[name].items()):
                x, y = curves.series(name, seeds, key, over)
                curves.draw(axes, x, y, colours[i if several else j], k, window)
        axes.margins(x=0.02)
        axes.set(xlabel=AXES[over])
        axes.xaxis.set_major_locator(MaxNLocator(5))
    panels[0].xaxis.set_major_formatter(EngFormatter(sep=" "))
    panels[0].set_ylabel("query loss in training" if loss else RETURN)
    if loss:
        logarithmic(panels[0])
    names = [curves.called(name, seeds) for name, seeds in groups.items()]
    handles = [Line2D([], [], color=colours[i], label=name) for i, name in enumerate(names) if several]
    for j, k in enumerate(() if loss else every_k):
        handles.append(Line2D([], [], color=GREY if several else colours[j], linestyle=dashes(k), label=after(k)))
    if not several:
        panels[0].set_title(names[0], loc="left")
    if handles:
        legend(figure, handles)
    return figure


def _returns(name: str, seeds: Sequence[Rows]) -> dict[int, str]:
    keys = {k: f"return/{k}" for k in curves.steps_of(seeds, "return")}
    if not keys:
        rows = sum(map(len, seeds))
        raise ValueError(f"{name}: nothing to draw, no return/0, return/1 ... in {rows} rows of metrics")
    return keys
