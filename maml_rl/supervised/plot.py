"""Pictures of few-shot runs: what to draw of them, and where it goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from maml_rl.few_shot_config import FewShotConfig
from maml_rl.plot import read_runs
from maml_rl.supervised import figures, models
from maml_rl.supervised.evaluate import adapted_errors, load_learner
from maml_rl.supervised.learner import FewShotLearner
from maml_rl.supervised.tasks import TaskBatch
from maml_rl.types import Params, map_tensors

SHOWN_STEPS, CURVE = (0, 1, 10), 200
"""Gradient steps in the picture of fits, and points of a curve."""

CANDIDATES = 25
"""Held-out tasks that the one in a picture is chosen from: it is the one in the middle."""

SHOWN_QUERIES = 10
"""Queries in the picture of an episode."""

PUBLISHED, PUBLISHED_SHOTS = {1: 0.67, 5: 0.38, 10: 0.35}, 5
"""Error of MAML with five examples (MAML paper, figure 2, and its code)."""


def adapted(learner: FewShotLearner, theta: Params, task: TaskBatch, steps: int) -> list[Params]:
    """One task's parameters after 0, 1, ..., steps gradient steps."""
    params, lr = learner.rates.split(learner.start(theta))
    return list(learner.adaptation(params, task.support, lr, steps))


def _one_task(run: Path, index: int | None = None, **changes: object) -> tuple[FewShotLearner, Params, TaskBatch, int]:
    """A held-out task, the one of median error or accuracy after adaptation of the first few."""
    learner, theta = load_learner(run, changes=changes)
    steps = learner.config.evaluation.steps
    found = next(iter(adapted_errors(learner, theta, CANDIDATES, steps, "test").values()))[:, -1]
    chosen = int(found.argsort()[CANDIDATES // 2]) if index is None else index
    held_out = learner.data.held_out_tasks(CANDIDATES)
    task: TaskBatch = map_tensors(lambda value: value[chosen].to(learner.device), held_out)
    return learner, theta, task, chosen


@torch.no_grad()
def draw_fits(runs: Mapping[str, FewShotConfig], path: Path) -> Path:
    """Draw one held-out curve with each run's fit before and after 1 and 10 steps, to the first run's examples."""
    panels, support, truth, index = {}, (np.zeros(0), np.zeros(0)), np.zeros(0), None
    first = next(iter(runs.values()))
    shots = first.evaluation.shots or first.shots
    for run in runs:
        learner, theta, task, index = _one_task(Path(run), index, shots=shots, queries=CURVE)
        order = task.query.inputs.flatten().argsort()
        x, truth = (value.flatten()[order].cpu().numpy() for value in task.query)
        chain = adapted(learner, theta, task, max(SHOWN_STEPS))
        panels[run] = {
            k: models.predict(learner.module, chain[k], task.query.inputs)[order].flatten().cpu().numpy()
            for k in SHOWN_STEPS
        }
        support = (task.support.inputs.flatten().cpu().numpy(), task.support.targets.flatten().cpu().numpy())
    return figures.fits(x, panels, support, truth, path)


@torch.no_grad()
def draw_episode(run: Path, path: Path) -> Path:
    """Draw one held-out task of images with the model's guesses before and after adaptation."""
    learner, theta, task, _ = _one_task(run)
    steps = learner.config.evaluation.steps
    chain = adapted(learner, theta, task, steps)
    guesses = {
        k: models.predict(learner.module, chain[k], task.query.inputs).argmax(-1)[:SHOWN_QUERIES].tolist()
        for k in sorted({0, min(1, steps), steps})
    }
    first = slice(None, None, learner.config.shots)  # one image of each class
    return figures.episode(
        task.support.inputs[first, 0].cpu().numpy(),
        task.support.targets[first].tolist(),
        task.query.inputs[:SHOWN_QUERIES, 0].cpu().numpy(),
        task.query.targets[:SHOWN_QUERIES].tolist(),
        guesses,
        path,
    )


def plot(runs: Sequence[Path | str], out: Path | str | None = None) -> list[Path]:
    """Draw learning curves, adaptation curves of evaluated runs, and fits of a sinusoid or an episode of images.

    Args:
        runs: Run folders.
        out: Folder for the pictures; None for figures/ in the first run.

    Returns:
        The PNG files; each has an SVG beside it.

    Raises:
        InputError: A folder is not a run of few-shot learning, or has nothing to draw yet.
    """
    configs, metrics, evaluations = read_runs(runs, FewShotConfig, "row of metrics")
    folders = [Path(name) for name in configs]
    target = Path(out) if out else folders[0] / "figures"
    drawn = [figures.learning_curve(metrics, target / "learning_curve.png")]
    shared = set.intersection(*(set(found["mean"]) for found in evaluations.values())) if evaluations else set()
    sinusoids = all(config.data == "sinusoid" for config in configs.values())
    comparable = sinusoids and all(found["shots"] == PUBLISHED_SHOTS for found in evaluations.values())
    for measure in sorted(shared):
        known = PUBLISHED if comparable else None
        drawn.append(figures.adaptation_curve(evaluations, measure, target / f"adaptation_{measure}.png", known))
    if sinusoids:
        drawn.append(draw_fits(configs, target / "fits.png"))
    elif "accuracy" in shared and configs[str(folders[0])].data == "omniglot":
        drawn.append(draw_episode(folders[0], target / "episode.png"))
    return drawn
