"""One meta-iteration's data and objective: explore samples and adapts, MetaObjective is a function of theta."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from maml_rl import distributed
from maml_rl.adapt import Loss, adapt, inner_step
from maml_rl.baselines import BASELINES
from maml_rl.losses import before_step, surrogate
from maml_rl.parallel import side_by_side, task_slices
from maml_rl.policies import Policy
from maml_rl.rates import Rates
from maml_rl.returns import discounted_returns, gae, normalise
from maml_rl.rollout import of_run
from maml_rl.types import Batch, Params, Rate, Trajectory, map_tensors, stack


class Exploration(NamedTuple):
    """What one meta-iteration sampled, for K tasks and S inner steps."""

    chain: list[Params]  # S + 1 stacked parameters: before each inner step, and adapted
    trajectories: list[Trajectory]  # S + 1
    batches: list[Batch]  # S + 1: one for each inner step, the last of the adapted policies
    sampling_seconds: float  # spent in rollouts


def to_batch(
    trajectory: Trajectory,
    baseline: str,
    discount: float,
    gae_lambda: float,
    bootstrap_on_truncation: bool = False,
    normalise_advantages: bool = True,
) -> Batch:
    """Advantages from a baseline fitted on this very trajectory, normalised over each task's live steps if asked."""
    mask = trajectory.mask
    observations = torch.where(mask.unsqueeze(-1), trajectory.observations, 0.0)
    actions = torch.where(mask.unsqueeze(-1), trajectory.actions, 0.0)
    rewards = torch.where(mask, trajectory.rewards, 0.0)
    returns = discounted_returns(rewards, mask, discount)
    times = torch.arange(mask.shape[-1], device=mask.device)
    length = mask.sum(-1)
    carry = bootstrap = None
    if bootstrap_on_truncation:
        left = length.unsqueeze(-1) - times
        carry = torch.where(trajectory.truncated.unsqueeze(-1) & mask, discount**left, 0.0)
    value = BASELINES[baseline](observations, returns, mask, trajectory.final_observations, carry)
    if bootstrap_on_truncation:
        bootstrap = torch.where(trajectory.truncated, value(trajectory.final_observations, length), 0.0)
    advantages = gae(rewards, value(observations, times), mask, discount, gae_lambda, bootstrap)
    if normalise_advantages:
        advantages = normalise(advantages, mask)
    weights = mask.to(rewards.dtype) / mask.sum((-2, -1), keepdim=True)
    behaviour = map_tensors(lambda field: torch.where(mask.unsqueeze(-1), field, 0.0), trajectory.behaviour)
    return Batch(observations, actions, advantages, weights, behaviour)


def explore(
    sample: Callable[[list[Params], int], list[Trajectory]],
    prepare: Callable[[Trajectory], Batch],
    loss: Loss[Batch],
    starts: Sequence[tuple[Params, Sequence[Rate], str]],
    tasks: int,
    first: int = 0,
) -> list[Exploration]:
    """Sample and adapt in turn, with fresh episodes for every inner step (MAML paper, algorithm 3).

    Args:
        sample: Episodes for the stacked parameters of each run before inner step k.
        prepare: Advantages for those of a run.
        loss: The inner loss.
        starts: Of each run, where every task starts, the rate of each inner step, in order, as many in each, and what
            errors call it.
        tasks: K, of each run.
        first: What errors call the first of the tasks.

    Returns:
        What each run explored; all of them say the time that was spent in rollouts together.

    Raises:
        FloatingPointError: An inner step gives NaN or infinity.
    """
    found = [Exploration([stack(params, tasks)], [], [], 0.0) for params, *_ in starts]
    seconds, steps = 0.0, len(starts[0][1])
    for k in range(steps + 1):
        began = time.perf_counter()
        sampled = sample([run.chain[-1] for run in found], k)
        seconds += time.perf_counter() - began
        for run, trajectory, (_, rates, name) in zip(found, sampled, starts, strict=True):
            run.trajectories.append(trajectory)
            with of_run(name):
                run.batches.append(prepare(trajectory))
                if k < steps:
                    run.chain.append(adapt_stacked(loss, run.chain[-1], run.batches[-1:], rates[k]))
                    _refuse_diverged(run.chain[-1], k, first)
    return [run._replace(sampling_seconds=seconds) for run in found]


def _refuse_diverged(adapted: Params, k: int, first: int) -> None:
    finite = torch.stack([value.isfinite().flatten(1).all(-1) for value in adapted.values()]).all(0)
    if not finite.all():
        task = first + int(finite.logical_not().nonzero()[0])
        raise FloatingPointError(
            f"inner step {k} (counted from 0) takes parameters of task {task} to NaN or infinity: "
            "look for huge rewards, or lower inner.lr"
        )


def adapt_stacked(loss: Loss[Batch], params: Params, batches: Sequence[Batch], lr: Rate) -> Params:
    """The inner loop for all tasks at once, from stacked parameters; no gradient flows through the result."""

    @torch.no_grad()
    def adapt_slice(rows: slice) -> Params:
        own, data = map_tensors(lambda x: x[rows], (params, list(batches)))
        return vmap(lambda p, b: adapt(loss, p, b, lr))(own, data)

    pieces = side_by_side(adapt_slice, task_slices(batches[0].weights))
    adapted: Params = map_tensors(lambda *parts: torch.cat(parts), *pieces)
    return adapted


def inner_kl(policy: Policy, exploration: Exploration) -> float:
    """KL(before || after adaptation), mean over live steps of the first batch, then over tasks."""
    first, adapted = exploration.batches[0], exploration.chain[-1]

    @torch.no_grad()
    def kl(rows: slice) -> Tensor:
        params, batch = map_tensors(lambda x: x[rows], (adapted, first))
        after = policy(params, batch.observations)
        total: Tensor = (batch.behaviour.kl(after) * batch.weights).sum()
        return total

    return float(torch.stack(side_by_side(kl, task_slices(first.weights))).sum()) / len(first.weights)


class Terms(NamedTuple):
    """What an outer step looks at: means over tasks."""

    objective: Tensor  # to be raised: surrogate - inner_kl coefficient * inner KL + exploration term
    kl: Tensor  # KL(old || new) of the adapted policies
    inner_kl: Tensor  # KL(old || new) of the policies before each inner step, mean over steps


@dataclass(frozen=True)
class MetaObjective:
    """The outer objective and constraint on fixed data, as functions of theta (the initial parameters).

    For each task, theta is adapted on the pre-adaptation batches; the surrogate mean(ratio * A) and KL(old || new)
    are taken between the adapted policy and the one that sampled the post-adaptation batch, then averaged over tasks.

    Attributes:
        policy: The policy.
        loss: The inner loss.
        batches: The data of each inner step, then of the adapted policies.
        rates: The inner rates in theta.
        first_order: Treat the inner gradients as constants.
        whole_episodes: The loss couples the steps of an episode: thin the data by episodes, not by steps.
        clip: Clip the ratio of the surrogate to 1 +- this (ProMP, section 6); None for no clipping.
        inner_kl: Coefficient of the penalty on the KL of the policies before each inner step (ProMP, section 6);
            None computes neither.
        credit: (K,) times mean(exp(log pi - log pi_old)) over the live steps of each inner step is added for each
            task: the E-MAML term, which credits exploration with what adaptation made of it (Stadie et al. 2018).
        first: What errors call the first of these tasks.
    """

    policy: Policy
    loss: Loss[Batch]
    batches: Sequence[Batch]
    rates: Rates
    first_order: bool = False
    whole_episodes: bool = False
    clip: float | None = None
    inner_kl: float | None = None
    credit: Tensor | None = None
    first: int = 0

    def on_slice(self, theta: Params, rows: slice) -> Terms:
        """The terms summed over a slice of tasks, divided by the number of all tasks of this rank."""
        start, lr = self.rates.split(theta)

        def one_task(pre: Sequence[Batch], post: Batch, credit: Tensor) -> Terms:
            params, inner_kl, explored = start, credit.new_zeros(()), credit.new_zeros(())
            for batch in pre:
                if self.inner_kl is not None or self.credit is not None:
                    ratio, kl = before_step(self.policy, params, batch)
                    inner_kl, explored = inner_kl + kl / len(pre), explored + credit * ratio
                params = inner_step(self.loss, params, batch, lr, self.first_order)
            objective, kl = surrogate(self.policy, params, post, self.clip)
            return Terms(objective - (self.inner_kl or 0.0) * inner_kl + explored, kl, inner_kl)

        *pre, post = map_tensors(lambda x: x[rows], list(self.batches))
        credit = post.weights.new_zeros(len(post.weights)) if self.credit is None else self.credit[rows]
        return Terms(*(term.sum() / self._tasks for term in vmap(one_task)(pre, post, credit)))

    @property
    def _tasks(self) -> int:
        return len(self.batches[-1].weights)

    def values(self, theta: Params) -> tuple[float, float, float]:
        """Objective, KL and inner KL, means over tasks."""

        @torch.no_grad()
        def values_slice(rows: slice) -> Tensor:
            return torch.stack(self.on_slice(theta, rows))

        slices = side_by_side(values_slice, task_slices(self.batches[-1].weights))
        objective, kl, inner_kl = distributed.mean(torch.stack(slices).sum(0), self._tasks).tolist()
        return objective, kl, inner_kl

    def gradient(self, theta: Params) -> tuple[float, Params]:
        """Objective and its gradient in theta, through the inner loop.

        Raises:
            FloatingPointError: The gradient is not finite.
        """

        def gradient_slice(rows: slice) -> tuple[Tensor, Params]:
            leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
            objective = self.on_slice(leaves, rows).objective
            gradient = torch.autograd.grad(objective, list(leaves.values()), materialize_grads=True)
            return objective.detach(), dict(zip(leaves, gradient, strict=True))

        def of_this_rank() -> tuple[Tensor, Params]:
            slices = side_by_side(gradient_slice, task_slices(self.batches[-1].weights))
            summed: tuple[Tensor, Params] = map_tensors(lambda *parts: torch.stack(parts).sum(0), *slices)
            check_gradient(summed[1], lambda task: gradient_slice(slice(task, task + 1))[1], self._tasks, self.first)
            return summed

        total, gradient = distributed.mean(distributed.agreed(of_this_rank), self._tasks)
        return float(total), gradient


def check_gradient(total: Params, of_task: Callable[[int], Params], tasks: int, first: int = 0) -> None:
    """Refuse a meta-gradient that is not finite, and find the task that makes it so.

    Raises:
        FloatingPointError: It is not finite.
    """

    def bad(gradient: Params) -> list[str]:
        finite = torch.stack([value.isfinite().all() for value in gradient.values()]).tolist()
        return [name for name, fine in zip(gradient, finite, strict=True) if not fine]

    if names := bad(total):
        alone = next((f"task {first + task}" for task in range(tasks) if bad(of_task(task))), "all tasks together")
        raise FloatingPointError(f"the meta-gradient of {alone} is NaN or infinite in {', '.join(names)}")
