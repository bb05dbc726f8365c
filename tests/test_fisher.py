"""The factored Fisher-vector product against double backward of the KL, in float64."""

import pytest
import torch
from torch import Tensor

from maml_rl.adapt import adapt
from maml_rl.fisher import every, fisher_vector_product
from maml_rl.losses import ESTIMATORS, inner_loss, surrogate
from maml_rl.types import Batch, Params, Rate, flatten, stack, unflatten
from synthetic import POLICY, random_batch, random_params, task

TASKS = 3


def problem(
    estimator: str, steps: int, lr: Rate, first_order: bool
) -> tuple[Params, list[Params], list[Batch], object]:
    """Theta, the chain of adapted parameters, data that they sampled, and mean KL(old || new) of theta."""
    loss, theta = inner_loss(POLICY, estimator), random_params(0)
    chain, batches = [stack(theta, TASKS)], []
    for k in range(steps + 1):
        batches.append(random_batch(chain[-1], TASKS, seed=10 + k))
        if k < steps:
            moved = [
                adapt(loss, {n: v[i] for n, v in chain[-1].items()}, [task(batches[-1], i)], lr) for i in range(TASKS)
            ]
            chain.append({n: torch.stack([m[n] for m in moved]).detach() for n in theta})

    def kl(vector: Tensor) -> Tensor:
        start, total = unflatten(vector, theta), torch.zeros((), dtype=torch.float64)
        for i in range(TASKS):
            own = [task(batch, i) for batch in batches]
            total = total + surrogate(POLICY, adapt(loss, start, own[:-1], lr, first_order), own[-1])[1]
        return total / TASKS

    return theta, chain, batches, kl


def tree_rate() -> Params:
    generator = torch.Generator().manual_seed(5)
    return {
        name: 0.3 * torch.rand(value.shape, generator=generator, dtype=torch.float64)
        for name, value in random_params(0).items()
    }


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["number", "tree"])
def test_equals_the_hessian_of_the_kl(estimator: str, steps: int, kind: str) -> None:
    lr: Rate = 0.2 if kind == "number" else tree_rate()
    theta, chain, batches, kl = problem(estimator, steps, lr, first_order=False)
    product = fisher_vector_product(POLICY, inner_loss(POLICY, estimator), chain, batches, lr, first_order=False)
    vector = torch.randn(flatten(theta).numel(), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    _, expected = torch.autograd.functional.vhp(kl, flatten(theta), vector)
    torch.testing.assert_close(flatten(product(unflatten(vector, theta))), expected, atol=1e-12, rtol=1e-10)


def test_gradient_of_the_kl_is_zero_at_the_start() -> None:
    theta, _, _, kl = problem("lvc", 1, 0.2, first_order=False)
    gradient = torch.autograd.functional.jacobian(kl, flatten(theta))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_first_order_takes_the_identity() -> None:
    theta, chain, batches, kl = problem("log_prob", 2, 0.2, first_order=True)
    product = fisher_vector_product(POLICY, inner_loss(POLICY, "log_prob"), chain, batches, 0.2, first_order=True)
    vector = torch.randn(flatten(theta).numel(), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    _, expected = torch.autograd.functional.vhp(kl, flatten(theta), vector)
    torch.testing.assert_close(flatten(product(unflatten(vector, theta))), expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("wrong", ["estimator", "lr", "first_order", "chain"])
def test_a_wrong_ingredient_shows(wrong: str) -> None:
    theta, chain, batches, kl = problem("lvc", 1, 0.2, first_order=False)
    loss = inner_loss(POLICY, "log_prob" if wrong == "estimator" else "lvc")
    points = [chain[0], chain[0]] if wrong == "chain" else chain
    product = fisher_vector_product(
        POLICY, loss, points, batches, 0.1 if wrong == "lr" else 0.2, first_order=wrong == "first_order"
    )
    vector = torch.ones(flatten(theta).numel(), dtype=torch.float64)
    _, expected = torch.autograd.functional.vhp(kl, flatten(theta), vector)
    assert (flatten(product(unflatten(vector, theta))) - expected).norm() > 1e-3 * expected.norm()


def test_every_keeps_the_steps_it_says_and_their_weights_sum_to_one() -> None:
    batch = random_batch(stack(random_params(0), 2), 2, seed=1, steps=11)
    thin = every(batch, 5)
    assert torch.equal(thin.observations, batch.observations[:, :, [0, 5, 10]])
    assert torch.equal(thin.behaviour.mean, batch.behaviour.mean[:, :, [0, 5, 10]])
    torch.testing.assert_close(thin.weights.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    assert torch.equal(thin.weights > 0, batch.weights[:, :, ::5] > 0)
    assert every(batch, 1) is batch


def test_thinning_by_episodes_keeps_whole_episodes() -> None:
    batch = random_batch(stack(random_params(0), 2), 2, seed=1, episodes=7)
    thin = every(batch, 3, whole_episodes=True)
    assert torch.equal(thin.actions, batch.actions[:, [0, 3, 6]])
    torch.testing.assert_close(thin.weights.sum((1, 2)), torch.ones(2, dtype=torch.float64))
