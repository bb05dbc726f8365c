"""Finite differences against autograd and the Fisher-vector product, on a user's own environment and policy."""

import dataclasses
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from maml_rl.config.rl import Config
from maml_rl.core.adapt import PREFIX, descend
from maml_rl.core.task_axis import Part, stack
from maml_rl.core.tree import Params, Rate, flatten, map_tensors, unflatten
from maml_rl.rl.data import Batch
from maml_rl.rl.explore import adapt_stacked
from maml_rl.rl.fisher import fisher_vector_product
from maml_rl.rl.learner import Learner, build
from maml_rl.rl.losses import before_step, inner_loss, surrogate
from maml_rl.rl.objective import MetaObjective

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


class Fixed(NamedTuple):
    """The problem in float64, with its data held."""

    theta: Params
    lr: Rate
    chain: list[Params]
    objective: MetaObjective


def _noise(like: Params, seed: int) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(x.shape, generator=generator, dtype=x.dtype) for name, x in like.items()}


def _fix(learner: Learner) -> Fixed:
    config = learner.config
    theta = learner.initial_params()
    exploration = learner.explore_training(theta, 0)
    objective = learner.objective(exploration)
    if config.outer.name == "promp":
        objective = dataclasses.replace(objective, clip=config.outer.clip, inner_kl=config.outer.inner_kl)
    # Ratios to the recorded policy are ordinary functions of theta, whose differences say what the loss that is
    # trained with must have for derivatives.
    loss = inner_loss(learner.policy, config.inner.estimator, recorded=True)
    theta, given = map_tensors(lambda x: x.double(), [theta, list(exploration.batches)])
    noise = _noise(theta, seed=1)
    theta = {name: x if name.startswith(PREFIX) else x + SHIFT * noise[name] for name, x in theta.items()}
    params, lr = learner.rates.split(theta)
    chain, batches = [stack(params, config.tasks)], []
    for k, batch in enumerate(given):
        behaviour = map_tensors(torch.Tensor.detach, learner.policy(chain[-1], batch.observations))
        batches.append(batch._replace(behaviour=behaviour))
        if k < config.trained_steps:
            rates = stack(lr, config.tasks) if isinstance(lr, dict) else lr
            chain.append(adapt_stacked(loss, chain[-1], batches[-1:], rates))
    return Fixed(theta, lr, chain, dataclasses.replace(objective, loss=loss, batches=batches))


def _terms(fixed: Fixed, at: Tensor) -> Callable[[Tensor], Tensor]:
    """Objective and KL, (2,), near ``at`` as functions of a flat theta; first order holds the inner gradients there."""
    theta, objective = fixed.theta, fixed.objective
    if not objective.first_order:
        return lambda flat: torch.stack(objective.on_part(unflatten(flat, theta), Part(slice(None)))[:2])
    policy, (*pre, post) = objective.policy, objective.batches
    start, rate = objective.rates.split(unflatten(at, theta))
    params, gradients = stack(start, len(post.weights)), []
    for batch in pre:
        gradients.append(vmap(torch.func.grad(objective.loss))(params, batch))
        params = descend(params, gradients[-1], rate)
    credit = post.weights.new_zeros(len(post.weights)) if objective.credit is None else objective.credit

    def held(flat: Tensor) -> Tensor:
        start, rate = objective.rates.split(unflatten(flat, theta))

        def one(pre: list[Batch], gradients: list[Params], post: Batch, credit: Tensor) -> tuple[Tensor, Tensor]:
            params, added = start, credit.new_zeros(())
            for batch, gradient in zip(pre, gradients, strict=True):
                ratio, kl = before_step(policy, params, batch)
                added = added + credit * ratio - (objective.inner_kl or 0.0) * kl / len(pre)
                params = descend(params, gradient, rate)
            gain, kl = surrogate(policy, params, post, objective.clip)
            return gain + added, kl

        return torch.stack([term.mean() for term in vmap(one)(pre, gradients, post, credit)])

    return held


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
        fixed = _fix(learner)
    theta, lr, chain, objective = fixed
    flat = flatten(theta)
    at = flat + MOVE * flatten(_noise(theta, seed=2)) if config.outer.name == "promp" else flat
    trained = dataclasses.replace(objective, loss=learner.loss)
    gradient = flatten(trained.gradient(unflatten(at, theta))[1])
    product = fisher_vector_product(trained.policy, trained.loss, chain, trained.batches, lr, trained.first_order)
    terms, sampled = _terms(fixed, at), _terms(fixed, flat)

    def kl_slope(point: Tensor) -> Tensor:
        slope: Tensor = torch.autograd.functional.jacobian(lambda x: sampled(x)[1], point)
        return slope

    noise = _noise(theta, seed=0)
    directions = {"all": flatten(noise)} | {
        moved: flatten({name: x if name == moved else torch.zeros_like(x) for name, x in noise.items()})
        for moved in theta
    }
    rows = []
    for name, v in directions.items():
        found = _differences(lambda x: terms(x)[0].detach(), at, v)
        rows.append(_row("meta-gradient", name, gradient.dot(v), found, gradient.norm()))
    for name, v in directions.items():
        image = flatten(product(unflatten(v, theta)))
        found = [v.dot(change) for change in _differences(kl_slope, flat, v)]
        rows.append(_row("Fisher product", name, v.dot(image), found, v.norm() * image.norm()))
    return rows


def _differences(function: Callable[[Tensor], Tensor], at: Tensor, v: Tensor) -> list[Tensor]:
    return [(function(at + step * v) - function(at - step * v)) / (2 * step) for step in STEPS]


def _row(quantity: str, name: str, computed: Tensor, differences: list[Tensor], whole: Tensor) -> Row:
    difference = min((float(each) for each in differences), key=lambda each: abs(each - float(computed)))
    scale = max(abs(float(computed)), abs(difference), 1e-6 * float(whole), SMALL)
    return Row(quantity, name, float(computed), difference, abs(float(computed) - difference) / scale)
