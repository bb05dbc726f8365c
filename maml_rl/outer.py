"""Outer steps: from theta and the data of one meta-iteration to the next theta."""

import math

import torch

from maml_rl.config import Outer
from maml_rl.fisher import every, fisher_vector_product
from maml_rl.meta import Exploration, MetaObjective
from maml_rl.trust_region import conjugate_gradient, line_search
from maml_rl.types import Params, flatten, unflatten


def trpo(
    theta: Params, exploration: Exploration, objective: MetaObjective, settings: Outer
) -> tuple[Params, dict[str, float]]:
    """One trust-region step on the meta-objective (Schulman et al. 2015, appendix C; MAML paper, section 5.3).

    Maximises the surrogate g's linear model subject to s'Hs / 2 <= max_kl, H the Hessian of the KL: s = sqrt(2 max_kl
    / x'Hx) x with Hx = g by conjugate gradient; then backtracks until the true surrogate improves and the true KL is
    within max_kl.

    Returns:
        The new theta (the given one, unchanged, if the line search refuses every point) and what there is to log.

    Raises:
        FloatingPointError: The meta-gradient or the Fisher-vector product is not finite.
    """
    surrogate, gradient = objective.gradient(theta)
    b = flatten(gradient)
    if not bool(b.isfinite().all()):
        where = [name for name, value in gradient.items() if not bool(value.isfinite().all())]
        raise FloatingPointError(f"the meta-gradient of {', '.join(where)} is NaN or infinite")
    thinned = [every(batch, settings.fisher_subsample, objective.whole_episodes) for batch in exploration.batches]
    metric = fisher_vector_product(
        objective.policy, objective.loss, exploration.chain, thinned, objective.lr, objective.first_order
    )

    def product(vector: torch.Tensor) -> torch.Tensor:
        return flatten(metric(unflatten(vector, theta))) + settings.damping * vector

    direction = conjugate_gradient(product, b, settings.cg_iterations)
    curvature = float(direction.x.dot(direction.product))
    if not math.isfinite(curvature):
        raise FloatingPointError("the Fisher-vector product is NaN or infinite")
    log = {"grad/norm": float(b.norm()), "cg/residual": direction.residual}
    if curvature <= 0:
        return theta, log | {
            "linesearch/accepted": 0.0,
            "linesearch/backtracks": 0.0,
            "kl/outer": 0.0,
            "surrogate/gain": 0.0,
        }
    found = line_search(
        lambda vector: objective.values(unflatten(vector, theta)),
        flatten(theta),
        surrogate,
        (2 * settings.max_kl / curvature) ** 0.5 * direction.x,
        settings.max_kl,
        settings.backtrack_ratio,
        settings.backtracks,
    )
    log |= {
        "linesearch/accepted": float(found.accepted),
        "linesearch/backtracks": float(found.backtracks),
        "kl/outer": found.constraint,
        "surrogate/gain": found.objective - surrogate,
    }
    return (unflatten(found.x, theta) if found.accepted else theta), log
