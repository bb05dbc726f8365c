"""Error and accuracy on held-out tasks after each gradient step."""

from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_envs import InputError
from maml_rl.core.statistics import trimmed_mean
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params, leaves, map_tensors
from maml_rl.supervised import models
from maml_rl.supervised.learner import FewShotLearner
from maml_rl.supervised.tasks import Examples, TaskBatch

PERMUTATION_SEED = 20_170_812

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Step sizes that ``tune`` tries on validation tasks."""


def _right(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(-1) == targets).double().mean()


def measures(learner: FewShotLearner, params: Params, task: TaskBatch) -> dict[str, Tensor]:
    """Measure parameters on one task's query set.

    Values are judged by the mean squared error, classes by the share that is right: with all queries in one batch
    ("accuracy": transductive where batch norm takes statistics over the queries), and with each query beside the
    support set alone ("accuracy_one_by_one": not transductive). Without batch norm the two are the same.
    """
    module, (inputs, targets) = learner.module, task.query
    outputs = models.predict(module, params, inputs)
    if targets.is_floating_point():
        return {"error": (outputs - targets).square().mean().double()}
    right = {"accuracy": _right(outputs, targets)}
    if not learner.model.of_batch:
        return right
    support = task.support.inputs
    alone = torch.stack([models.predict(module, params, torch.cat([support, one.unsqueeze(0)]))[-1] for one in inputs])
    return right | {"accuracy_one_by_one": _right(alone, targets)}


def _permutations(learner: FewShotLearner, count: int) -> list[Tensor]:
    """Return ``count - 1`` orders of the classes beside that as drawn, all different, the same for all tasks."""
    generator = torch.Generator().manual_seed(PERMUTATION_SEED)
    orders = {tuple(range(learner.outputs)): None}  # in the order that they are drawn in
    while len(orders) < count:
        orders[tuple(torch.randperm(learner.outputs, generator=generator).tolist())] = None
    return [torch.tensor(order, device=learner.device) for order in orders][1:]


def as_labelled(learner: FewShotLearner) -> FewShotLearner:
    """Return the same without permutations of labels, for what does not look at their spread."""
    once = learner.config.evaluation.model_copy(update={"permutations": 1})
    return replace(learner, config=learner.config.model_copy(update={"evaluation": once}))


def _renamed(task: TaskBatch, order: Tensor) -> TaskBatch:
    """Return a task in which class k is called order[k]."""
    return TaskBatch(*(Examples(part.inputs, order[part.targets]) for part in task))


@torch.no_grad()
def adapted_errors(
    learner: FewShotLearner, theta: Params, tasks: int, steps: int, split: str, lr: float | None = None
) -> dict[str, NDArray[np.float64]]:
    """Each measure (tasks, steps + 1) of held-out tasks, adapting to the same support set at every step.

    Args:
        learner: What adapts.
        theta: Where every task starts.
        tasks: How many.
        steps: Gradient steps.
        split: "test", or "validation".
        lr: A rate instead of the configuration's, for what adapts.
    """
    rates = learner.inner.rates if lr is None else replace(learner.inner.rates, lr=lr)
    params, rate = rates.split(learner.start(theta))

    settings = learner.config.evaluation
    permutations = _permutations(learner, settings.permutations)

    def of_labels(task: TaskBatch) -> dict[str, Tensor]:
        path = learner.adaptation(params, task.support, rate, steps, settings.backtracks)
        seen = [measures(learner, own, task) for own in path]
        return {name: torch.stack([each[name] for each in seen]) for name in seen[0]}

    def one(task: TaskBatch) -> dict[str, Tensor]:
        drawn = of_labels(task)
        if not permutations:
            return drawn
        again = [of_labels(_renamed(task, order))["accuracy"] for order in permutations]
        return drawn | {"accuracy_spread": torch.stack([drawn["accuracy"], *again]).std(0, correction=0)}

    pieces = []
    for held_out in learner.data.held_out_pieces(tasks, split):
        here = learner.here(held_out)
        axis = TaskAxis(len(here.support.inputs), loop=learner.loop, most=learner.config.tasks_at_once)
        pieces.append(map_tensors(lambda x: x.cpu(), axis.map(one, here)))
    return {name: torch.cat([piece[name] for piece in pieces]).numpy() for name in pieces[0]}


def draw_from(learner: FewShotLearner, seed: int) -> None:
    """Draw held-out tasks by another seed from now on.

    Raises:
        InputError: They stay the same.
    """
    data = learner.data
    if seed == data.held_out_seed:
        return
    own, before = data.held_out_seed, data.held_out_tasks(1)
    data.held_out_seed = seed
    if all(torch.equal(one, other) for one, other in zip(leaves(before), leaves(data.held_out_tasks(1)), strict=True)):
        data.held_out_seed = own
        raise InputError(
            f"evaluation.seed = {seed} has no effect: {type(data).__name__}.held_out_tasks draws the same; let it draw "
            "from self.held_out_generator(split)"
        )


def references(learner: FewShotLearner, tasks: int) -> dict[str, float]:
    """Return what the distribution knows can be had on its held-out tasks without meta-learning, mean over tasks."""
    total: Counter[str] = Counter()
    for held_out in learner.data.held_out_pieces(tasks):
        share = len(held_out.query.targets) / tasks
        total.update({name: share * value for name, value in learner.data.references(held_out).items()})
    return dict(total)


def tune(learner: FewShotLearner, theta: Params, tasks: int, steps: int) -> float:
    """The step size in ``RATES`` that serves validation tasks best after the last step, by their trimmed mean."""
    learner = as_labelled(learner)
    found = {rate: adapted_errors(learner, theta, tasks, steps, "validation", rate) for rate in RATES}
    cost = {
        rate: float(trimmed_mean(each["error"][:, -1])) if "error" in each else -float(each["accuracy"][:, -1].mean())
        for rate, each in found.items()
    }
    return min(cost, key=lambda rate: cost[rate] if np.isfinite(cost[rate]) else np.inf)
