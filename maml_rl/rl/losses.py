"""Policy-gradient losses of one task. A batch's weights turn a weighted sum into a mean over live steps.

The inner estimators have the same first gradient, -mean(grad log pi * A), and differ in the second:

| name       | Hessian                                                                     |
|------------|-----------------------------------------------------------------------------|
| "log_prob" | lacks grad log pi grad log pi' A: biased, the MAML paper's code             |
| "lvc"      | exact for one-step episodes, biased for longer, little or much (ProMP)      |
| "dice"     | unbiased, larger variance (Foerster et al. 2018; Farquhar et al. 2019)      |

Unbiased with discount 1: with less, the usual first gradient, of advantages that are not weighed by discount^t, is that
of no value (see maml_rl/checks/exact.py).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.core.adapt import Loss
from maml_rl.core.tree import Params
from maml_rl.rl.data import Batch
from maml_rl.rl.policies import Policy

Estimate = Callable[[Tensor, Tensor, Batch], Tensor]
"""Log probabilities, what they are compared with, and the data, to the loss."""


class Estimator(NamedTuple):
    """A way to write the inner loss."""

    estimate: Estimate
    exact_up_to: float  # steps of the longest episodes for which its Hessian is unbiased
    couples_steps: bool = False  # a step's term depends on other steps of its episode


def _log_ratio(log_probs: Tensor, reference: Tensor, batch: Batch) -> Tensor:
    """Zero after an episode's end, where an overflow would make NaN of a zero weight."""
    return torch.where(batch.weights > 0, log_probs - reference, 0.0)


def log_prob(log_probs: Tensor, reference: Tensor, batch: Batch) -> Tensor:
    """-mean(log pi * A), the MAML paper's equation 4."""
    return -(log_probs * batch.advantages * batch.weights).sum()


def lvc(log_probs: Tensor, reference: Tensor, batch: Batch) -> Tensor:
    """-mean(exp(log pi - reference) * A): low-variance curvature."""
    ratio = _log_ratio(log_probs, reference, batch).exp()
    return -(ratio * batch.advantages * batch.weights).sum()


def dice(log_probs: Tensor, reference: Tensor, batch: Batch) -> Tensor:
    """-mean((box(<=t) - box(<t)) * A_t), box(.) = exp(sum log pi - sum reference): loaded DiCE.

    The difference of boxes keeps the estimate unbiased for advantages that have a baseline taken off.
    """
    own = _log_ratio(log_probs, reference, batch)
    until = own.cumsum(-1)
    return -((until.exp() - (until - own).exp()) * batch.advantages * batch.weights).sum()


ESTIMATORS = {
    "log_prob": Estimator(log_prob, 0),
    "lvc": Estimator(lvc, 1),
    "dice": Estimator(dice, math.inf, couples_steps=True),
}


def inner_loss(policy: Policy, estimator: str, importance_weighted: bool = False) -> Loss[Batch]:
    """Return the inner loop's loss for a policy and the name of an estimator.

    Args:
        policy: The policy.
        estimator: A name in ``ESTIMATORS``.
        importance_weighted: The reference of ratios is the policy that sampled the batch, which weights its data by
            importance where the parameters have moved since (ProMP, section 6), and makes the loss an ordinary function
            with finite differences. Otherwise it is log pi of the very evaluation, stopped. At the parameters that
            sampled, both have the same derivatives. "log_prob" has no ratio: as in the MAML paper's code, it does not
            correct for parameters that have moved.
    """
    estimate = ESTIMATORS[estimator].estimate

    def loss(params: Params, batch: Batch) -> Tensor:
        log_probs = policy(params, batch.observations).log_prob(batch.actions)
        reference = batch.behaviour.log_prob(batch.actions) if importance_weighted else log_probs.detach()
        return estimate(log_probs, reference, batch)

    return loss


def _against_behaviour(policy: Policy, params: Params, batch: Batch) -> tuple[Tensor, Tensor]:
    """Ratio exp(log pi - log pi_old) of each step, and mean KL(old || new) over live steps."""
    new = policy(params, batch.observations)
    ratio = _log_ratio(new.log_prob(batch.actions), batch.behaviour.log_prob(batch.actions), batch).exp()
    return ratio, (batch.behaviour.kl(new) * batch.weights).sum()


def drift(policy: Policy, params: Params, batch: Batch) -> tuple[Tensor, Tensor]:
    """Measure how far a policy is from the one that sampled a task's pre-adaptation batch.

    Returns:
        sum(exp(log pi - log pi_old) - 1), 0 at the old policy where its gradient is that of log p(data), and mean
        KL(old || new), both over live steps.
    """
    ratio, kl = _against_behaviour(policy, params, batch)
    return (ratio - 1).sum(), kl


def surrogate(policy: Policy, params: Params, batch: Batch, clip: float | None = None) -> tuple[Tensor, Tensor]:
    """The outer objective and constraint for one task, against the distribution that sampled the batch.

    Args:
        policy: The policy.
        params: Its parameters.
        batch: The data.
        clip: Take min(r A, clamp(r, 1 - clip, 1 + clip) A) for each ratio r (PPO, equation 7); None for r A.

    Returns:
        mean(r * A) with r = exp(log pi - log pi_old), and mean KL(old || new), both over live steps.
    """
    ratio, kl = _against_behaviour(policy, params, batch)
    gain = ratio * batch.advantages
    if clip is not None:
        gain = torch.minimum(gain, ratio.clamp(1 - clip, 1 + clip) * batch.advantages)
    return (gain * batch.weights).sum(), kl
