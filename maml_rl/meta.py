"""One meta-iteration's data and objective: explore samples and adapts, MetaObjective is a function of theta."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from maml_rl.adapt import Loss, adapt
from maml_rl.baselines import BASELINES
from maml_rl.losses import surrogate
from maml_rl.parallel import side_by_side, task_slices
from maml_rl.policies import GaussianPolicy
from maml_rl.returns import discounted_returns, gae, normalise
from maml_rl.types import Batch, Params, Rate, Trajectory, map_tensors, stack


class Exploration(NamedTuple):
    """What one meta-iteration sampled, for K tasks and S inner steps."""

    chain: list[Params]  # S + 1 stacked parameters: before each inner step, and adapted
    trajectories: list[Trajectory]  # S + 1
    batches: list[Batch]  # S + 1: one for each inner step, the last of the adapted policies
    sampling_seconds: float  # spent in rollouts


def to_batch(
    trajectory: Trajectory, baseline: str, discount: float, gae_lambda: float, bootstrap_on_truncation: bool
) -> Batch:
    """Advantages from a baseline fitted on this very trajectory, normalised over each task's live steps."""
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
    advantages = normalise(gae(rewards, value(observations, times), mask, discount, gae_lambda, bootstrap), mask)
    weights = mask.to(rewards.dtype) / mask.sum((-2, -1), keepdim=True)
    behaviour = map_tensors(lambda field: torch.where(mask.unsqueeze(-1), field, 0.0), trajectory.behaviour)
    return Batch(observations, actions, advantages, weights, behaviour)


def explore(
    sample: Callable[[Params, int], Trajectory],
    prepare: Callable[[Trajectory], Batch],
    loss: Loss[Batch],
    params: Params,
    tasks: int,
    rates: Sequence[Rate],
) -> Exploration:
    """Sample and adapt in turn, with fresh episodes for every inner step (MAML paper, algorithm 3).

    Args:
        sample: Episodes for stacked parameters before inner step k.
        prepare: Advantages for them.
        loss: The inner loss.
        params: Where every task starts.
        tasks: K.
        rates: The rate of each inner step, in order.
    """
    chain, trajectories, batches, seconds = [stack(params, tasks)], [], [], 0.0
    for k in range(len(rates) + 1):
        began = time.perf_counter()
        trajectories.append(sample(chain[-1], k))
        seconds += time.perf_counter() - began
        batches.append(prepare(trajectories[-1]))
        if k < len(rates):
            chain.append(adapt_stacked(loss, chain[-1], [batches[-1]], rates[k]))
    return Exploration(chain, trajectories, batches, seconds)


def adapt_stacked(loss: Loss[Batch], params: Params, batches: Sequence[Batch], lr: Rate) -> Params:
    """The inner loop for all tasks at once, from stacked parameters; no gradient flows through the result."""

    @torch.no_grad()
    def adapt_slice(rows: slice) -> Params:
        own, data = map_tensors(lambda x: x[rows], (params, list(batches)))
        return vmap(lambda p, b: adapt(loss, p, b, lr))(own, data)

    pieces = side_by_side(adapt_slice, task_slices(batches[0].weights))
    adapted: Params = map_tensors(lambda *parts: torch.cat(parts), *pieces)
    return adapted


def inner_kl(policy: GaussianPolicy, exploration: Exploration) -> float:
    """KL(before || after adaptation), mean over live steps of the first batch, then over tasks."""
    first, adapted = exploration.batches[0], exploration.chain[-1]

    @torch.no_grad()
    def kl(rows: slice) -> Tensor:
        params, batch = map_tensors(lambda x: x[rows], (adapted, first))
        after = policy(params, batch.observations)
        total: Tensor = (batch.behaviour.kl(after) * batch.weights).sum()
        return total

    return float(torch.stack(side_by_side(kl, task_slices(first.weights))).sum()) / len(first.weights)


@dataclass(frozen=True)
class MetaObjective:
    """The outer objective and constraint on fixed data, as functions of theta (the initial parameters).

    For each task, theta is adapted on the pre-adaptation batches; the surrogate mean(ratio * A) and KL(old || new)
    are taken between the adapted policy and the one that sampled the post-adaptation batch, then averaged over tasks.
    """

    policy: GaussianPolicy
    loss: Loss[Batch]
    batches: Sequence[Batch]
    lr: Rate
    first_order: bool
    whole_episodes: bool = False  # the loss couples the steps of an episode: thin by episodes, not by steps

    def on_slice(self, theta: Params, rows: slice) -> tuple[Tensor, Tensor]:
        """Surrogate and KL summed over a slice of tasks, divided by the number of all tasks."""

        def one_task(pre: Sequence[Batch], post: Batch) -> tuple[Tensor, Tensor]:
            adapted = adapt(self.loss, theta, pre, self.lr, self.first_order)
            return surrogate(self.policy, adapted, post)

        *pre, post = map_tensors(lambda x: x[rows], list(self.batches))
        objective, kl = vmap(one_task)(pre, post)
        return objective.sum() / self._tasks, kl.sum() / self._tasks

    @property
    def _tasks(self) -> int:
        return len(self.batches[-1].weights)

    def values(self, theta: Params) -> tuple[float, float]:
        """Surrogate and KL, means over tasks."""

        @torch.no_grad()
        def values_slice(rows: slice) -> Tensor:
            return torch.stack(self.on_slice(theta, rows))

        objective, kl = torch.stack(side_by_side(values_slice, task_slices(self.batches[-1].weights))).sum(0).tolist()
        return objective, kl

    def gradient(self, theta: Params) -> tuple[float, Params]:
        """Surrogate and its gradient in theta, through the inner loop."""

        def gradient_slice(rows: slice) -> tuple[Tensor, Params]:
            leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
            objective, _ = self.on_slice(leaves, rows)
            gradient = torch.autograd.grad(objective, list(leaves.values()))
            return objective.detach(), dict(zip(leaves, gradient, strict=True))

        slices = side_by_side(gradient_slice, task_slices(self.batches[-1].weights))
        total, gradient = map_tensors(lambda *parts: torch.stack(parts).sum(0), *slices)
        return float(total), gradient
