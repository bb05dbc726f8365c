"""Pictures that few-shot runs alone have: fits of a sinusoid, an episode of images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from maml_rl.config.few_shot import FewShotConfig
from maml_rl.core.tree import Params, map_tensors
from maml_rl.evaluate import load_learner
from maml_rl.pictures import few_shot
from maml_rl.results.runs import Group, Run
from maml_rl.supervised import models
from maml_rl.supervised.learner import FewShotLearner
from maml_rl.supervised.measures import adapted_errors, as_labelled, draw_from
from maml_rl.supervised.tasks import TaskBatch

SHOWN_STEPS, CURVE = (0, 1, 10), 200
"""Gradient steps in the picture of fits, and points of a curve."""

CANDIDATES = 25
"""Held-out tasks that the one in a picture is chosen from: it is the one in the middle."""

SHOWN_QUERIES = 10
"""Queries in the picture of an episode."""


def adapted(learner: FewShotLearner, theta: Params, task: TaskBatch, steps: int) -> list[Params]:
    """Return one task's parameters after 0, 1, ..., steps gradient steps."""
    params, lr = learner.inner.rates.split(learner.start(theta))
    return list(learner.adaptation(params, task.support, lr, steps, learner.config.evaluation.backtracks))


def _one_task(run: Path, index: int | None = None, **changes: object) -> tuple[FewShotLearner, Params, TaskBatch, int]:
    """Choose a held-out task, the one of median error or accuracy after adaptation of the first few."""
    learner, theta = load_learner(run, changes=changes)
    assert isinstance(learner, FewShotLearner)
    draw_from(learner, learner.config.evaluation.seed)
    steps = learner.config.evaluation.steps
    scores = next(iter(adapted_errors(as_labelled(learner), theta, CANDIDATES, steps, "test").values()))[:, -1]
    index = int(scores.argsort()[CANDIDATES // 2]) if index is None else index
    held_out = learner.data.held_out_tasks(CANDIDATES)
    task: TaskBatch = map_tensors(lambda value: value[index], learner.here(held_out))
    return learner, theta, task, index


def _inner(run: Run) -> dict[str, object]:
    """The run's inner loop at the rate of its evaluation, or where it has none, or took no step, at its own."""
    evaluation = run.evaluation()
    rate = {"lr": float(evaluation.lr[0])} if evaluation and evaluation.steps else {}
    return run.config.inner.model_dump() | rate


@torch.no_grad()
def draw_fits(groups: Sequence[Group]) -> Figure:
    """Draw one held-out curve with the fit of each group's first run before and after 1 and 10 steps."""
    panels, support, truth, index = {}, (np.zeros(0), np.zeros(0)), np.zeros(0), None
    first = groups[0].runs[0].config
    assert isinstance(first, FewShotConfig)
    shots = first.evaluation.shots or first.shots
    for group in groups:
        run = group.runs[0]
        learner, theta, task, index = _one_task(Path(run.name), index, shots=shots, queries=CURVE, inner=_inner(run))
        order = task.query.inputs.flatten().argsort()
        x, truth = (value.flatten()[order].cpu().numpy() for value in task.query)
        chain = adapted(learner, theta, task, max(SHOWN_STEPS))
        panels[group.label] = {
            k: models.predict(learner.module, chain[k], task.query.inputs)[order].flatten().cpu().numpy()
            for k in SHOWN_STEPS
        }
        support = (task.support.inputs.flatten().cpu().numpy(), task.support.targets.flatten().cpu().numpy())
    return few_shot.fits(x, panels, support, truth)


@torch.no_grad()
def draw_episode(run: Run) -> Figure:
    """Draw one held-out task of images with the model's guesses before and after adaptation."""
    learner, theta, task, _ = _one_task(Path(run.name), inner=_inner(run))
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


def draw_examples(groups: Sequence[Group]) -> dict[str, Figure]:
    """Draw what a task looks like, where the data are known: fits of a sinusoid, an episode of Omniglot."""
    run = groups[0].runs[0]
    data = getattr(run.config, "data", None)
    if data == "sinusoid":
        return {"fits": draw_fits(groups)}
    return {"episode": draw_episode(run)} if data == "omniglot" and run.evaluation() else {}
