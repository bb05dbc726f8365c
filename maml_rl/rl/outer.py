"""Outer steps: from theta and the data of one meta-iteration to the next theta, for several runs side by side.

Everything that a run has of its own has the objective's axes of runs, ``objective.runs``: theta, the optimiser's state,
and the log. Runs do not see each other's numbers: each takes the step that it would take alone.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from maml_rl.config.rl import Outer
from maml_rl.core.adam import adam_step
from maml_rl.core.tree import Params, flatten, unflatten
from maml_rl.core.trust_region import conjugate_gradient, dot, line_search
from maml_rl.machine import ranks
from maml_rl.rl.data import every
from maml_rl.rl.explore import Exploration
from maml_rl.rl.fisher import fisher_vector_product
from maml_rl.rl.objective import MetaObjective

LEAST_INNER_KL = 1e-10
"""The adapted penalty coefficient stops halving here, from where doubling can bring it back."""

Measures = dict[str, Tensor]
"""What there is to log, (*runs) each."""

OuterStep = Callable[[Params, Params, Exploration, MetaObjective, Outer], tuple[Params, Params, Measures]]
"""Theta, the optimiser's state (tensors by name; empty at first), data, objective and settings, to the next theta, the
next state and what there is to log."""


def trpo(
    theta: Params, state: Params, exploration: Exploration, objective: MetaObjective, settings: Outer
) -> tuple[Params, Params, Measures]:
    """One trust-region step on the meta-objective (Schulman et al. 2015, appendix C; MAML paper, section 5.3).

    Maximises the surrogate g's linear model subject to s'Hs / 2 <= max_kl, H the Hessian of the KL: s = sqrt(2 max_kl
    / x'Hx) x with Hx = g by conjugate gradient; then backtracks until the true surrogate improves and the true KL is
    within max_kl. It has no state.

    Returns:
        The new theta (a run's given one, unchanged, if its line search refuses every point), the state, and the log.

    Raises:
        FloatingPointError: The meta-gradient or the Fisher-vector product is not finite.
    """
    surrogate, gradient = objective.gradient(theta)
    b = flatten(gradient, objective.runs)
    thinned = [every(batch, settings.fisher_subsample, objective.whole_episodes) for batch in exploration.batches]
    _, lr = objective.rates.split(theta)
    metric = fisher_vector_product(
        objective.policy, objective.loss, exploration.chain, thinned, lr, objective.first_order, objective.runs
    )

    def product(vector: Tensor) -> Tensor:
        return flatten(metric(unflatten(vector, theta)), objective.runs) + settings.damping * vector

    def values(vector: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        found = objective.values(unflatten(vector, theta), wanted)
        return found.objective, found.kl

    direction = conjugate_gradient(product, b, settings.cg_iterations)
    curvature = dot(direction.x, direction.product)
    bad = curvature.isfinite().logical_not().reshape(-1)
    if bad.any():
        whose = objective.rows.of_run(int(bad.int().argmax()))
        raise ranks.of_all(FloatingPointError(f"the Fisher-vector product{whose} is NaN or infinite"))
    size = torch.where(curvature > 0, (2 * settings.max_kl / curvature).sqrt(), 0.0).unsqueeze(-1)
    before = surrogate.cpu()
    found = line_search(
        values,
        flatten(theta, objective.runs),
        before,
        size * direction.x,
        settings.max_kl,
        settings.backtrack_ratio,
        settings.backtracks,
    )
    log = {
        "grad/norm": b.norm(dim=-1),
        "cg/residual": direction.residual,
        "linesearch/accepted": found.accepted,
        "linesearch/backtracks": found.backtracks,
        "kl/outer": found.constraint,
        "objective/gain": found.objective - before,
    }
    return (unflatten(found.x, theta) if found.accepted.any() else theta), state, log


def adam(
    theta: Params, state: Params, exploration: Exploration, objective: MetaObjective, settings: Outer
) -> tuple[Params, Params, Measures]:
    """One step of Adam up the meta-gradient: MAML with a plain policy gradient outside (MAML-VPG)."""
    return _ascend(theta, state, objective, settings.lr, 1)


def promp(
    theta: Params, state: Params, exploration: Exploration, objective: MetaObjective, settings: Outer
) -> tuple[Params, Params, Measures]:
    """Proximal meta-policy search (Rothfuss et al. 2019, section 6).

    Several steps of Adam up the clipped surrogate minus a penalty on KL(old || new) of the policies before each inner
    step. With ``inner_kl_target``, the penalty's coefficient, kept in the state, is halved after an outer step that
    ended below two thirds of the target and doubled after one above three halves of it. Over several inner steps the
    penalty is their mean, with one coefficient.
    """
    weights = objective.batches[-1].weights
    first = torch.full(objective.runs, settings.inner_kl, dtype=torch.float64, device=weights.device)
    coefficient = state.get("inner_kl", first)
    clipped = dataclasses.replace(objective, clip=settings.clip, inner_kl=coefficient)
    moved, after, log = _ascend(theta, state, clipped, settings.lr, settings.epochs)
    log["inner_kl_coefficient"] = coefficient
    target = settings.inner_kl_target
    if target is not None:
        far, near = log["kl/before"] > target * 1.5, log["kl/before"] < target / 1.5
        factor = torch.where(far, 2.0, torch.where(near, 0.5, 1.0)).to(coefficient)
        after["inner_kl"] = (coefficient * factor).clamp(min=LEAST_INNER_KL)
    return moved, after, log


OUTER: dict[str, OuterStep] = {"trpo": trpo, "promp": promp, "adam": adam}


def _ascend(
    theta: Params, state: Params, objective: MetaObjective, lr: float, epochs: int
) -> tuple[Params, Params, Measures]:
    """Steps of Adam on all data, with the moments in ``state``."""
    moved, after, climbed = theta, state, []
    for _ in range(epochs):
        value, gradient = objective.gradient(moved)
        climbed.append((value, flatten(gradient, objective.runs).norm(dim=-1)))
        moved, after = adam_step(moved, after, gradient, lr, maximise=True, runs=objective.runs)
    start, norm = climbed[0]
    end, kl, inner_kl = objective.values(moved)
    log = {"grad/norm": norm, "kl/outer": kl, "objective/gain": end - start}
    return moved, after, log if objective.inner_kl is None else log | {"kl/before": inner_kl}
