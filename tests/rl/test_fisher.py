"""The factored Fisher-vector product against double backward of the KL, in float64."""

import pytest
import torch
from torch import Tensor

from maml_rl.core.adapt import Rates, adapt
from maml_rl.core.task_axis import stack
from maml_rl.core.tree import Params, Rate, flatten, map_tensors, unflatten
from maml_rl.rl.data import Batch, every
from maml_rl.rl.fisher import fisher_vector_product
from maml_rl.rl.losses import ESTIMATORS, inner_loss, surrogate
from maml_rl.rl.policies import CategoricalPolicy, GaussianPolicy, Policy
from synthetic import POLICY, random_batch, random_params

TASKS = 3
ARMS = CategoricalPolicy(observations=3, actions=4, hidden=(5, 4))
CONTEXTUAL = GaussianPolicy(observations=3, actions=2, hidden=(5,), context=2)


def sampled(policy: Policy, params: Params, seed: int) -> Batch:
    """A random batch whose actions are the policy's."""
    batch = random_batch(stack(random_params(0), TASKS), TASKS, seed)
    behaviour = map_tensors(Tensor.detach, torch.func.vmap(policy)(params, batch.observations))
    noise = torch.randn(*batch.weights.shape, policy.actions, generator=torch.Generator().manual_seed(seed + 100))
    actions = torch.where((batch.weights > 0).unsqueeze(-1), behaviour.sample(noise.double()), 0.0)
    return batch._replace(actions=actions, behaviour=behaviour)


def problem(
    estimator: str,
    steps: int,
    lr: Rate,
    first_order: bool,
    policy: Policy = POLICY,
    rates: Rates | None = None,
) -> tuple[Params, list[Params], list[Batch], object]:
    """Theta, the chain of adapted parameters, data that they sampled, and mean KL(old || new) of theta.

    With ``rates``, theta is of random parameters and random learned rates, and ``lr`` goes unused.
    """
    loss, theta = inner_loss(policy, estimator), random_params(0, policy)

    def split(theta: Params) -> tuple[Params, Rate]:
        return (theta, lr) if rates is None else rates.split(theta)

    if rates is not None:
        generator = torch.Generator().manual_seed(8)
        theta = {
            name: value + 0.2 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for name, value in rates.init(theta).items()
        }
    start, rate = split(theta)
    chain, batches = [stack(start, TASKS)], []
    for k in range(steps + 1):
        batches.append(sampled(policy, chain[-1], seed=10 + k))
        if k < steps:
            moved = [
                adapt(loss, *map_tensors(lambda x, i=i: x[i], (chain[-1], batches[-1:])), rate) for i in range(TASKS)
            ]
            chain.append({n: torch.stack([m[n] for m in moved]).detach() for n in start})

    def kl(vector: Tensor) -> Tensor:
        (start, rate), total = split(unflatten(vector, theta)), torch.zeros((), dtype=torch.float64)
        for i in range(TASKS):
            *pre, post = map_tensors(lambda x, i=i: x[i], batches)
            total = total + surrogate(policy, adapt(loss, start, pre, rate, first_order), post)[1]
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


LEARNED = {
    "every rate": (POLICY, Rates(0.2, learned=True)),
    "rates of the last layer": (POLICY, Rates(0.2, POLICY.head, learned=True)),
    "rates of the context": (CONTEXTUAL, Rates(0.2, frozenset({"context"}), learned=True)),
    "rates and discrete actions": (ARMS, Rates(0.2, learned=True)),
    "the last layer": (POLICY, Rates(0.2, POLICY.head)),
    "the context": (CONTEXTUAL, Rates(0.2, frozenset({"context"}))),
    "discrete actions": (ARMS, Rates(0.2)),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("kind", LEARNED)
def test_equals_the_hessian_of_the_kl_whatever_is_learned_and_adapts(
    kind: str, first_order: bool, steps: int, estimator: str
) -> None:
    policy, rates = LEARNED[kind]
    theta, chain, batches, kl = problem(estimator, steps, 0.0, first_order, policy, rates)
    product = fisher_vector_product(
        policy, inner_loss(policy, estimator), chain, batches, rates.split(theta)[1], first_order
    )
    vector = torch.randn(flatten(theta).numel(), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    _, expected = torch.autograd.functional.vhp(kl, flatten(theta), vector)
    found = product(unflatten(vector, theta))
    assert list(found) == list(theta)
    torch.testing.assert_close(flatten(found), expected, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("wrong", ["first_order", "rate", "no columns of the rate", "no rows of the rate"])
def test_a_wrong_ingredient_shows_with_learned_rates(wrong: str, first_order: bool) -> None:
    policy, rates = LEARNED["every rate"]
    theta, chain, batches, kl = problem("lvc", 2, 0.0, first_order, policy, rates)
    lr = 0.2 if wrong == "rate" else rates.split(theta)[1]
    product = fisher_vector_product(
        policy, inner_loss(policy, "lvc"), chain, batches, lr, first_order != (wrong == "first_order")
    )
    vector = unflatten(torch.ones(flatten(theta).numel(), dtype=torch.float64), theta)
    _, expected = torch.autograd.functional.vhp(kl, flatten(theta), flatten(vector))

    def without_rates(values: Params) -> Params:
        return {name: 0 * value if name.startswith("lr.") else value for name, value in values.items()}

    found = product(without_rates(vector) if wrong == "no columns of the rate" else vector)
    if wrong == "no rows of the rate":
        found = without_rates(found)
    differs = (flatten(found) - expected).norm() > 1e-3 * expected.norm()
    assert bool(differs) == (wrong != "rate" or not first_order)  # at first order J has no factor of the rate


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
