"""One meta-iteration's data and objective: explore samples and adapts, MetaObjective is a function of theta."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from maml_rl import distributed
from maml_rl.adapt import Loss, adapt, inner_step
from maml_rl.baselines import BASELINES, NoFitError, Samples
from maml_rl.finite import check_gradient
from maml_rl.losses import before_step, surrogate
from maml_rl.parallel import Part, add_up, parts, side_by_side, task_slices
from maml_rl.policies import Policy
from maml_rl.rates import Rates
from maml_rl.returns import discounted_returns, gae, normalise
from maml_rl.types import ONE_RUN, Batch, Params, Rate, Runs, TaskRows, Trajectory, map_tensors, stack, sum_tasks


class Exploration(NamedTuple):
    """What one meta-iteration sampled, for K tasks (of all runs together) and S inner steps."""

    chain: list[Params]  # S + 1 stacked parameters: before each inner step, and adapted
    trajectories: list[Trajectory]  # S + 1
    batches: list[Batch]  # S + 1: one for each inner step, the last of the adapted policies
    sampling_seconds: float  # spent in rollouts
    runs: Runs = ()  # the axes of runs that theta had
    rows: TaskRows = ONE_RUN


def to_batch(
    trajectory: Trajectory,
    baseline: str,
    discount: float,
    gae_lambda: float,
    bootstrap_on_truncation: bool = False,
    normalise_advantages: bool = True,
    runs: Runs = (),
) -> Batch:
    """Advantages from a baseline fitted on this very trajectory, normalised over each task's live steps if asked.

    Of several runs there are as many tasks each, and nothing of one depends on another.
    """
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
    value = BASELINES[baseline](Samples(observations, returns, mask, trajectory.final_observations, carry, runs))
    if bootstrap_on_truncation:
        bootstrap = torch.where(trajectory.truncated, value(trajectory.final_observations, length), 0.0)
    advantages = gae(rewards, value(observations, times), mask, discount, gae_lambda, bootstrap)
    if normalise_advantages:
        advantages = normalise(advantages, mask)
    weights = mask.to(rewards.dtype) / mask.sum((-2, -1), keepdim=True)
    behaviour = map_tensors(lambda field: torch.where(mask.unsqueeze(-1), field, 0.0), trajectory.behaviour)
    return Batch(observations, actions, advantages, weights, behaviour)


def explore(
    sample: Callable[[Params, int], Trajectory],
    prepare: Callable[[Trajectory], Batch],
    loss: Loss[Batch],
    start: Params,
    rates: Sequence[Rate],
    rows: TaskRows,
) -> Exploration:
    """Sample and adapt in turn, with fresh episodes for every inner step (MAML paper, algorithm 3).

    Args:
        sample: Episodes for stacked parameters before inner step k.
        prepare: Advantages for those.
        loss: The inner loss.
        start: Stacked parameters: where each task starts.
        rates: The rate of each inner step, in order, with a row for each task.
        rows: Which tasks these are.

    Raises:
        FloatingPointError: A baseline has no fit, or an inner step gives NaN or infinity.
    """
    found, seconds = Exploration([start], [], [], 0.0), 0.0
    for k in range(len(rates) + 1):
        began = time.perf_counter()
        try:
            found.trajectories.append(sample(found.chain[-1], k))
        except FloatingPointError as error:
            where = f"before inner step {k} (counted from 0)" if k < len(rates) else "of the adapted policies"
            raise FloatingPointError(f"{error}; in the episodes {where}") from error
        seconds += time.perf_counter() - began
        try:
            found.batches.append(prepare(found.trajectories[-1]))
        except NoFitError as error:
            raise FloatingPointError(error.naming(rows.called)) from error
        if k < len(rates):
            found.chain.append(adapt_stacked(loss, found.chain[-1], found.batches[-1:], rates[k]))
            _refuse_diverged(found.chain[-1], k, rows)
    return found._replace(sampling_seconds=seconds, rows=rows)


def _refuse_diverged(adapted: Params, k: int, rows: TaskRows) -> None:
    finite = torch.stack([value.isfinite().flatten(1).all(-1) for value in adapted.values()]).all(0)
    if not finite.all():
        raise FloatingPointError(
            f"inner step {k} (counted from 0) takes parameters of {rows.called(int(finite.int().argmin()))} to NaN or "
            "infinity: look for huge rewards, or lower inner.lr"
        )


def adapt_stacked(loss: Loss[Batch], params: Params, batches: Sequence[Batch], lr: Rate) -> Params:
    """The inner loop for all tasks at once, from stacked parameters; no gradient flows through the result.

    The rate is a number, or has a row for each task.
    """

    @torch.no_grad()
    def adapt_slice(rows: slice) -> Params:
        own, data, rates = map_tensors(lambda x: x[rows], (params, list(batches), lr if isinstance(lr, dict) else {}))
        return vmap(lambda p, b, r: adapt(loss, p, b, r or lr))(own, data, rates)

    pieces = side_by_side(adapt_slice, task_slices(batches[0].weights))
    adapted: Params = map_tensors(lambda *parts: torch.cat(parts), *pieces)
    return adapted


def inner_kl(policy: Policy, exploration: Exploration) -> Tensor:
    """KL(before || after adaptation), mean over live steps of the first batch, of each task."""
    first, adapted = exploration.batches[0], exploration.chain[-1]

    @torch.no_grad()
    def kl(rows: slice) -> Tensor:
        params, batch = map_tensors(lambda x: x[rows], (adapted, first))
        after = policy(params, batch.observations)
        mean: Tensor = (batch.behaviour.kl(after) * batch.weights).sum((-2, -1))
        return mean

    return torch.cat(side_by_side(kl, task_slices(first.weights)))


class Terms(NamedTuple):
    """What an outer step looks at: means over each run's tasks, (*runs)."""

    objective: Tensor  # to be raised: surrogate - inner_kl coefficient * inner KL + exploration term
    kl: Tensor  # KL(old || new) of the adapted policies
    inner_kl: Tensor  # KL(old || new) of the policies before each inner step, mean over steps


@dataclass(frozen=True)
class MetaObjective:
    """The outer objective and constraint on fixed data, as functions of theta (the initial parameters).

    For each task, theta is adapted on the pre-adaptation batches; the surrogate mean(ratio * A) and KL(old || new)
    are taken between the adapted policy and the one that sampled the post-adaptation batch, then averaged over tasks.
    Of several runs each has its own, a function of its own theta alone.

    Attributes:
        policy: The policy.
        loss: The inner loss.
        batches: The data of each inner step, then of the adapted policies.
        rates: The inner rates in theta.
        first_order: Treat the inner gradients as constants.
        whole_episodes: The loss couples the steps of an episode: thin the data by episodes, not by steps.
        clip: Clip the ratio of the surrogate to 1 +- this (ProMP, section 6); None for no clipping.
        inner_kl: Coefficient (*runs) of the penalty on the KL of the policies before each inner step (ProMP, section
            6); None computes neither.
        credit: (K,) times mean(exp(log pi - log pi_old)) over the live steps of each inner step is added for each
            task: the E-MAML term, which credits exploration with what adaptation made of it (Stadie et al. 2018).
        runs: The axes of runs that theta has.
        rows: Which tasks these are.
    """

    policy: Policy
    loss: Loss[Batch]
    batches: Sequence[Batch]
    rates: Rates
    first_order: bool = False
    whole_episodes: bool = False
    clip: float | None = None
    inner_kl: Tensor | float | None = None
    credit: Tensor | None = None
    runs: Runs = ()
    rows: TaskRows = ONE_RUN

    def on_part(self, theta: Params, part: Part) -> Terms:
        """The terms summed over the tasks of a part, divided by the number of all of a run's tasks on this rank.

        Theta is of the part's runs.
        """

        def one_task(theta: Params, pre: Sequence[Batch], post: Batch, credit: Tensor) -> Terms:
            (params, lr), inner_kl, explored = self.rates.split(theta), credit.new_zeros(()), credit.new_zeros(())
            for batch in pre:
                if self.inner_kl is not None or self.credit is not None:
                    ratio, kl = before_step(self.policy, params, batch)
                    inner_kl, explored = inner_kl + kl / len(pre), explored + credit * ratio
                params = inner_step(self.loss, params, batch, lr, self.first_order)
            objective, kl = surrogate(self.policy, params, post, self.clip)
            return Terms(objective + explored, kl, inner_kl)

        *pre, post = map_tensors(lambda x: x[part.tasks], list(self.batches))
        credit = post.weights.new_zeros(len(post.weights)) if self.credit is None else self.credit[part.tasks]
        each = vmap(one_task)(stack(theta, len(post.weights), part.runs), pre, post, credit)
        objective, kl, inner_kl = (sum_tasks(term, part.runs) / self._tasks for term in each)
        if self.inner_kl is not None:
            coefficient = torch.as_tensor(self.inner_kl).to(inner_kl).expand(self.runs)[part.of]
            objective = objective - coefficient * inner_kl
        return Terms(objective, kl, inner_kl)

    @property
    def _tasks(self) -> int:
        return len(self.batches[-1].weights) // math.prod(self.runs)

    @property
    def _parts(self) -> list[Part]:
        return parts(self.batches[-1].weights, self.runs)

    def values(self, theta: Params, wanted: Tensor | None = None) -> Terms:
        """Objective, KL and inner KL, means over tasks.

        Args:
            theta: (*runs, ...).
            wanted: (*runs) bool on the CPU: whose values are asked for; those of other runs mean nothing.
        """
        pieces = [part for part in self._parts if wanted is None or wanted[part.of].any()]

        @torch.no_grad()
        def values_part(part: Part) -> Terms:
            return self.on_part(part.own(theta), part)

        found: Terms = distributed.mean(add_up(pieces, side_by_side(values_part, pieces), self.runs), self._tasks)
        return found

    def gradient(self, theta: Params) -> tuple[Tensor, Params]:
        """Objective (*runs) and its gradient in theta, through the inner loop.

        Raises:
            FloatingPointError: The gradient is not finite.
        """

        def gradient_part(part: Part) -> tuple[Tensor, Params]:
            leaves = {name: value.detach().requires_grad_() for name, value in part.own(theta).items()}
            objective = self.on_part(leaves, part).objective
            gradient = torch.autograd.grad(objective.sum(), list(leaves.values()), materialize_grads=True)
            return objective.detach(), dict(zip(leaves, gradient, strict=True))

        def gradient_task(row: int) -> Params:
            return gradient_part(Part(slice(row, row + 1), row // self._tasks if self.runs else ...))[1]

        def of_this_rank() -> tuple[Tensor, Params]:
            pieces = self._parts
            summed: tuple[Tensor, Params] = add_up(pieces, side_by_side(gradient_part, pieces), self.runs)
            check_gradient(summed[1], gradient_task, self._tasks, self.rows, self.runs)
            return summed

        found: tuple[Tensor, Params] = distributed.mean(distributed.agreed(of_this_rank), self._tasks)
        return found
