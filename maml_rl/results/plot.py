"""Pictures of run folders: what to draw of them, and where it goes."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

import maml_envs
from maml_envs.user_code import warn_foreign_import
from maml_rl import pictures
from maml_rl.config.base import METHODS
from maml_rl.config.rl import Config
from maml_rl.core.tree import Params
from maml_rl.evaluate import load
from maml_rl.results.comparison import Comparison, comparisons
from maml_rl.results.few_shot import draw_examples
from maml_rl.results.runs import Group, Run, grouped, read_runs, refuse_untrained
from maml_rl.rl.data import Trajectory
from maml_rl.rl.explore import keys_at
from maml_rl.rl.held_out import explore_held_out
from maml_rl.rl.learner import Learner
from maml_rl.runs.measures import MEASURES

CAPTIONS = {
    "learning_curve": "Return in training before and after adaptation, over environment steps and wall clock.",
    "adaptation_curve": "Return on held-out tasks after each gradient step.",
    "before_after": "Every held-out task: its return before and after one step; below the diagonal it became worse.",
    "return_by_task": "Return over what the task asks for, before and after adaptation.",
    "paths": "Paths on held-out goals before and after adaptation.",
    "optimisation": "How the outer optimisation went.",
}
"""What the figures of meta-RL show, in the order of the page."""

FEW_SHOT_CAPTIONS = {
    "learning_curve": "Query loss in training, over iterations and wall clock.",
    **{
        f"adaptation_{name}": f"On held-out tasks after each gradient step: {MEASURES[name].label}."
        for name in ("error", "accuracy", "accuracy_one_by_one")
    },
    "fits": "A held-out curve, and its fit before and after gradient steps on the support examples.",
    "episode": "A held-out task: its support set, and what its queries are called before and after adaptation.",
}
"""The same of few-shot learning."""

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
    again = (
        learner.sampler.sample(params, draw.tasks, draw.episodes, keys_at(draw, k), draw.axis)
        for k, params in enumerate(exploration.params_by_step)
    )
    places, masks = zip(*map(visited, again), strict=True)
    returns = [outcome.returns.mean(-1) for outcome in exploration.outcomes]
    return pictures.navigation_paths(
        torch.stack(places, 1)[:, :, :shown].cpu(),
        torch.stack(masks, 1)[:, :, :shown].cpu(),
        draw.tasks.cpu(),
        torch.stack(returns, 1).cpu(),
        name,
    )


class Results(NamedTuple):
    """Run folders, read once, in groups and compared."""

    runs: list[Run]
    groups: list[Group]  # those that are not trained last: they have no curve of learning, so that colours stay
    comparisons: list[Comparison]  # of the last parameters on tasks of training's kind; none if nothing is evaluated

    @property
    def missing(self) -> list[str]:
        """Name the runs without an evaluation, and what to do."""
        return [
            f"{run.name} is not evaluated, so not in the pictures of adaptation: maml-rl evaluate {run.name}"
            for run in self.runs
            if not run.evaluation()
        ]


def gather(folders: Sequence[Path | str]) -> Results:
    """Read runs of one environment, or of the same data, and compare them.

    Raises:
        InputError: A folder is not a run, or has nothing to draw yet, or the runs do not compare.
    """
    runs = read_runs(folders)
    row = "iteration" if isinstance(runs[0].config, Config) else "row of metrics"
    refuse_untrained([run for run in runs if METHODS[run.config.method].trains], row)
    groups = sorted(grouped(runs), key=lambda group: not METHODS[group.method].trains)
    return Results(runs, groups, comparisons(groups) if any(run.evaluation() for run in runs) else [])


def _task_name(config: Config, source: Path) -> str:
    """Name the numbers of a task; "task" where the family does not say, or is code that is not here or fails."""
    if len(config.vector.task_ranges) == 1:
        return next(iter(config.vector.task_ranges))
    warn_foreign_import(config.env, source)
    try:
        name: str = maml_envs.family(config.env).task_name
    except Exception as error:
        print(f"{config.env} cannot be asked what its tasks are: {error}", file=sys.stderr)
        return "task"
    return name


def _adaptation(comparison: Comparison) -> Figure:
    """Draw means where published values are beside them, which are means, and of errors; else interquartile means."""
    published, error = comparison.published, comparison.measure == "error"
    means = bool(published) or not comparison.is_rl
    points = {
        f"{row.label} ({len(row.seeds)} seed{'s' * (len(row.seeds) > 1)})": (
            row.points[: 1 if METHODS[row.method].told else None]
        )
        for row in comparison.rows
    }
    return pictures.adaptation_curve(
        {name: [point.mean if means else point.iqm for point in series] for name, series in points.items()},
        published.curves() if published else (),
        "mean" if means else "interquartile mean",
        "seeds and tasks" if any(len(row.seeds) > 1 for row in comparison.rows) else "tasks",
        MEASURES[comparison.measure].label,
        {name: [point.trimmed_mean for point in series] for name, series in points.items()} if error else None,
    )


def _of_tasks(comparison: Comparison, name: str) -> dict[str, Figure]:
    """Draw the return task by task, where tasks are numbers."""
    returns = {row.label: row.values.mean(0) for row in comparison.rows}
    assert comparison.task_numbers is not None
    figures = {}
    if any(values.shape[1] > 1 for values in returns.values()):
        figures["before_after"] = pictures.before_after(returns, comparison.task_numbers, name)
    return figures | {"return_by_task": pictures.return_by_task(returns, comparison.task_numbers, name)}


def draw(results: Results) -> dict[str, Figure]:
    """Draw what runs hold, by the name of each figure; see ``plot``."""
    trained = [group for group in results.groups if METHODS[group.method].trains]
    metrics = {group.label: [run.metrics for run in group.runs] for group in trained}
    config = results.runs[0].config
    figures = {"learning_curve": pictures.learning_curve(metrics)} if trained else {}
    if trained and isinstance(config, Config):
        figures["optimisation"] = pictures.optimisation(metrics)
    for comparison in results.comparisons:
        name = "curve" if comparison.is_rl else comparison.measure
        figures[f"adaptation_{name}"] = _adaptation(comparison)
    if not isinstance(config, Config):
        return figures | draw_examples(results.groups)
    for comparison in results.comparisons:
        figures |= _of_tasks(comparison, _task_name(config, Path(results.runs[0].name)))
    if trained and config.env == "navigation":
        first = next(run for run in results.runs if METHODS[run.config.method].trains)
        label = next(group.label for group in trained if first in group.runs)
        with load(first.name) as agent:
            figures["paths"] = draw_paths(agent.learner, agent.theta, f"{label}, seed {first.config.seed}")
    return figures


class Pictures(NamedTuple):
    """Files that ``plot`` wrote, and what it drew."""

    files: list[Path]  # PNG; each has an SVG beside it
    missing: list[str]  # what could not be drawn, and the command that makes it possible
    comparison: Comparison | None  # by the leading measure, if a run was evaluated


def plot(runs: Sequence[Path | str], out: Path | str | None = None) -> Pictures:
    """Draw what runs of one environment, or of the same data, hold, seeds of a configuration together.

    Of every run that was trained: learning curves and, of meta-RL, how the optimisation went. Of evaluated runs:
    adaptation curves; of meta-RL also each task before against after a step, and the return over what the tasks are. Of
    the first trained run, if it navigates: paths. Of few-shot learning: fits of a sinusoid, or an episode of images.
    Everything is drawn before anything is written.

    Args:
        runs: Run folders.
        out: Folder for the pictures; None for figures/ in the first run.

    Returns:
        The files, what is missing, and the numbers of evaluated runs.

    Raises:
        InputError: A folder is not a run, or has nothing to draw yet, or the runs do not compare.
    """
    results = gather(runs)
    target = Path(out) if out else Path(results.runs[0].name) / "figures"
    files = [pictures.save(figure, target / name) for name, figure in draw(results).items()]
    return Pictures(files, results.missing, results.comparisons[0] if results.comparisons else None)
