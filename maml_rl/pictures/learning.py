"""The learning curve: return during training, before and after adaptation."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from maml_rl.pictures import curves
from maml_rl.pictures.curves import AXES, Rows
from maml_rl.pictures.style import GREY, RETURN, SIZE, after, at_least_one, colours_for, dashes, legend, style


@style
def learning_curve(groups: Mapping[str, Sequence[Rows]], window: int | None = None) -> Figure:
    """Draw the return during training over environment steps and, where it was taken, over wall clock.

    x: environment steps so far, those of adaptation included; minutes of sampling, adapting and outer steps. y:
    undiscounted return, the sum of the rewards of an episode, mean over episodes and tasks. One line for each
    `return/k`, k the number of gradient steps: a moving average, of several seeds their mean in the band of their
    range. One group: a colour and a line style per k. Several: a colour per group, a line style per k.

    Args:
        groups: for each name the rows of `metrics.jsonl` of its seeds.
        window: rows in the moving average; 1: only the data. Default: a twentieth of the run.

    Raises:
        ValueError: no run, or a run without rows, without `env_steps` or without `return/k`.
    """
    at_least_one(groups)
    steps = {name: curves.steps_of(seeds, "return") for name, seeds in groups.items()}
    for name, seeds in groups.items():
        if not steps[name]:
            rows = sum(map(len, seeds))
            raise ValueError(f"{name}: nothing to draw, no return/0, return/1 ... in {rows} rows of metrics")
    timed = all(any(key.startswith("seconds/") for key in rows[-1]) for seeds in groups.values() for rows in seeds)
    every_k = sorted(set().union(*steps.values()))
    several = len(groups) > 1
    colours = colours_for(len(groups) if several else len(every_k))
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = figure.subplots(1, 1 + timed, sharey=True, squeeze=False)[0]
    for axes, over in zip(panels, ("env_steps", "minutes"), strict=False):
        for i, (name, seeds) in enumerate(groups.items()):
            for j, k in enumerate(steps[name]):
                x, y = curves.series(name, seeds, f"return/{k}", over)
                curves.draw(axes, x, y, colours[i if several else j], k, window)
        axes.margins(x=0.02)
        axes.set(xlabel=AXES[over])
        axes.xaxis.set_major_locator(MaxNLocator(5))
    panels[0].xaxis.set_major_formatter(EngFormatter(sep=" "))
    panels[0].set_ylabel(RETURN)
    names = [curves.called(name, seeds) for name, seeds in groups.items()]
    handles = [Line2D([], [], color=colours[i], label=name) for i, name in enumerate(names) if several]
    for j, k in enumerate(every_k):
        handles.append(Line2D([], [], color=GREY if several else colours[j], linestyle=dashes(k), label=after(k)))
    if not several:
        panels[0].set_title(names[0], loc="left")
    legend(figure, handles)
    return figure
