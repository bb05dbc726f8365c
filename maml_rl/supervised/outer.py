"""Outer steps of few-shot learning: what each takes for a gradient, and how it moves theta, (1, ...)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.core.adam import adam_step
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params
from maml_rl.supervised.learner import FewShotLearner
from maml_rl.supervised.tasks import Examples, TaskBatch

LOSS = "the query loss"
"""Name of the loss in errors."""


def query_loss(learner: FewShotLearner, theta: Params, task: TaskBatch) -> Tensor:
    """Return the query loss of one task after the inner loop."""
    steps = learner.config.trained_steps
    params, lr = learner.inner.rates.split(learner.spread(theta))
    chain = list(learner.adaptation(params, task.support, lr, steps))
    if not learner.weights:
        return learner.loss(chain[-1], task.query)
    losses = [learner.loss(each, task.query) for each in chain[1:]]
    return torch.stack([weight * loss for weight, loss in zip(learner.weights, losses, strict=True)]).sum()


def meta_gradient(learner: FewShotLearner, theta: Params, batch: TaskBatch, axis: TaskAxis) -> tuple[Tensor, Params]:
    """Return the query loss, mean over tasks, (1,), and its gradient through the inner loop."""
    return axis.value_and_grad(partial(query_loss, learner), theta, batch, value=LOSS)


def way_to_adapted(learner: FewShotLearner, theta: Params, batch: TaskBatch, axis: TaskAxis) -> tuple[Tensor, Params]:
    """Return the loss after adaptation, (1,), and theta minus the adapted parameters, means over tasks.

    Reptile (Nichol et al. 2018, equation 7), where all examples of a task, support and query, are what it adapts to.
    """

    def of_task(theta: Params, task: TaskBatch) -> tuple[Tensor, Params]:
        params, lr = learner.inner.rates.split(theta)
        joined = Examples(*(torch.cat(pair) for pair in zip(task.support, task.query, strict=True)))
        *_, adapted = learner.adaptation(params, joined, lr, learner.config.trained_steps)
        return learner.loss(adapted, joined), {name: params[name] - adapted[name] for name in params}

    return axis.finite_mean(of_task, theta, batch, value=LOSS)


def adam(theta: Params, state: Params, gradient: Params, lr: float) -> tuple[Params, Params]:
    """Take a step of Adam down the gradient."""
    return adam_step(theta, state, gradient, lr, maximise=False)


def part_of_the_way(theta: Params, state: Params, gradient: Params, lr: float) -> tuple[Params, Params]:
    """Go a part, ``lr``, of the way to the adapted parameters."""
    return {name: value - lr * gradient[name] for name, value in theta.items()}, state


class OuterStep(NamedTuple):
    """An outer step: a gradient, and a step down it."""

    gradient: Callable[[FewShotLearner, Params, TaskBatch, TaskAxis], tuple[Tensor, Params]]
    step: Callable[[Params, Params, Params, float], tuple[Params, Params]]


OUTER = {"adam": OuterStep(meta_gradient, adam), "reptile": OuterStep(way_to_adapted, part_of_the_way)}


def gradient(learner: FewShotLearner, theta: Params, batch: TaskBatch, name: str = "") -> tuple[Tensor, Params]:
    """Return the loss of this rank's and all other ranks' tasks, (1,), and what the outer step goes down.

    Args:
        learner: What adapts.
        theta: (1, ...).
        batch: This rank's tasks.
        name: What errors call the seed.

    Raises:
        FloatingPointError: It is not finite: the examples of a task, or what a task adds to it.
    """
    axis = TaskAxis.of_this_rank(learner.config.tasks, [name], learner.loop, learner.config.tasks_at_once)
    try:
        return OUTER[learner.config.outer.name].gradient(learner, theta, batch, axis)
    except FloatingPointError:
        _check_data(batch, axis)
        raise


def _check_data(batch: TaskBatch, axis: TaskAxis) -> None:
    """Refuse examples that are not finite."""
    for part, examples in batch._asdict().items():
        for name, values in examples._asdict().items():
            bad = ~values.isfinite().flatten(1).all(1)
            if bad.any():
                raise FloatingPointError(
                    f"{name} in the {part} set of {axis.name(int(bad.nonzero()[0]))} hold NaN or infinity: look at "
                    "what makes the data"
                )
