"""How noisy a meta-gradient is, and how it compares with the other estimators' on the same data."""

import dataclasses

import torch

from maml_rl.core.tree import Params, flatten
from maml_rl.rl.data import every
from maml_rl.rl.explore import Exploration
from maml_rl.rl.learner import Learner
from maml_rl.rl.losses import ESTIMATORS, inner_loss
from maml_rl.rl.objective import MetaObjective
from maml_rl.rl.outer import Measures


def _on_half(objective: MetaObjective, first: int) -> MetaObjective:
    batches = [every(batch, 2, whole_episodes=True, start=first) for batch in objective.batches]
    return dataclasses.replace(objective, batches=batches)


def compare_gradients(learner: Learner, theta: Params, exploration: Exploration) -> Measures:
    """Meta-gradients at theta beside the one that training takes, of each run (*runs).

    Returns:
        ``gradient/relative_variance``: |a - b|^2 / |a + b|^2 for the gradients a and b of even and odd episodes, an
        estimate of the variance of the whole gradient over its square, the tasks held, near 1 where the gradient is all
        noise (absent for one episode);
        ``cosine/<estimator>`` and ``cosine/first_order``: the angle to each other choice.
    """
    objective = learner.objective(exploration)

    def gradient(of: MetaObjective) -> torch.Tensor:
        return flatten(of.gradient(theta)[1], objective.runs)

    taken = gradient(objective)
    row: Measures = {}
    if exploration.batches[0].weights.shape[1] > 1:
        a, b = (gradient(_on_half(objective, first)) for first in (0, 1))
        row["gradient/relative_variance"] = (a - b).square().sum(-1) / (a + b).square().sum(-1)
    others = {
        name: dataclasses.replace(objective, loss=inner_loss(learner.policy, name), first_order=False)
        for name in ESTIMATORS
    } | {"first_order": dataclasses.replace(objective, first_order=True)}
    for name, other in others.items():
        row[f"cosine/{name}"] = torch.cosine_similarity(taken, gradient(other), dim=-1)
    return row
