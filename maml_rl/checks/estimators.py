"""Every estimator of the meta-gradient against the exact one, on random Markov decision processes."""

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from maml_envs import InputError, random
from maml_envs.tabular_mdp import TabularMDP
from maml_rl.checks import exact
from maml_rl.checks.exact import Problem
from maml_rl.config.rl import Baseline, Config
from maml_rl.core.adapt import InnerLoop, Rates
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params, flatten, of_one_seed
from maml_rl.rl.advantages import to_batch
from maml_rl.rl.data import Batch
from maml_rl.rl.losses import ESTIMATORS, inner_loss
from maml_rl.rl.policies import CategoricalPolicy
from maml_rl.rl.rollout import Sampler

CHOICES = (*ESTIMATORS, "first_order")
"""The rows of the table."""


LARGEST_ALLOWED = 0.3
"""Samples that may be further than this from where they should be show little."""

CURVED_EPISODES = 20
"""A gradient of n episodes may be off by this over n, in units of its size, from its curvature alone."""

TINY = 1e-20
"""A smaller product of two gradients' sizes leaves nothing to compare."""

EXACT = 1e-6
"""Rounding of a value that is the exact meta-gradient."""


class Row(NamedTuple):
    """One estimator on one problem."""

    name: str
    bias: float  # |own value - exact meta-gradient| / |exact|, both enumerated
    unbiased: bool  # whether that should be 0: of dice always, of lvc for one-step episodes
    error: float  # |mean of the sampled gradients - own value| / |own value|
    standard_error: float  # of that mean, in the same unit
    curved: float  # what a finite number of episodes may move the mean, in the same unit: about 1 / episodes
    noise: float  # root of the summed variance of one sampled gradient, over |own value|

    @property
    def verdict(self) -> str:
        """Judge whether the value is exact where it should be, and the samples within four standard errors of it."""
        allowed = 4 * self.standard_error + self.curved
        if (self.unbiased and self.bias > EXACT) or self.error > allowed:
            return "differs"
        return "agrees" if allowed <= LARGEST_ALLOWED else "too noisy"


UNTREATED = Config(
    env="tabular-mdp", discount=1.0, gae_lambda=1.0, normalise_advantages=False, baseline=Baseline(name="none")
)
"""Advantages are undiscounted returns."""


def vector(params: Params) -> Tensor:
    """Join parameters without a leading axis to one vector (n,)."""
    return flatten(of_one_seed(params))[0]


def problem(seed: int, states: int = 2, actions: int = 2, horizon: int = 4, lr: float = 2.0) -> Problem:
    """A random task and random softmax policy, float64.

    Raises:
        InputError: A number is out of range.
    """
    if states < 1 or actions < 2 or horizon < 1 or not 0 < lr < math.inf:
        raise InputError(
            f"states = {states}, actions = {actions}, horizon = {horizon}, lr = {lr}: at least 1 state, 2 actions, "
            "1 step and a positive, finite rate"
        )
    generator = torch.Generator().manual_seed(seed)
    env = TabularMDP(states=states, actions=actions, horizon=horizon)
    policy = CategoricalPolicy(states, actions, hidden=())
    theta = {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in policy.init(generator).items()
    }
    task = env.sample_tasks(1, generator)[0].double()
    task[..., :-1] /= task[..., :-1].sum(-1, keepdim=True)
    return Problem(policy, theta, task, horizon, lr)


def sampled_batch(chosen: Problem, params: Params, episodes: int, key: Tensor) -> Batch:
    """Sample episodes for stacked parameters, one repetition of the experiment a row; no baseline, no normalisation."""
    count = len(params["0.weight"])
    env = TabularMDP(states=chosen.policy.observations, actions=chosen.policy.actions, horizon=chosen.horizon)
    tasks = chosen.task.expand(count, *chosen.task.shape)
    sampler = Sampler([env], chosen.policy)
    trajectory = sampler.sample(params, tasks, episodes, key.unsqueeze(0), TaskAxis(count))
    return to_batch(trajectory, UNTREATED)[0]


def inner_loops(chosen: Problem) -> dict[str, InnerLoop[Batch]]:
    """The inner loop of each row."""
    rates = Rates(chosen.lr)
    loops = {name: InnerLoop(inner_loss(chosen.policy, name), rates) for name in ESTIMATORS}
    return loops | {"first_order": dataclasses.replace(loops["log_prob"], first_order=True)}


def sampled_gradients(chosen: Problem, inner: InnerLoop[Batch], episodes: int, repetitions: int, seed: int) -> Tensor:
    """Repeat one meta-gradient independently, as training computes it: (repetitions, parameters)."""
    key, axis = torch.tensor(seed), TaskAxis(repetitions)
    start = axis.spread(of_one_seed(chosen.theta))
    pre = sampled_batch(chosen, start, episodes, random.fold_in(key, 0))
    adapted = axis.map(lambda batch, params: inner.step(params, batch, chosen.lr), pre, start)
    post = sampled_batch(chosen, adapted, episodes, random.fold_in(key, 1))

    def one(before: Batch, after: Batch) -> Params:
        return exact.sampled_meta_gradient(chosen, inner, [before], after)

    gradients = vmap(one)(pre, post)
    return torch.cat([value.flatten(1) for value in gradients.values()], 1)


def check_estimators(chosen: Problem, episodes: int = 1000, repetitions: int = 200, seed: int = 0) -> list[Row]:
    """Bias, agreement with the value that it should have, and noise of each estimator, undiscounted.

    Raises:
        InputError: Too few repetitions or episodes, or too many episodes to list.
    """
    if repetitions < 2 or episodes < 1:
        raise InputError(
            f"repetitions = {repetitions}, episodes = {episodes}: give at least 2 repetitions and 1 episode"
        )
    truth = vector(exact.meta_gradient(chosen, 1.0))
    rows = []
    for name, inner in inner_loops(chosen).items():
        own = vector(exact.expected_meta_gradient(chosen, inner, 1.0))
        found = sampled_gradients(chosen, inner, episodes, repetitions, seed)
        if not float(truth.norm()) * float(own.norm()) > TINY:
            raise InputError(
                f"lr = {chosen.lr:g}: the adapted policy is so sure of itself that the meta-gradient of {name} is "
                f"{float(own.norm()):.1g}; give a smaller rate"
            )
        size, variance = float(own.norm()), float(found.var(0).sum())
        rows.append(
            Row(
                name,
                bias=float((own - truth).norm() / truth.norm()),
                unbiased=name in ESTIMATORS and chosen.horizon <= ESTIMATORS[name].exact_up_to,
                error=float((found.mean(0) - own).norm()) / size,
                standard_error=(variance / repetitions) ** 0.5 / size,
                curved=CURVED_EPISODES / episodes,
                noise=variance**0.5 / size,
            )
        )
    return rows
