"""Exact values and meta-gradients in small Markov decision processes: the truth that estimators are held against.

Everything here is an expectation over all episodes, not a sample. ``value`` is dynamic programming and shares nothing
with the losses; ``every_episode`` lists all episodes as one Batch weighted by their probabilities, so that the
package's own losses give their expectations.

With discount g the gradient of the discounted value weights step t by g^t: d V = E sum_t g^t d log pi(a_t) R_t, R_t the
discounted return from t. The usual practice, this package's training included, leaves g^t out, which is the gradient
of no value unless g = 1. ``discounted_gradient`` puts it in.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_envs import InputError
from maml_rl.core.adapt import InnerLoop
from maml_rl.core.tree import Params
from maml_rl.rl.advantages import discounted_returns
from maml_rl.rl.data import Batch
from maml_rl.rl.distributions import Categorical
from maml_rl.rl.losses import surrogate
from maml_rl.rl.policies import CategoricalPolicy

MOST_EPISODES = 100_000


class Problem(NamedTuple):
    """A task, a policy, and the rate that it adapts with."""

    policy: CategoricalPolicy
    theta: Params
    task: Tensor
    horizon: int
    lr: float


def log_policy(policy: CategoricalPolicy, params: Params) -> Tensor:
    """Log pi(a | s) for one-hot states, (S, A)."""
    return policy(params, torch.eye(policy.observations, dtype=params["0.weight"].dtype)).log_probs()


def value(policy: CategoricalPolicy, params: Params, task: Tensor, horizon: int, discount: float) -> Tensor:
    """E sum_t discount^t r_t from state 0, by propagating the distribution of states.

    Args:
        policy: The policy, of one-hot states.
        params: Its parameters.
        task: (S, A, S + 1) transition probabilities and mean reward, a row of ``maml_envs.tabular_mdp``.
        horizon: Steps.
        discount: In [0, 1].

    Returns:
        A scalar, differentiable in the parameters any number of times.
    """
    transition, reward = task[..., :-1], task[..., -1]
    probability = log_policy(policy, params).exp()
    state = torch.eye(policy.observations, dtype=probability.dtype)[0]
    total = probability.new_zeros(())
    for t in range(horizon):
        visits = state.unsqueeze(-1) * probability
        total = total + discount**t * (visits * reward).sum()
        state = torch.einsum("sa,sax->x", visits, transition)
    return total


def meta_gradient(problem: Problem, discount: float, steps: int = 1) -> Params:
    """Return the gradient of U(theta) = V(phi_steps) / T, phi_{j+1} = phi_j + lr dV(phi_j) / T, phi_0 = theta.

    The division by T is the losses' mean over steps. V is differentiated through every inner step.
    """
    policy, theta, task, horizon, lr = problem

    def mean_reward(params: Params) -> Tensor:
        return value(policy, params, task, horizon, discount) / horizon

    def after(params: Params) -> Tensor:
        for _ in range(steps):
            gradient = torch.func.grad(mean_reward)(params)
            params = {name: x + lr * gradient[name] for name, x in params.items()}
        return mean_reward(params)

    gradient: Params = torch.func.grad(after)(theta)
    return gradient


def every_episode(
    policy: CategoricalPolicy,
    params: Params,
    task: Tensor,
    horizon: int,
    discount: float,
    discounted_gradient: bool = True,
) -> Batch:
    """All episodes of one task as a batch (N, T): weights are their probabilities over T, advantages their returns.

    A weighted sum over it is an expectation. Rewards are the means: noise with mean 0 that is independent of the
    actions changes no expectation.

    Raises:
        InputError: There are more than 100,000.
    """
    states, actions = policy.observations, policy.actions
    count = actions**horizon * states ** (horizon - 1)
    if count > MOST_EPISODES:
        raise InputError(f"{count:,} episodes of {horizon} steps are too many to list: take fewer states or steps")
    log_pi = log_policy(policy, params).detach()
    later = itertools.product(range(states), repeat=horizon - 1)
    s = torch.tensor([(0, *rest) for rest in later])
    a = torch.tensor(list(itertools.product(range(actions), repeat=horizon)))
    s, a = s.repeat_interleave(len(a), 0), a.repeat(len(s), 1)
    moves = task[s[:, :-1], a[:, :-1], s[:, 1:]].prod(-1)
    probability = log_pi[s, a].sum(-1).exp() * moves
    gamma = discount ** torch.arange(horizon, dtype=task.dtype)
    to_go = discounted_returns(task[s, a, -1], torch.ones_like(s, dtype=torch.bool), discount)
    weights = probability.unsqueeze(-1) / horizon * (gamma if discounted_gradient else torch.ones_like(gamma))
    rows = torch.eye(max(states, actions), dtype=task.dtype)
    observations = rows[s][..., :states]
    behaviour = policy(params, observations)
    return Batch(
        observations, rows[a][..., :actions], to_go, weights, Categorical(*(field.detach() for field in behaviour))
    )


def sampled_meta_gradient(problem: Problem, inner: InnerLoop[Batch], pre: Sequence[Batch], post: Batch) -> Params:
    """Return what training computes for one task: the surrogate's gradient through the inner loop."""

    def objective(params: Params) -> Tensor:
        return surrogate(problem.policy, inner.adapt(params, pre, problem.lr), post)[0]

    gradient: Params = torch.func.grad(objective)(problem.theta)
    return gradient


def expected_meta_gradient(
    problem: Problem, inner: InnerLoop[Batch], discount: float, steps: int = 1, discounted_gradient: bool = True
) -> Params:
    """Return the value that an estimator converges to with more and more episodes: itself, on every episode."""
    policy, theta, task, horizon, lr = problem
    params, pre = theta, []
    for _ in range(steps):
        pre.append(every_episode(policy, params, task, horizon, discount, discounted_gradient))
        params = {name: x.detach() for name, x in inner.step(params, pre[-1], lr).items()}
    post = every_episode(policy, params, task, horizon, discount, discounted_gradient)
    return sampled_meta_gradient(problem, inner, pre, post)
