"""Finite differences against autograd and the Fisher-vector product, on a user's own environment and policy."""

import dataclasses
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_rl.config.rl import Config
from maml_rl.core.adapt import PREFIX, InnerLoop, descend
from maml_rl.core.tree import Params, flatten, map_tensors, of_one_seed, unflatten
from maml_rl.rl.distributions import Distribution
from maml_rl.rl.explore import adapt, explore
from maml_rl.rl.fisher import fisher_vector_product
from maml_rl.rl.learner import Learner, build
from maml_rl.rl.losses import inner_loss
from maml_rl.rl.method import MetaRL, meta_objective
from maml_rl.rl.objective import MetaObjective
from maml_rl.rl.outer import OUTER

STEPS = (1e-7, 1e-8)
"""Of the finite differences; the closer one counts. At a kink of relu there is no derivative, and a larger step meets
more of them."""

SHIFT = 0.05
"""Standard deviation of what is added to the initial parameters: with zero biases, relu of an observation of zeros is
at its kink."""

MOVE = 0.01
"""Standard deviation of a move from what sampled, to where ProMP's later epochs are and its penalty has a gradient."""

TOLERANCE = 1e-4

SMALL = 1e-4
"""Smaller derivatives are compared as if they were this large: a finite difference has lost their digits."""


class Row(NamedTuple):
    """One comparison along a random direction."""

    quantity: str
    direction: str  # the parameter that moves, or "all"
    computed: float  # what the package computes
    difference: float  # central finite difference
    relative: float  # |computed - difference| over the larger of them, 1e-6 of the whole and 1e-4

    @property
    def agrees(self) -> bool:
        """Within 1e-4."""
        return self.relative <= TOLERANCE


class HeldBatch(NamedTuple):
    """A batch with the gradient of the inner loss on it, held: what first order takes for a constant."""

    observations: Tensor
    actions: Tensor
    advantages: Tensor
    weights: Tensor
    behaviour: Distribution
    gradient: Params


def _held_loss(params: Params, batch: HeldBatch) -> Tensor:
    """A linear function of the parameters, whose gradient is the held one everywhere."""
    return torch.stack([(params[name] * value).sum() for name, value in batch.gradient.items()]).sum()


def _noise(like: Params, seed: int) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(x.shape, generator=generator, dtype=x.dtype) for name, x in like.items()}


def _problem(learner: Learner) -> tuple[Params, MetaObjective]:
    """Theta (1, ...) and the objective in float64, on the episodes of the first iteration."""
    config = learner.config
    draw = MetaRL([learner]).draw(0, [0])
    theta = of_one_seed(learner.initial_params())
    data = explore(learner, theta, draw, [1.0] * config.trained_steps)
    objective = OUTER[config.outer.name].objective(meta_objective(learner, data), config.outer)
    theta, sampled = map_tensors(lambda x: x.double(), [theta, list(data.batches)])
    noise = _noise(theta, seed=1)
    theta = {name: x if name.startswith(PREFIX) else x + SHIFT * noise[name] for name, x in theta.items()}
    params, lr = learner.inner.rates.split(draw.axis.spread(theta))
    params_by_step, batches = [params], []
    for k, batch in enumerate(sampled):
        behaviour = map_tensors(torch.Tensor.detach, learner.policy(params_by_step[-1], batch.observations))
        batches.append(batch._replace(behaviour=behaviour))
        if k < config.trained_steps:
            params_by_step.append(adapt(learner, params_by_step[-1], batches[-1], lr, draw.axis))
    credit = None if objective.credit is None else objective.credit.double()
    return theta, dataclasses.replace(objective, batches=batches, params_by_step=params_by_step, credit=credit)


def _differentiable(objective: MetaObjective, estimator: str, theta: Params) -> MetaObjective:
    """An ordinary function of theta, whose differences say what the objective must have for derivatives.

    Ratios of the inner loss are to the recorded policy; at first order the inner gradients are held at ``theta``.
    """
    loss = inner_loss(objective.policy, estimator, importance_weighted=True)
    inner = dataclasses.replace(objective.inner, loss=loss)
    if not inner.first_order:
        return dataclasses.replace(objective, inner=inner)
    params, lr = inner.rates.split(objective.axis.spread(theta))
    held = []
    *pre, post = objective.batches
    for batch in pre:
        gradient = objective.axis.map(lambda batch, params: torch.func.grad(loss)(params, batch), batch, params)
        held.append(HeldBatch(*batch, gradient))
        params = descend(params, gradient, lr)
    linear: Any = InnerLoop(_held_loss, inner.rates)
    batches: Any = [*held, post]
    return dataclasses.replace(objective, inner=linear, batches=batches)


def check_gradients(config: Config) -> list[Row]:
    """Compare derivatives on the episodes of the first iteration, in float64.

    The objective is the outer step's own: with ProMP's clipping and penalty, and the E-MAML term, if they are on.
    ProMP's is checked a small move away from the policy that sampled, where the penalty has a gradient.

    Args:
        config: What to check; a few ``tasks`` and ``episodes`` are enough.

    Returns:
        For each parameter, and for all at once, the directional derivative of the meta-objective by
        ``MetaObjective.gradient`` and by finite differences of its values; then the same of v'Fv, by the factored
        Fisher-vector product and by finite differences of the KL's gradient.
    """
    with closing(build(config.model_copy(update={"device": "cpu"}))) as learner:
        theta, objective = _problem(learner)
    estimator, moves = config.inner.estimator, OUTER[config.outer.name].importance_weighted
    flat = flatten(theta)
    at = flat + MOVE * flatten(_noise(theta, seed=2)) if moves else flat
    gradient = flatten(objective.gradient(unflatten(at, theta))[1])
    product = fisher_vector_product(
        objective.policy, objective.inner, objective.axis, theta, objective.batches, objective.params_by_step
    )
    climbed = _differentiable(objective, estimator, unflatten(at, theta))
    sampled = _differentiable(objective, estimator, theta)

    def kl_slope(point: Tensor) -> Tensor:
        return flatten(sampled.gradient(unflatten(point, theta), "kl")[1])

    noise = _noise(theta, seed=0)
    directions = {"all": flatten(noise)} | {
        moved: flatten({name: x if name == moved else torch.zeros_like(x) for name, x in noise.items()})
        for moved in theta
    }
    rows = []
    for name, v in directions.items():
        slopes = _differences(lambda x: climbed.values(unflatten(x, theta)).objective[0], at, v)
        rows.append(_row("meta-gradient", name, (gradient * v).sum(), slopes, gradient.norm()))
    for name, v in directions.items():
        image = flatten(product(unflatten(v, theta)))
        slopes = [(v * change).sum() for change in _differences(kl_slope, flat, v)]
        rows.append(_row("Fisher product", name, (v * image).sum(), slopes, v.norm() * image.norm()))
    return rows


def _differences(function: Callable[[Tensor], Tensor], at: Tensor, v: Tensor) -> list[Tensor]:
    return [(function(at + step * v) - function(at - step * v)) / (2 * step) for step in STEPS]


def _row(quantity: str, name: str, computed: Tensor, differences: list[Tensor], whole: Tensor) -> Row:
    difference = min((float(each) for each in differences), key=lambda each: abs(each - float(computed)))
    scale = max(abs(float(computed)), abs(difference), 1e-6 * float(whole), SMALL)
    return Row(quantity, name, float(computed), difference, abs(float(computed) - difference) / scale)
