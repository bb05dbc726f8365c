"""Pictures of few-shot runs: what to draw of them, and where it goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from maml_rl.config.few_shot import FewShotConfig
from maml_rl.core.tree import Params, map_tensors
from maml_rl.evaluate_few_shot import load_learner
from maml_rl.pictures import few_shot, save
from maml_rl.results.plot import Pictures, missing_evaluations
from maml_rl.results.runs import read_runs, refuse_untrained
from maml_rl.supervised import models
from maml_rl.supervised.learner import FewShotLearner
from maml_rl.supervised.measures import MEASURES, adapted_errors
from maml_rl.supervised.tasks import TaskBatch

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
    params, lr = learner.inner.rates.split(learner.start(theta))
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


def _inner(config: FewShotConfig, lr: float) -> dict[str, object]:
    return config.inner.model_dump() | {"lr": lr}


@torch.no_grad()
def draw_fits(runs: Mapping[str, FewShotConfig], rates: Mapping[str, float]) -> Figure:
    """Draw one held-out curve with each run's fit before and after 1 and 10 steps, to the first run's examples.

    A run adapts at its rate in ``rates``, that of its evaluation, or where it has none at its configuration's.
    """
    panels, support, truth, index = {}, (np.zeros(0), np.zeros(0)), np.zeros(0), None
    first = next(iter(runs.values()))
    shots = first.evaluation.shots or first.shots
    for run, config in runs.items():
        inner = _inner(config, rates.get(run, config.inner.lr))
        learner, theta, task, index = _one_task(Path(run), index, shots=shots, queries=CURVE, inner=inner)
        order = task.query.inputs.flatten().argsort()
        x, truth = (value.flatten()[order].cpu().numpy() for value in task.query)
        chain = adapted(learner, theta, task, max(SHOWN_STEPS))
        panels[run] = {
            k: models.predict(learner.module, chain[k], task.query.inputs)[order].flatten().cpu().numpy()
            for k in SHOWN_STEPS
        }
        support = (task.support.inputs.flatten().cpu().numpy(), task.support.targets.flatten().cpu().numpy())
    return few_shot.fits(x, panels, support, truth)


@torch.no_grad()
def draw_episode(run: Path, config: FewShotConfig, lr: float) -> Figure:
    """Draw one held-out task of images with the model's guesses before and after adaptation at a rate."""
    learner, theta, task, _ = _one_task(run, inner=_inner(config, lr))
    steps = learner.config.evaluation.steps
    chain = adapted(learner, theta, task, steps)
    guesses = {
        k: models.predict(learner.module, chain[k], task.query.inputs).argmax(-1)[:SHOWN_QUERIES].tolist()
        for k in sorted({0, min(1, steps), steps})
    }
    first = slice(None, None, learner.config.shots)  # one image of each class
    return few_shot.episode(
        task.support.inputs[first, 0].cpu().numpy(),
        task.support.targets[first].tolist(),
        task.query.inputs[:SHOWN_QUERIES, 0].cpu().numpy(),
        task.query.targets[:SHOWN_QUERIES].tolist(),
        guesses,
    )


def plot(runs: Sequence[Path | str], out: Path | str | None = None) -> Pictures:
    """Draw learning curves, adaptation curves of evaluated runs, and fits of a sinusoid or an episode of images.

    Args:
        runs: Run folders.
        out: Folder for the pictures; None for figures/ in the first run.

    Returns:
        The files, and what is missing.

    Raises:
        InputError: A folder is not a run of few-shot learning, or has nothing to draw yet.
    """
    found = read_runs(runs, FewShotConfig)
    trained = [run for run in found if run.config.method != "random"]
    refuse_untrained(trained, "row of metrics")
    configs = {run.name: run.config for run in found}
    evaluations = {run.name: run.evaluation for run in found if run.evaluation}
    first = Path(found[0].name)
    drawn = {"learning_curve": few_shot.learning_curve({run.name: run.metrics for run in trained})} if trained else {}
    shared = set.intersection(*(set(each["mean"]) for each in evaluations.values())) if evaluations else set()
    sinusoids = all(config.data == "sinusoid" for config in configs.values())
    comparable = sinusoids and all(each["shots"] == PUBLISHED_SHOTS for each in evaluations.values())
    for measure in sorted(shared):
        known = PUBLISHED if comparable else None
        drawn[f"adaptation_{measure}"] = few_shot.adaptation_curve(evaluations, measure, MEASURES[measure], known)
    if sinusoids:
        drawn["fits"] = draw_fits(configs, {name: content["lr"] for name, content in evaluations.items()})
    elif "accuracy" in shared and found[0].config.data == "omniglot":
        drawn["episode"] = draw_episode(first, found[0].config, evaluations[found[0].name]["lr"])
    target = Path(out) if out else first / "figures"
    return Pictures([save(figure, target / name) for name, figure in drawn.items()], missing_evaluations(found))
