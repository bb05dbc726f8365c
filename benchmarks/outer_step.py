"""The trust-region step, and its Fisher-vector product beside double backward of the KL on the same data."""

from collections.abc import Callable, Sequence

import torch

from common import arguments, explored, learner_for, median_seconds, peak_rss_mib, report
from maml_rl.core.task_axis import Part
from maml_rl.core.tree import Params, flatten, unflatten
from maml_rl.rl.data import Batch, every
from maml_rl.rl.fisher import fisher_vector_product
from maml_rl.rl.objective import MetaObjective
from maml_rl.rl.outer import trpo


def double_backward(objective: MetaObjective, theta: Params) -> Callable[[torch.Tensor], torch.Tensor]:
    """The baseline: the gradient of the mean KL with its graph kept, differentiated again for each product."""
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    kl = objective.on_part(leaves, Part(slice(None))).kl
    gradient = torch.autograd.grad(kl, list(leaves.values()), create_graph=True)
    flat = torch.cat([part.reshape(-1) for part in gradient])

    def product(vector: torch.Tensor) -> torch.Tensor:
        moved = torch.autograd.grad(flat, list(leaves.values()), vector, retain_graph=True)
        return torch.cat([part.reshape(-1) for part in moved])

    return product


def main() -> None:
    """Time the whole step first: the baseline's graph would raise the peak memory."""
    chosen = arguments(__doc__)
    learner = learner_for(chosen)
    theta, exploration, objective = explored(learner)
    settings = learner.config.outer
    step = median_seconds(lambda: trpo(theta, {}, exploration, objective, settings), chosen.repeats)
    peak = peak_rss_mib()
    thin = [every(batch, settings.fisher_subsample) for batch in exploration.batches]

    def build(batches: Sequence[Batch] = thin) -> Callable[[Params], Params]:
        return fisher_vector_product(learner.policy, learner.loss, exploration.chain, batches, learner.rates.lr, False)

    building = median_seconds(build, chosen.repeats)
    product = build()
    vector = torch.ones_like(flatten(theta))
    ours = median_seconds(lambda: product(unflatten(vector, theta)), chosen.repeats)
    baseline = double_backward(MetaObjective(learner.policy, learner.loss, thin, learner.rates, False), theta)
    theirs = median_seconds(lambda: baseline(vector), chosen.repeats)
    # The baseline adapts anew, on thinned data to other policies than those that sampled: compared on all data.
    expected = double_backward(objective, theta)(vector)
    difference = flatten(build(exploration.batches)(unflatten(vector, theta))) - expected
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
