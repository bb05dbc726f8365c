"""Policy-gradient losses of one task. A batch's weights turn a weighted sum into a mean over live steps.

The inner estimators have the same first gradient, -mean(grad log pi * A), and differ in the second:

| name       | Hessian                                                                     |
|------------|-----------------------------------------------------------------------------|
| "log_prob" | lacks grad log pi grad log pi' A: biased, the MAML paper's code             |
| "lvc"      | exact for one-step episodes, slightly biased for longer (ProMP, section 5)  |
| "dice"     | unbiased, larger variance (Foerster et al. 2018; Farquhar et al. 2019)      |
"""

from collections.abc import Callable

from torch import Tensor

from maml_rl.adapt import Loss
from maml_rl.policies import GaussianPolicy
from maml_rl.types import Batch, Params

Estimator = Callable[[Tensor, Batch], Tensor]


def log_prob(log_probs: Tensor, batch: Batch) -> Tensor:
    """-mean(log pi * A), the MAML paper's equation 4."""
    return -(log_probs * batch.advantages * batch.weights).sum()


def lvc(log_probs: Tensor, batch: Batch) -> Tensor:
    """-mean(exp(log pi - stop(log pi)) * A): low-variance curvature. Stops log pi of this very evaluation."""
    ratio = (log_probs - log_probs.detach()).exp()
    return -(ratio * batch.advantages * batch.weights).sum()


def dice(log_probs: Tensor, batch: Batch) -> Tensor:
    """-mean((box(<=t) - box(<t)) * A_t), box(.) = exp(sum log pi - stop(sum log pi)): loaded DiCE.

    The difference of boxes keeps the estimate unbiased for advantages that have a baseline taken off.
    """
    live = log_probs * (batch.weights > 0)
    until = live.cumsum(-1)
    before = until - live
    boxes = (until - until.detach()).exp() - (before - before.detach()).exp()
    return -(boxes * batch.advantages * batch.weights).sum()


ESTIMATORS: dict[str, Estimator] = {"log_prob": log_prob, "lvc": lvc, "dice": dice}


def inner_loss(policy: GaussianPolicy, estimator: str) -> Loss[Batch]:
    """The inner loop's loss for a policy and the name of an estimator."""
    estimate = ESTIMATORS[estimator]

    def loss(params: Params, batch: Batch) -> Tensor:
        return estimate(policy(params, batch.observations).log_prob(batch.actions), batch)

    return loss


def surrogate(policy: GaussianPolicy, params: Params, batch: Batch) -> tuple[Tensor, Tensor]:
    """The trust region's objective and constraint for one task, against the distribution that sampled the batch.

    Returns:
        mean(exp(log pi - log pi_old) * A) and mean KL(old || new), both over live steps.
    """
    new = policy(params, batch.observations)
    ratio = (new.log_prob(batch.actions) - batch.behaviour.log_prob(batch.actions)).exp()
    return (ratio * batch.advantages * batch.weights).sum(), (batch.behaviour.kl(new) * batch.weights).sum()
