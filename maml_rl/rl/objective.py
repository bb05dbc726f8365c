"""The meta-objective: what one task gives as a function of theta; its mean and gradient over all tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from maml_rl.core.adapt import InnerLoop
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params
from maml_rl.rl.data import Batch
from maml_rl.rl.losses import drift, surrogate
from maml_rl.rl.policies import Policy


class Terms(NamedTuple):
    """Numbers that an outer step looks at: of one task, or means over each seed's tasks, (S,)."""

    objective: Tensor  # to be raised: surrogate - inner_kl coefficient * inner KL + exploration term
    kl: Tensor  # KL(old || new) of the adapted policy
    inner_kl: Tensor  # KL(old || new) of the policies before each inner step, mean over steps


class Weights(NamedTuple):
    """Weights of the objective's other terms: of one task, or (K S,)."""

    credit: Tensor  # of its exploration
    penalty: Tensor  # of its inner KL


@dataclass(frozen=True)
class MetaObjective:
    """The outer objective and constraint on fixed data, as functions of theta (the initial parameters, (S, ...)).

    For each task, theta is adapted on the pre-adaptation batches; the surrogate mean(ratio * A) and KL(old || new)
    are taken between the adapted policy and the one that sampled the post-adaptation batch, then averaged over tasks.

    Attributes:
        policy: The policy.
        inner: The inner loop.
        axis: Which tasks the data is of.
        batches: The data of each inner step, then of the adapted policies.
        params_by_step: Stacked parameters that sampled each batch.
        couples_steps: The inner loss couples the steps of an episode: thin the data by episodes, not by steps.
        clip: Clip the ratio of the surrogate to 1 +- this (ProMP, section 6); None for no clipping.
        inner_kl: Coefficient (S,) of the penalty on the KL of the policies before each inner step (ProMP, section 6);
            None computes none.
        credit: (K S,) times sum(exp(log pi - log pi_old) - 1) over the live steps of each inner step is added for each
            task: the E-MAML term, which credits exploration with what adaptation made of it (Stadie et al. 2018).
    """

    policy: Policy
    inner: InnerLoop[Batch]
    axis: TaskAxis
    batches: Sequence[Batch]
    params_by_step: Sequence[Params]
    couples_steps: bool = False
    clip: float | None = None
    inner_kl: Tensor | None = None
    credit: Tensor | None = None

    def of_task(self, theta: Params, batches: Sequence[Batch], weights: Weights) -> Terms:
        """Return one task's terms: adapt on every batch but the last, judge on it (MAML paper, algorithm 3)."""
        *pre, post = batches
        params, lr = self.inner.rates.split(theta)
        kl = explored = post.weights.new_zeros(())
        for batch in pre:
            if self.inner_kl is not None or self.credit is not None:
                moved, step_kl = drift(self.policy, params, batch)
                kl, explored = kl + step_kl / len(pre), explored + weights.credit * moved
            params = self.inner.step(params, batch, lr)
        gain, post_kl = surrogate(self.policy, params, post, self.clip)
        return Terms(gain + explored - weights.penalty * kl, post_kl, kl)

    def values(self, theta: Params) -> Terms:
        """Means over each seed's tasks, (S,)."""
        terms: Terms = self.axis.mean(self.of_task, theta, list(self.batches), self.weights())
        return terms

    def gradient(self, theta: Params, term: str = "objective") -> tuple[Tensor, Params]:
        """Objective (S,), or another term, and its gradient in theta, through the inner loop.

        Raises:
            FloatingPointError: It is not finite.
        """

        def of_task(theta: Params, batches: Sequence[Batch], weights: Weights) -> Tensor:
            value: Tensor = getattr(self.of_task(theta, batches, weights), term)
            return value

        return self.axis.value_and_grad(of_task, theta, list(self.batches), self.weights(), value=f"the {term}")

    def weights(self) -> Weights:
        """Return the weights of each task's other terms, (K S,)."""
        nothing = self.batches[-1].weights.new_zeros(len(self.batches[-1].weights))
        penalty = None if self.inner_kl is None else self.inner_kl.to(nothing).repeat_interleave(self.axis.tasks)
        return Weights(nothing if self.credit is None else self.credit, nothing if penalty is None else penalty)
