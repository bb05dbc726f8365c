"""Outer steps: from theta and the data of one meta-iteration to the next theta."""

import dataclasses
import math
from collections.abc import Callable

import torch

from maml_rl import distributed
from maml_rl.ascent import adam_step
from maml_rl.config import Outer
from maml_rl.fisher import every, fisher_vector_product
from maml_rl.meta import Exploration, MetaObjective
from maml_rl.trust_region import conjugate_gradient, line_search
from maml_rl.types import Params, flatten, unflatten

LEAST_INNER_KL = 1e-10
"""The adapted penalty coefficient stops halving here, from where doubling can bring it back."""

Log = dict[str, float]
OuterStep = Callable[[Params, Params, Exploration, MetaObjective, Outer], tuple[Params, Params, Log]]
"""Theta, the optimiser's state (tensors by name; empty at first), data, objective and settings, to the next theta, the
next state and what there is to log."""


def trpo(
    theta: Params, state: Params, exploration: Exploration, objective: MetaObjective, settings: Outer
) -> tuple[Params, Params, Log]:
    """One trust-region step on the meta-objective (Schulman et al. 2015, appendix C; MAML paper, section 5.3).

    Maximises the surrogate g's linear model subject to s'Hs / 2 <= max_kl, H the Hessian of the KL: s = sqrt(2 max_kl
    / x'Hx) x with Hx = g by conjugate gradient; then backtracks until the true surrogate improves and the true KL is
    within max_kl. It has no state.

    Returns:
        The new theta (the given one, unchanged, if the line search refuses every point), the state, and the log.

    Raises:
        FloatingPointError: The meta-gradient or the Fisher-vector product is not finite.
    """
    surrogate, gradient = objective.gradient(theta)
    b = flatten(gradient)
    thinned = [every(batch, settings.fisher_subsample, objective.whole_episodes) for batch in exploration.batches]
    _, lr = objective.rates.split(theta)
    metric = fisher_vector_product(
        objective.policy, objective.loss, exploration.chain, thinned, lr, objective.first_order
    )

    def product(vector: torch.Tensor) -> torch.Tensor:
        return flatten(metric(unflatten(vector, theta))) + settings.damping * vector

    direction = conjugate_gradient(product, b, settings.cg_iterations)
    curvature = float(direction.x.dot(direction.product))
    if not math.isfinite(curvature):
        raise distributed.of_all(FloatingPointError("the Fisher-vector product is NaN or infinite"))
    log = {
        "grad/norm": float(b.norm()),
        "cg/residual": direction.residual,
        "linesearch/accepted": 0.0,
        "linesearch/backtracks": 0.0,
        "kl/outer": 0.0,
        "objective/gain": 0.0,
    }
    if curvature <= 0:
        return theta, state, log
    found = line_search(
        lambda vector: objective.values(unflatten(vector, theta))[:2],
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
        "objective/gain": found.objective - surrogate,
    }
    return (unflatten(found.x, theta) if found.accepted else theta), state, log


def adam(
    theta: Params, state: Params, exploration: Exploration, objective: MetaObjective, settings: Outer
) -> tuple[Params, Params, Log]:
    """One step of Adam up the meta-gradient: MAML with a plain policy gradient outside (MAML-VPG)."""
    return _ascend(theta, state, objective, settings.lr, 1)


def promp(
    theta: Params, state: Params, exploration: Exploration, objective: MetaObjective, settings: Outer
) -> tuple[Params, Params, Log]:
    """Proximal meta-policy search (Rothfuss et al. 2019, section 6).

    Several steps of Adam up the clipped surrogate minus a penalty on KL(old || new) of the policies before each inner
    step. With ``inner_kl_target``, the penalty's coefficient, kept in the state, is halved after an outer step that
    ended below two thirds of the target and doubled after one above three halves of it. Over several inner steps the
    penalty is their mean, with one coefficient.
    """
    coefficient = float(state["inner_kl"]) if "inner_kl" in state else settings.inner_kl
    clipped = dataclasses.replace(objective, clip=settings.clip, inner_kl=coefficient)
    moved, after, log = _ascend(theta, state, clipped, settings.lr, settings.epochs)
    log["inner_kl_coefficient"] = coefficient
    target = settings.inner_kl_target
    if target is not None:
        factor = 0.5 if log["kl/before"] < target / 1.5 else 2.0 if log["kl/before"] > target * 1.5 else 1.0
        after["inner_kl"] = torch.tensor(max(coefficient * factor, LEAST_INNER_KL), dtype=torch.float64)
    return moved, after, log


OUTER: dict[str, OuterStep] = {"trpo": trpo, "promp": promp, "adam": adam}


def _ascend(
    theta: Params, state: Params, objective: MetaObjective, lr: float, epochs: int
) -> tuple[Params, Params, Log]:
    """Steps of Adam on all data, with the moments in ``state``."""
    moved, after, climbed = theta, state, []
    for _ in range(epochs):
        value, gradient = objective.gradient(moved)
        climbed.append((value, float(flatten(gradient).norm())))
        moved, after = adam_step(moved, after, gradient, lr, maximise=True)
    start, norm = climbed[0]
    end, kl, inner_kl = objective.values(moved)
    log = {"grad/norm": norm, "kl/outer": kl, "objective/gain": end - start}
    return moved, after, log if objective.inner_kl is None else log | {"kl/before": inner_kl}
