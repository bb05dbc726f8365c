"""The trust-region step, and its Fisher-vector product beside double backward of the KL on the same data."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch.func import vmap

from common import arguments, explored, learner_for, median_seconds, peak_rss_mib, report
from maml_rl.core.tree import Params, flatten, unflatten
from maml_rl.rl.data import Batch, thin
from maml_rl.rl.fisher import fisher_vector_product
from maml_rl.rl.objective import MetaObjective
from maml_rl.rl.outer import trpo


def double_backward(objective: MetaObjective, theta: Params) -> Callable[[torch.Tensor], torch.Tensor]:
    """The baseline: the gradient of the mean KL with its graph kept, differentiated again for each product."""
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    rows = objective.axis.spread(leaves)
    kl = vmap(objective.of_task)(rows, list(objective.batches), objective.weights()).kl.mean()
    gradient = torch.autograd.grad(kl, list(leaves.values()), create_graph=True)
    flat = torch.cat([part.reshape(-1) for part in gradient])

    def product(vector: torch.Tensor) -> torch.Tensor:
        moved = torch.autograd.grad(flat, list(leaves.values()), vector[0], retain_graph=True)
        return torch.cat([part.reshape(-1) for part in moved]).unsqueeze(0)

    return product


def main() -> None:
    """Time the whole step first: the baseline's graph would raise the peak memory."""
    chosen = arguments(__doc__)
    learner = learner_for(chosen)
    theta, objective = explored(learner)
    settings = learner.config.outer
    step = median_seconds(lambda: trpo(theta, {}, objective, settings), chosen.repeats)
    peak = peak_rss_mib()
    thinned = [thin(batch, settings.fisher_subsample) for batch in objective.batches]

    def build(batches: Sequence[Batch] = thinned) -> Callable[[Params], Params]:
        return fisher_vector_product(
            learner.policy, learner.inner, objective.axis, theta, batches, objective.params_by_step
        )

    building = median_seconds(build, chosen.repeats)
    product = build()
    vector = torch.ones_like(flatten(theta))
    ours = median_seconds(lambda: product(unflatten(vector, theta)), chosen.repeats)
    baseline = double_backward(dataclasses.replace(objective, batches=thinned), theta)
    theirs = median_seconds(lambda: baseline(vector), chosen.repeats)
    # The baseline adapts anew, on thinned data to other policies than those that sampled: compared on all data.
    expected = double_backward(objective, theta)(vector)
    difference = flatten(build(objective.batches)(unflatten(vector, theta))) - expected
    report(
        {
            "seconds": step,
            "build_seconds": building,
            "product_seconds": ours,
            "double_backward_product_seconds": theirs,
            "ratio": theirs / ours,
            "relative_difference": float(difference.norm() / expected.norm()),
            "peak_rss_mib": peak,
        }
    )
    learner.close()


if __name__ == "__main__":
    main()
