"""One meta-iteration's data and objective: explore samples and adapts, MetaObjective is a function of theta."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from maml_rl.core.adapt import Loss, Rates, inner_step
from maml_rl.core.task_axis import (
    ONE_RUN,
    Part,
    Runs,
    TaskRows,
    add_up,
    check_gradient,
    mean_over_ranks,
    parts,
    stack,
    sum_tasks,
)
from maml_rl.core.tree import Params, map_tensors
from maml_rl.machine import ranks
from maml_rl.machine.threads import side_by_side
from maml_rl.rl.data import Batch
from maml_rl.rl.losses import before_step, surrogate
from maml_rl.rl.policies import Policy


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

        found: Terms = mean_over_ranks(add_up(pieces, side_by_side(values_part, pieces), self.runs), self._tasks)
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

        found: tuple[Tensor, Params] = mean_over_ranks(ranks.agreed(of_this_rank), self._tasks)
        return found
