"""Outer steps: from theta and the data of one meta-iteration to the next theta.

What a seed has of its own, theta, the optimiser's state and the metrics, has a leading axis of seeds, (S, ...), and no
seed sees the numbers of another: each takes the step that it would take alone.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.config.rl import Outer
from maml_rl.core.adam import adam_step
from maml_rl.core.tree import Params, flatten, unflatten
from maml_rl.core.trust_region import conjugate_gradient, dot, line_search
from maml_rl.rl.data import every_episode, every_step
from maml_rl.rl.fisher import fisher_vector_product
from maml_rl.rl.objective import MetaObjective

LEAST_INNER_KL = 1e-10
"""The adapted penalty coefficient stops halving here, from where doubling can bring it back."""

Metrics = dict[str, Tensor]
"""Numbers to log, (S,) each."""


def trpo(theta: Params, state: Params, objective: MetaObjective, settings: Outer) -> tuple[Params, Params, Metrics]:
    """Take a trust-region step on the meta-objective (Schulman et al. 2015, appendix C; MAML paper, section 5.3).

    Maximises the surrogate g's linear model subject to s'Hs / 2 <= max_kl, H the Hessian of the KL: s = sqrt(2 max_kl
    / x'Hx) x with Hx = g by conjugate gradient; then backtracks until the true surrogate improves and the true KL is
    within max_kl. It has no state.

    Returns:
        The new theta (a seed's given one, unchanged, if its line search refuses every point), the state, the metrics.

    Raises:
        FloatingPointError: The meta-gradient or the Fisher-vector product is not finite.
    """
    surrogate, gradient = objective.gradient(theta)
    slope = flatten(gradient)
    direction = conjugate_gradient(_curvature(theta, objective, settings), slope, settings.cg_iterations)
    curvature = dot(direction.x, direction.product)
    objective.axis.refuse(~curvature.isfinite(), "the Fisher-vector product")
    size = torch.where(curvature > 0, (2 * settings.max_kl / curvature).sqrt(), 0.0).unsqueeze(-1)

    def values(vector: Tensor) -> tuple[Tensor, Tensor]:
        terms = objective.values(unflatten(vector, theta))
        return terms.objective, terms.kl

    before = surrogate.cpu()
    search = line_search(
        values,
        flatten(theta),
        before,
        size * direction.x,
        settings.max_kl,
        settings.backtrack_ratio,
        settings.backtracks,
    )
    metrics = {
        "grad/norm": slope.norm(dim=-1),
        "cg/residual": direction.residual,
        "linesearch/accepted": search.accepted,
        "linesearch/backtracks": search.backtracks,
        "kl/outer": search.constraint,
        "objective/gain": search.objective - before,
    }
    return (unflatten(search.x, theta) if search.accepted.any() else theta), state, metrics


def _curvature(theta: Params, objective: MetaObjective, settings: Outer) -> Callable[[Tensor], Tensor]:
    """Build v -> (H + damping I) v for vectors (S, n), H the Hessian of the KL on a part of the data."""
    keep = every_episode if objective.couples_steps else every_step
    stride = settings.fisher_subsample
    thinned = [keep(batch, stride) if stride > 1 else batch for batch in objective.batches]
    hessian = fisher_vector_product(
        objective.policy, objective.inner, objective.axis, theta, thinned, objective.params_by_step
    )
    return lambda vector: flatten(hessian(unflatten(vector, theta))) + settings.damping * vector


def adam(theta: Params, state: Params, objective: MetaObjective, settings: Outer) -> tuple[Params, Params, Metrics]:
    """Take a step of Adam up the meta-gradient: MAML with a plain policy gradient outside (MAML-VPG)."""
    return _ascend(theta, state, objective, settings.lr, 1)


def promp(theta: Params, state: Params, objective: MetaObjective, settings: Outer) -> tuple[Params, Params, Metrics]:
    """Take a step of proximal meta-policy search (Rothfuss et al. 2019, section 6).

    Several steps of Adam up the clipped surrogate minus a penalty on KL(old || new) of the policies before each inner
    step. With ``inner_kl_target``, the penalty's coefficient, kept in the state, is halved after an outer step that
    ended below two thirds of the target and doubled after one above three halves of it. Over several inner steps the
    penalty is their mean, with one coefficient.
    """
    assert objective.inner_kl is not None, "ProMP climbs what ``penalised`` makes"
    coefficient = state.get("inner_kl", objective.inner_kl)
    climbed = dataclasses.replace(objective, inner_kl=coefficient)
    moved, after, metrics = _ascend(theta, state, climbed, settings.lr, settings.epochs)
    metrics["inner_kl_coefficient"] = coefficient
    target = settings.inner_kl_target
    if target is not None:
        far, near = metrics["kl/before"] > target * 1.5, metrics["kl/before"] < target / 1.5
        factor = torch.where(far, 2.0, torch.where(near, 0.5, 1.0)).to(coefficient)
        after["inner_kl"] = (coefficient * factor).clamp(min=LEAST_INNER_KL)
    return moved, after, metrics


def penalised(objective: MetaObjective, settings: Outer) -> MetaObjective:
    """Return ProMP's objective: clipped, and with a penalty on the KL of the policies before each inner step."""
    weights, seeds = objective.batches[-1].weights, len(objective.axis.names)
    coefficient = torch.full((seeds,), settings.inner_kl, dtype=torch.float64, device=weights.device)
    return dataclasses.replace(objective, clip=settings.clip, inner_kl=coefficient)


class OuterStep(NamedTuple):
    """An outer step, and what it asks of the inner loop.

    Attributes:
        step: Theta, the optimiser's state (tensors by name; empty at first), its objective and settings, to the next
            theta, the next state and the metrics.
        objective: Makes its objective of the plain one.
        importance_weighted: It moves theta several times on the same data: the ratios of inner losses are to the policy
            that sampled (ProMP, section 6).
    """

    step: Callable[[Params, Params, MetaObjective, Outer], tuple[Params, Params, Metrics]]
    objective: Callable[[MetaObjective, Outer], MetaObjective] = lambda objective, settings: objective
    importance_weighted: bool = False


OUTER = {
    "trpo": OuterStep(trpo),
    "promp": OuterStep(promp, penalised, importance_weighted=True),
    "adam": OuterStep(adam),
}


def _ascend(
    theta: Params, state: Params, objective: MetaObjective, lr: float, epochs: int
) -> tuple[Params, Params, Metrics]:
    """Take steps of Adam on all data, with the moments in ``state``."""
    moved, after, climbed = theta, state, []
    for _ in range(epochs):
        value, gradient = objective.gradient(moved)
        climbed.append((value, flatten(gradient).norm(dim=-1)))
        moved, after = adam_step(moved, after, gradient, lr, maximise=True)
    start, norm = climbed[0]
    end = objective.values(moved)
    metrics = {"grad/norm": norm, "kl/outer": end.kl, "objective/gain": end.objective - start}
    return moved, after, metrics if objective.inner_kl is None else metrics | {"kl/before": end.inner_kl}
