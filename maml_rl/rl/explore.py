"""Sample and adapt in turn: the data of one meta-iteration."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from maml_envs import random
from maml_rl.core.adapt import scaled
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params, Rate
from maml_rl.rl.advantages import Scale, to_batch
from maml_rl.rl.data import Batch, Trajectory
from maml_rl.rl.learner import Learner
from maml_rl.rl.linear_baseline import NoFitError


class Draw(NamedTuple):
    """Tasks, and what the noise of their episodes follows from."""

    axis: TaskAxis
    tasks: Tensor  # (K S, *task_shape): as many of each seed, one seed's after the other's
    keys: Tensor  # (S,) int64
    episodes: int  # B, of each task before and after each inner step


class Outcome(NamedTuple):
    """Outcome of the episodes of each task."""

    returns: Tensor  # (K S, B) undiscounted
    success: Tensor | None  # (K S, B) bool: solved in some live step; None where the environment reports none
    steps: Tensor  # (K S, B) live steps
    scale: Scale  # of returns and advantages


class Exploration(NamedTuple):
    """Data that one meta-iteration sampled, for K tasks of each of S seeds and n inner steps."""

    axis: TaskAxis
    params_by_step: list[Params]  # n + 1 stacked parameters: before each inner step, and adapted
    batches: list[Batch]  # n + 1: one for each inner step, the last of the adapted policies
    outcomes: list[Outcome]  # n + 1
    sampling_seconds: float  # spent in rollouts


def explore(learner: Learner, theta: Params, draw: Draw, factors: Sequence[float]) -> Exploration:
    """Sample and adapt in turn, with fresh episodes for every inner step (MAML paper, algorithm 3).

    Args:
        learner: What samples and adapts.
        theta: (S, ...).
        draw: Tasks and noise.
        factors: One inner step for each, at theta's rate times this.

    Raises:
        FloatingPointError: Something sampled is not finite, a baseline has no fit, or an inner step gives NaN or
            infinity.
    """
    params, lr = learner.inner.rates.split(draw.axis.spread(theta))
    exploration, sampler, seconds = Exploration(draw.axis, [params], [], [], 0.0), learner.sampler, 0.0
    for k in range(len(factors) + 1):
        began = time.perf_counter()
        with _in_episodes(k, len(factors)):
            noise, seeds = sampler.draw(params, draw.episodes, keys_at(draw, k), draw.axis)
            trajectory = sampler.rollout(params, draw.tasks, noise, seeds, draw.axis)
            seconds += time.perf_counter() - began
            before = exploration.outcomes[-1].scale if k else None
            batch, scale = _advantages(learner, trajectory, draw.axis, before)
        exploration.outcomes.append(Outcome(trajectory.returns(), trajectory.success, trajectory.mask.sum(-1), scale))
        exploration.batches.append(batch)
        if k < len(factors):
            params = adapt(learner, params, batch, scaled(lr, factors[k]), draw.axis)
            _refuse_diverged(params, k, draw.axis)
            exploration.params_by_step.append(params)
    if not any(env.reports_success for env in sampler.envs):
        exploration.outcomes[:] = [outcome._replace(success=None) for outcome in exploration.outcomes]
    return exploration._replace(sampling_seconds=seconds)


def keys_at(draw: Draw, k: int) -> Tensor:
    """Return the keys (S,) of the episodes before inner step k."""
    return random.fold_in(draw.keys, k)


def adapt(learner: Learner, params: Params, batch: Batch, lr: Rate, axis: TaskAxis) -> Params:
    """Take an inner step for all tasks at once, from stacked parameters; no gradient flows through the result.

    The rate is a number, or has a row for each task.
    """

    def of_task(batch: Batch, params: Params, rates: Params) -> Params:
        return learner.inner.step(params, batch, rates or lr)

    adapted: Params = axis.map(of_task, batch, params, lr if isinstance(lr, dict) else {})
    return adapted


@contextmanager
def _in_episodes(k: int, steps: int) -> Iterator[None]:
    """Add to an error of what is not finite in which episodes it was."""
    try:
        yield
    except FloatingPointError as error:
        where = f"before inner step {k} (counted from 0)" if k < steps else "of the adapted policies"
        raise FloatingPointError(f"{error}; in the episodes {where}") from error


def _advantages(learner: Learner, trajectory: Trajectory, axis: TaskAxis, before: Scale | None) -> tuple[Batch, Scale]:
    try:
        return to_batch(trajectory, learner.config, len(axis.names), before)
    except NoFitError as error:
        raise FloatingPointError(error.naming(axis.name)) from error


def _refuse_diverged(adapted: Params, k: int, axis: TaskAxis) -> None:
    finite = torch.stack([value.isfinite().flatten(1).all(-1) for value in adapted.values()]).all(0)
    if not finite.all():
        raise FloatingPointError(
            f"inner step {k} (counted from 0) takes parameters of {axis.name(int(finite.int().argmin()))} to NaN or "
            "infinity: look for huge rewards, or lower inner.lr"
        )
