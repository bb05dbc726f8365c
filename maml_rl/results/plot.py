"""Pictures of run folders: what to draw of them, and where it goes."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

import maml_envs
from maml_envs import InputError
from maml_rl import pictures
from maml_rl.config.rl import Config
from maml_rl.config.toml import Kind
from maml_rl.core.tree import Params
from maml_rl.evaluate import load_learner
from maml_rl.results.comparison import Comparison, compare_groups, evaluated, returns_of
from maml_rl.results.runs import Group, Run, grouped, read_runs, refuse_untrained
from maml_rl.rl.data import Trajectory
from maml_rl.rl.explore import sample_at
from maml_rl.rl.held_out import explore_held_out
from maml_rl.rl.learner import Learner

PATHS_OF = (5, 6)
"""Tasks and episodes in the picture of paths."""


def visited(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """Observations with the one after the last live step (K, B, T+1, obs), and a mask (K, B, T+1) of them."""
    length = trajectory.mask.sum(-1, keepdim=True)
    final = trajectory.final_observations.unsqueeze(2)
    places = torch.cat([trajectory.observations, torch.zeros_like(final)], 2)
    places = places.scatter(2, length.unsqueeze(-1).expand_as(final), final)
    return places, torch.arange(places.shape[2], device=length.device) <= length


def draw_paths(learner: Learner, theta: Params, name: str) -> Figure:
    """Draw the paths of a navigation agent of that name on held-out tasks, before and after each gradient step."""
    config = learner.config
    tasks, shown = PATHS_OF
    adaptation = explore_held_out(learner, theta, tasks, config.evaluation.episodes, config.evaluation.steps, "in")
    draw, exploration = adaptation.draw, adaptation.exploration
    again = (sample_at(learner, params, draw, k) for k, params in enumerate(exploration.params_by_step))
    places, masks = zip(*map(visited, again), strict=True)
    returns = [outcome.returns.mean(-1) for outcome in exploration.outcomes]
    return pictures.navigation_paths(
        torch.stack(places, 1)[:, :, :shown].cpu(),
        torch.stack(masks, 1)[:, :, :shown].cpu(),
        draw.tasks.cpu(),
        torch.stack(returns, 1).cpu(),
        name,
    )


class Pictures(NamedTuple):
    """What ``plot`` drew."""

    files: list[Path]  # PNG; each has an SVG beside it
    missing: list[str]  # what could not be drawn, and the command that makes it possible
    comparison: Comparison | None = None  # the numbers, if a run was evaluated


def _task_name(config: Config) -> str:
    """What the numbers of a task are; "task" where the family does not say, or is code that is not here."""
    if len(config.vector.task_ranges) == 1:
        return next(iter(config.vector.task_ranges))
    with contextlib.suppress(InputError, ImportError):
        name: str = maml_envs.family(config.env).task_name
        return name
    return "task"


def _adaptation(comparison: Comparison) -> Figure:
    """Means where published values are beside them, which are means; interquartile means otherwise."""
    known = comparison.published
    curves = {
        f"{row.label} ({len(row.seeds)} seed{'s' * (len(row.seeds) > 1)})": [
            point.mean if known else point.iqm for point in row.points[: 1 if row.method == "oracle" else None]
        ]
        for row in comparison.rows
    }
    over = "seeds and tasks" if any(len(row.seeds) > 1 for row in comparison.rows) else "tasks"
    return pictures.adaptation_curve(curves, known and known.curves(), "mean" if known else "interquartile mean", over)


def _of_evaluations(groups: Sequence[Group], comparison: Comparison) -> dict[str, Figure]:
    """The pictures that need an evaluation."""
    chosen = {group.label: returns_of(group).mean(0) for group in evaluated(groups)}
    name = _task_name(groups[0].runs[0].config)
    drawn = {"adaptation_curve": _adaptation(comparison)}
    if any(values.shape[1] > 1 for values in chosen.values()):
        drawn["before_after"] = pictures.before_after(chosen, comparison.tasks, name)
    drawn["return_by_task"] = pictures.return_by_task(chosen, comparison.tasks, name)
    return drawn


def plot(runs: Sequence[Path | str], out: Path | str | None = None) -> Pictures:
    """Draw what runs of one environment hold, seeds of a configuration together.

    Of every run that was trained: learning curves and how the optimisation went. Of evaluated runs: adaptation curves,
    each task before against after a step, and the return over what the tasks are. Of the first trained run, if it
    navigates: paths. Everything is drawn before anything is written.

    Args:
        runs: Run folders.
        out: Folder for the pictures; None for figures/ in the first run.

    Returns:
        The files, what is missing, and the numbers of evaluated runs.

    Raises:
        InputError: A folder is not a run, or has nothing to draw yet, or the runs do not compare.
    """
    found = read_runs(runs, Config)
    trained = [run for run in found if run.config.method != "random"]
    refuse_untrained(trained, "iteration")
    groups = sorted(grouped(found), key=lambda group: group.method == "random")  # has no curve: colours stay the same
    comparison = compare_groups(groups) if any(run.evaluation for run in found) else None
    drawn: dict[str, Figure] = {}
    if trained:
        metrics = {group.label: [run.metrics for run in group.runs] for group in groups if group.method != "random"}
        drawn = {"learning_curve": pictures.learning_curve(metrics), "optimisation": pictures.optimisation(metrics)}
    if comparison:
        drawn |= _of_evaluations(groups, comparison)
    if trained and trained[0].config.env == "navigation":
        label = next(group.label for group in groups if trained[0] in group.runs)
        learner, theta = load_learner(trained[0].name)
        try:
            drawn["paths"] = draw_paths(learner, theta, f"{label}, seed {trained[0].config.seed}")
        finally:
            learner.close()
    target = Path(out) if out else Path(found[0].name) / "figures"
    files = [pictures.save(figure, target / name) for name, figure in drawn.items()]
    return Pictures(files, missing_evaluations(found), comparison)


def missing_evaluations(runs: Sequence[Run[Kind]]) -> list[str]:
    """What is not drawn of runs without an evaluation, and what to do."""
    return [
        f"{run.name} is not evaluated, so not in the pictures of adaptation: maml-rl evaluate {run.name}"
        for run in runs
        if not run.evaluation
    ]
