"""Pictures of run folders: what to draw of them, and where it goes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple

import torch
from torch import Tensor

from envs import InputError
from envs.navigation import Navigation
from maml_rl import figures, published, run_folder
from maml_rl.config import Config
from maml_rl.config_file import Kind, of_kind
from maml_rl.evaluate import explore_held_out, load_learner
from maml_rl.learner import Learner
from maml_rl.types import Params, Trajectory

PATHS_OF = (5, 6)
"""Tasks and episodes in the picture of paths."""


def latest_evaluation(run: Path) -> Path | None:
    """The newest evaluation file of a run folder, if it has one."""
    return max(run.glob("evaluation*.json"), key=lambda file: file.stat().st_mtime_ns, default=None)


def read_evaluation(file: Path) -> dict[str, Any]:
    """The content of an evaluation file.

    Raises:
        InputError: It is damaged, or not an evaluation.
    """
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file} is damaged: {error}; evaluate the run again") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is not an evaluation of this package")
    return content


class Runs(NamedTuple, Generic[Kind]):
    """What run folders hold, by their names and in their order."""

    configs: dict[str, Kind]
    metrics: dict[str, list[dict[str, float]]]
    evaluations: dict[str, dict[str, Any]]  # the newest of those that have one


def read_runs(runs: Sequence[Path | str], kind: type[Kind], row: str) -> Runs[Kind]:
    """Read what there is to draw of some runs of one kind of learning; ``row`` names a row of their metrics.

    Raises:
        InputError: There is no run, or one that is not of that kind, is damaged or has no metrics yet.
    """
    if not runs:
        raise InputError("nothing to plot: give one or more run folders")
    folders = {str(Path(run)): Path(run) for run in runs}
    configs = {name: of_kind(run_folder.read_config(folder), kind, name) for name, folder in folders.items()}
    metrics = {name: run_folder.read_metrics(folder) for name, folder in folders.items()}
    for name, rows in metrics.items():
        if not rows:
            raise InputError(f"{name} has no finished {row} yet: train on with --resume --out {name}")
    files = {name: file for name, folder in folders.items() if (file := latest_evaluation(folder))}
    return Runs(configs, metrics, {name: read_evaluation(file) for name, file in files.items()})


def visited(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """Observations with the one after the last live step (K, B, T+1, obs), and a mask (K, B, T+1) of them."""
    length = trajectory.mask.sum(-1, keepdim=True)
    final = trajectory.final_observations.unsqueeze(2)
    places = torch.cat([trajectory.observations, torch.zeros_like(final)], 2)
    places = places.scatter(2, length.unsqueeze(-1).expand_as(final), final)
    return places, torch.arange(places.shape[2], device=length.device) <= length


def draw_paths(learner: Learner, theta: Params, path: Path) -> Path:
    """Draw the navigation agent's paths on held-out tasks, before and after each gradient step."""
    config = learner.config
    tasks, shown = PATHS_OF
    exploration, goals, _ = explore_held_out(
        learner, theta, tasks, config.evaluation.episodes, config.evaluation.steps, "in"
    )
    places, masks = zip(*(visited(trajectory) for trajectory in exploration.trajectories), strict=True)
    returns = [t.returns().mean(-1) for t in exploration.trajectories]
    return figures.navigation_paths(
        torch.stack(places, 1)[:, :, :shown].cpu(),
        torch.stack(masks, 1)[:, :, :shown].cpu(),
        goals.cpu(),
        torch.stack(returns, 1).cpu(),
        path,
    )


def plot(runs: Sequence[Path | str], out: Path | str | None = None) -> list[Path]:
    """Draw learning curves, adaptation curves of evaluated runs, and paths of the first run if it navigates.

    Args:
        runs: Run folders.
        out: Folder for the pictures; None for figures/ in the first run.

    Returns:
        The PNG files; each has an SVG beside it.

    Raises:
        InputError: A folder is not a run, or has nothing to draw yet.
    """
    configs, metrics, evaluations = read_runs(runs, Config, "iteration")
    first = Path(next(iter(configs)))
    target = Path(out) if out else first / "figures"
    drawn = [figures.learning_curve(metrics, target / "learning_curve.png")]
    if evaluations:
        known = {published.adaptation(c.env, c.preset, c.horizon) for c in (configs[name] for name in evaluations)}
        comparable = len(known) == 1 and all(found["split"] == "in" for found in evaluations.values())
        same = known.pop() if comparable else None
        drawn.append(
            figures.adaptation_curve(
                evaluations,
                target / "adaptation_curve.png",
                same.returns if same else None,
                same.source if same else "",
            )
        )
    learner, theta = load_learner(first)
    try:
        if isinstance(learner.envs[0], Navigation):
            drawn.append(draw_paths(learner, theta, target / "paths.png"))
    finally:
        learner.close()
    return drawn
