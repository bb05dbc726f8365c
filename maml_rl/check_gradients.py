"""Finite differences against autograd and the Fisher-vector product, on a user's own environment and policy."""

import dataclasses
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from envs import InputError
from maml_rl.adapt import descend
from maml_rl.config import Config
from maml_rl.fisher import fisher_vector_product
from maml_rl.learner import Learner, build
from maml_rl.losses import inner_loss, surrogate
from maml_rl.meta import MetaObjective, adapt_stacked
from maml_rl.rates import PREFIX
from maml_rl.types import Batch, Params, Rate, flatten, map_tensors, stack, unflatten

STEPS = (1e-7, 1e-8)
"""Of the finite differences; the closer one counts. At a kink of relu there is no derivative, and a larger step meets
more of them."""

SHIFT = 0.05
"""Standard deviation of what is added to the initial parameters: with zero biases, relu of an observation of zeros is
at its kink."""

TOLERANCE = 1e-4


class Row(NamedTuple):
    """One comparison along a random direction."""

    quantity: str
    direction: str  # the parameter that moves, or "all"
    computed: float  # what the package computes
    difference: float  # central finite difference
    relative: float  # |computed - difference| over the larger of them and 1e-6 of the whole

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


def _fix(learner: Learner) -> Fixed:
    config = learner.config
    theta = learner.initial_params()
    exploration = learner.explore_training(theta, 0)
    # Ratios to the recorded policy are ordinary functions of theta, and have the same derivatives here.
    loss = inner_loss(learner.policy, config.inner.estimator, recorded=True)
    theta, given = map_tensors(lambda x: x.double(), [theta, list(exploration.batches)])
    generator = torch.Generator().manual_seed(1)
    theta = {
        name: x if name.startswith(PREFIX) else x + SHIFT * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        for name, x in theta.items()
    }
    params, lr = learner.rates.split(theta)
    chain, batches = [stack(params, config.tasks)], []
    for k, batch in enumerate(given):
        behaviour = map_tensors(torch.Tensor.detach, learner.policy(chain[-1], batch.observations))
        batches.append(batch._replace(behaviour=behaviour))
        if k < config.inner.steps:
            chain.append(adapt_stacked(loss, chain[-1], batches[-1:], lr))
    objective = dataclasses.replace(learner.objective(exploration), loss=loss, batches=batches, credit=None)
    return Fixed(theta, lr, chain, objective)


def _terms(fixed: Fixed) -> Callable[[Tensor], Tensor]:
    """Surrogate and KL, (2,), as functions of a flat theta; at first order with the inner gradients held."""
    theta, _, chain, objective = fixed
    if not objective.first_order:
        return lambda flat: torch.stack(objective.on_slice(unflatten(flat, theta), slice(None))[:2])

    def held(flat: Tensor) -> Tensor:
        start, rate = objective.rates.split(unflatten(flat, theta))
        params = stack(start, len(chain[0]["0.weight"]))
        for before, batch in zip(chain[:-1], objective.batches[:-1], strict=True):
            gradient = vmap(torch.func.grad(objective.loss))(before, batch)
            params = descend(params, gradient, rate)

        def one(own: Params, batch: Batch) -> tuple[Tensor, Tensor]:
            return surrogate(objective.policy, own, batch)

        return torch.stack([term.mean() for term in vmap(one)(params, objective.batches[-1])])

    return held


def check_gradients(config: Config, tasks: int = 2, episodes: int = 4) -> list[Row]:
    """Compare derivatives on a few episodes of the first iteration, in float64.

    Args:
        config: What to check.
        tasks: Tasks to sample.
        episodes: Episodes for each task and step.

    Returns:
        For each parameter, and for all at once, the directional derivative of the meta-objective by
        ``MetaObjective.gradient`` and by finite differences of its values; then the same of v'Fv, by the factored
        Fisher-vector product and by finite differences of the KL's gradient.

    Raises:
        InputError: Fewer than one task or episode.
    """
    if tasks < 1 or episodes < 1:
        raise InputError(f"{tasks} tasks, {episodes} episodes: sample at least one of each")
    small = config.model_copy(update={"tasks": tasks, "episodes": episodes, "device": "cpu"})
    with closing(build(small)) as learner:
        fixed = _fix(learner)
        theta, lr, chain, objective = fixed
        flat, terms = flatten(theta), _terms(fixed)
        gradient = flatten(objective.gradient(theta)[1])
        product = fisher_vector_product(
            objective.policy, objective.loss, chain, objective.batches, lr, objective.first_order
        )

        def kl_slope(at: Tensor) -> Tensor:
            slope: Tensor = torch.autograd.functional.jacobian(lambda x: terms(x)[1], at)
            return slope

        def differences(function: Callable[[Tensor], Tensor], v: Tensor) -> list[Tensor]:
            return [(function(flat + step * v) - function(flat - step * v)) / (2 * step) for step in STEPS]

        generator = torch.Generator().manual_seed(0)
        noise = {name: torch.randn(x.shape, generator=generator, dtype=x.dtype) for name, x in theta.items()}
        directions = {"all": flatten(noise)} | {
            moved: flatten({name: x if name == moved else torch.zeros_like(x) for name, x in noise.items()})
            for moved in theta
        }
        rows = []
        for name, v in directions.items():
            found = differences(lambda at: terms(at)[0].detach(), v)
            rows.append(_row("meta-gradient", name, gradient.dot(v), found, gradient.norm()))
        for name, v in directions.items():
            image = flatten(product(unflatten(v, theta)))
            found = [v.dot(change) for change in differences(kl_slope, v)]
            rows.append(_row("Fisher product", name, v.dot(image), found, v.norm() * image.norm()))
        return rows


def _row(quantity: str, name: str, computed: Tensor, differences: list[Tensor], whole: Tensor) -> Row:
    difference = min((float(each) for each in differences), key=lambda each: abs(each - float(computed)))
    scale = max(abs(float(computed)), abs(difference), 1e-6 * float(whole), 1e-12)
    return Row(quantity, name, float(computed), difference, abs(float(computed) - difference) / scale)
