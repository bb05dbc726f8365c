"""Metrics of one meta-iteration."""

import torch
from torch import Tensor

from maml_rl.core.tree import Params
from maml_rl.rl.data import Batch
from maml_rl.rl.distributions import Normal
from maml_rl.rl.explore import Exploration
from maml_rl.rl.outer import Metrics
from maml_rl.rl.policies import Policy

COUNTS = ("env_steps",)
"""Metrics that add up over tasks; the others are means."""


def describe(policy: Policy, exploration: Exploration) -> Metrics:
    """Measure an exploration for each seed, (S,): returns, successes, the policy's spread, how adaptation moved it.

    Means over tasks, and the environment steps.
    """
    axis = exploration.axis

    def mean(per_task: Tensor) -> Tensor:
        return axis.by_seed(per_task).mean(-1)

    metrics: Metrics = {}
    returns = [outcome.returns.mean(-1) for outcome in exploration.outcomes]
    for k, (outcome, batch) in enumerate(zip(exploration.outcomes, exploration.batches, strict=True)):
        metrics[f"return/{k}"] = mean(returns[k])
        if k > 0:
            metrics[f"gain/{k}"] = mean(returns[k] - returns[k - 1])
        if outcome.success is not None:
            metrics[f"success/{k}"] = mean(outcome.success.float().mean(-1))
        metrics[f"entropy/{k}"] = mean((batch.behaviour.entropy() * batch.weights).sum((-2, -1)))
        if isinstance(batch.behaviour, Normal):
            metrics[f"std/{k}"] = mean(batch.behaviour.std()[:, 0, 0].mean(-1))
    metrics["share_worse"] = mean((returns[-1] < returns[0]).float())
    metrics["kl/inner"] = mean(adaptation_kl(policy, exploration))
    steps = torch.stack([outcome.steps.sum(-1) for outcome in exploration.outcomes], -1).sum(-1)
    metrics["env_steps"] = axis.by_seed(steps).sum(-1)
    return metrics


def adaptation_kl(policy: Policy, exploration: Exploration) -> Tensor:
    """KL(before || after adaptation), mean over live steps of the first batch, of each task, (K S,)."""

    def of_task(batch: Batch, params: Params) -> Tensor:
        mean: Tensor = (batch.behaviour.kl(policy(params, batch.observations)) * batch.weights).sum()
        return mean

    kl: Tensor = exploration.axis.map(of_task, exploration.batches[0], exploration.params_by_step[-1])
    return kl
