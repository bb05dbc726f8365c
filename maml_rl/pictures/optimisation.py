"""Panels of the optimisation: what each outer and inner step did, over the iterations."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maml_rl.pictures import curves
from maml_rl.pictures.curves import AXES, Rows
from maml_rl.pictures.style import GREY, after, at_least_one, colours_for, dashes, legend, logarithmic, panels, style


class Panel(NamedTuple):
    """One of the small pictures: a key of the metrics, or all `key`/k."""

    key: str
    title: str
    log: bool = False
    share: bool = False
    each_step: bool = False


PANELS = (
    Panel("kl/outer", "KL of the outer step"),
    Panel("kl/inner", "KL of the inner steps", log=True),
    Panel("kl/before", "KL before adaptation", log=True),
    Panel("inner_kl_coefficient", "weight of that KL", log=True),
    Panel("linesearch/accepted", "share of steps accepted", share=True),
    Panel("linesearch/backtracks", "backtracks"),
    Panel("cg/residual", "conjugate-gradient residual", log=True),
    Panel("grad/norm", "norm of the meta-gradient", log=True),
    Panel("objective/gain", "gain of the objective"),
    Panel("std", "standard deviation", log=True, each_step=True),
    Panel("entropy", "entropy (nats)", each_step=True),
    Panel("share_worse", "share of tasks made worse", share=True),
    Panel("gradient/relative_variance", "relative gradient variance", log=True),
)
"""In their order; those that no run has are left out."""

OF_ADAPTATION = {"kl/inner", "share_worse"}
"""Always 0 in runs that do not adapt in training, which are left out there."""


@style
def optimisation(groups: Mapping[str, Sequence[Rows]]) -> Figure:
    """Draw what tells why a run learns or does not: small pictures over the iterations, of the keys that runs have.

    Lines as in the learning curve: moving averages, of several seeds their mean in the band of their range; a colour
    per group, and where a picture has several k a line style per k. Some have a logarithmic
    scale where they are above 0 and span more than a factor of 10.

    Args:
        groups: for each name the rows of `metrics.jsonl` of its seeds.

    Raises:
        ValueError: no run, or none with any of the keys.
    """
    at_least_one(groups)
    found = {name: _keys(seeds) for name, seeds in groups.items()}
    keys = set().union(*found.values())
    stems = {key.rpartition("/")[0] for key in keys}
    drawn = [panel for panel in PANELS if panel.key in (stems if panel.each_step else keys)]
    if not drawn:
        raise ValueError(f"nothing to draw: none of {', '.join(panel.key for panel in PANELS)} in the metrics")
    figure, grid = panels(len(drawn), columns=3, height=1.35)
    colours = colours_for(len(groups))
    every_k: set[int] = set()
    for panel, axes in zip(drawn, grid, strict=True):
        for (name, seeds), colour in zip(groups.items(), colours, strict=False):
            steps = curves.steps_of(seeds, panel.key) if panel.each_step else [1]
            every_k |= set(steps) if panel.each_step else set()
            for k in steps:
                key = f"{panel.key}/{k}" if panel.each_step else panel.key
                if key in found[name]:
                    curves.draw(axes, *curves.series(name, seeds, key, "iteration"), colour, k)
        _scale(axes, panel)
    for axes in grid[-3:]:
        axes.set_xlabel(AXES["iteration"], fontsize=8)
    names = [curves.called(name, seeds) for name, seeds in groups.items()]
    handles = [Line2D([], [], color=colour, label=name) for name, colour in zip(names, colours, strict=False)]
    handles += [Line2D([], [], color=GREY, linestyle=dashes(k), label=after(k)) for k in sorted(every_k)]
    legend(figure, handles)
    return figure


def _keys(seeds: Sequence[Rows]) -> set[str]:
    keys = {key for rows in seeds for row in rows for key in row}
    return keys if "return/1" in keys else keys - OF_ADAPTATION


def _scale(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.margins(x=0.02)
    low, high = axes.dataLim.intervaly
    if panel.share:
        axes.set_ylim(-0.05, 1.05)
    elif panel.log and 0 < 10 * low < high:
        logarithmic(axes)
