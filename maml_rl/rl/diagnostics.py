"""Noise of a meta-gradient, and its angle to the other estimators' on the same data."""

import dataclasses

import torch

from maml_rl.core.tree import Params, flatten
from maml_rl.rl.data import every_episode
from maml_rl.rl.losses import ESTIMATORS, inner_loss
from maml_rl.rl.objective import MetaObjective
from maml_rl.rl.outer import Metrics


def _on_half(objective: MetaObjective, first: int) -> MetaObjective:
    batches = [every_episode(batch, 2, first) for batch in objective.batches]
    return dataclasses.replace(objective, batches=batches)


def compare_gradients(objective: MetaObjective, theta: Params) -> Metrics:
    """Compare meta-gradients at theta with the one that training takes, (S,) each.

    Returns:
        ``gradient/relative_variance``: |a - b|^2 / |a + b|^2 for the gradients a and b of even and odd episodes, an
        estimate of the variance of the whole gradient over its square, the tasks held, near 1 where the gradient is all
        noise (absent for one episode);
        ``cosine/<estimator>`` and ``cosine/first_order``: the angle to each other choice.
    """

    def gradient(of: MetaObjective) -> torch.Tensor:
        return flatten(of.gradient(theta)[1])

    taken = gradient(objective)
    metrics: Metrics = {}
    if objective.batches[0].weights.shape[1] > 1:
        a, b = (gradient(_on_half(objective, first)) for first in (0, 1))
        metrics["gradient/relative_variance"] = (a - b).square().sum(-1) / (a + b).square().sum(-1)
    inner = objective.inner
    others = {
        name: dataclasses.replace(inner, loss=inner_loss(objective.policy, name), first_order=False)
        for name in ESTIMATORS
    } | {"first_order": dataclasses.replace(inner, first_order=True)}
    for name, other in others.items():
        angle = torch.cosine_similarity(taken, gradient(dataclasses.replace(objective, inner=other)), dim=-1)
        metrics[f"cosine/{name}"] = angle
    return metrics
