"""The factored Fisher-vector product against double backward of the KL, in float64."""

import pytest
import torch
from alone import fisher_product, flatten, stack, unflatten
from torch import Tensor

from maml_rl.core.adapt import InnerLoop, Rates
from maml_rl.core.tree import Params, Rate, map_tensors
from maml_rl.rl.data import Batch, every_episode, every_step
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


def inner_loop(estimator: str, rates: Rates, first_order: bool = False, policy: Policy = POLICY) -> InnerLoop[Batch]:
    return InnerLoop(inner_loss(policy, estimator), rates, first_order)


def problem(
    inner: InnerLoop[Batch], steps: int, policy: Policy = POLICY
) -> tuple[Params, list[Params], list[Batch], object]:
    """Theta, the parameters before each inner step and after, data that they sampled, and mean KL(old || new) of theta.

    Learned rates are random.
    """
    generator = torch.Generator().manual_seed(8)
    theta = {
        name: value + 0.2 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in inner.rates.init(random_params(0, policy)).items()
    }
    start, rate = inner.rates.split(theta)
    params_by_step, batches = [stack(start, TASKS)], []
    for k in range(steps + 1):
        batches.append(sampled(policy, params_by_step[-1], seed=10 + k))
        if k < steps:
            moved = [
                inner.adapt(*map_tensors(lambda x, i=i: x[i], (params_by_step[-1], batches[-1:])), rate)
                for i in range(TASKS)
            ]
            params_by_step.append({n: torch.stack([m[n] for m in moved]).detach() for n in start})

    def kl(vector: Tensor) -> Tensor:
        (start, rate), total = inner.rates.split(unflatten(vector, theta)), torch.zeros((), dtype=torch.float64)
        for i in range(TASKS):
            *pre, post = map_tensors(lambda x, i=i: x[i], batches)
            total = total + surrogate(policy, inner.adapt(start, pre, rate), post)[1]
        return total / TASKS

    return theta, params_by_step, batches, kl


class GivenRates(Rates):
    """A rate for every number, which is not learned."""

    def split(self, theta: Params) -> tuple[Params, Rate]:
        generator = torch.Generator().manual_seed(5)
        rates = {
            name: 0.3 * torch.rand(value.shape, generator=generator, dtype=torch.float64)
            for name, value in random_params(0).items()
        }
        return theta, {name: rates[name].expand_as(value) for name, value in theta.items()}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["number", "tree"])
def test_equals_the_hessian_of_the_kl(estimator: str, steps: int, kind: str) -> None:
    inner = inner_loop(estimator, Rates(0.2) if kind == "number" else GivenRates(0.0))
    theta, params_by_step, batches, kl = problem(inner, steps)
    product = fisher_product(POLICY, inner, theta, batches, params_by_step)
    vector = torch.randn(flatten(theta).numel(), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    _, expected = torch.autograd.functional.vhp(kl, flatten(theta), vector)
    torch.testing.assert_close(flatten(product(unflatten(vector, theta))), expected, atol=1e-12, rtol=1e-10)


def test_gradient_of_the_kl_is_zero_at_the_start() -> None:
    theta, _, _, kl = problem(inner_loop("lvc", Rates(0.2)), 1)
    gradient = torch.autograd.functional.jacobian(kl, flatten(theta))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_first_order_takes_the_identity() -> None:
    inner = inner_loop("log_prob", Rates(0.2), first_order=True)
    theta, params_by_step, batches, kl = problem(inner, 2)
    product = fisher_product(POLICY, inner, theta, batches, params_by_step)
    vector = torch.randn(flatten(theta).numel(), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    _, expected = torch.autograd.functional.vhp(kl, flatten(theta), vector)
    torch.testing.assert_close(flatten(product(unflatten(vector, theta))), expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("wrong", ["estimator", "lr", "first_order", "params_by_step"])
def test_a_wrong_ingredient_shows(wrong: str) -> None:
    theta, params_by_step, batches, kl = problem(inner_loop("lvc", Rates(0.2)), 1)
    rates, estimator = Rates(0.1 if wrong == "lr" else 0.2), "log_prob" if wrong == "estimator" else "lvc"
    points = [params_by_step[0]] * 2 if wrong == "params_by_step" else params_by_step
    inner = inner_loop(estimator, rates, first_order=wrong == "first_order")
    product = fisher_product(POLICY, inner, theta, batches, points)
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
    inner = inner_loop(estimator, rates, first_order, policy)
    theta, params_by_step, batches, kl = problem(inner, steps, policy)
    product = fisher_product(policy, inner, theta, batches, params_by_step)
    vector = torch.randn(flatten(theta).numel(), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    _, expected = torch.autograd.functional.vhp(kl, flatten(theta), vector)
    found = product(unflatten(vector, theta))
    assert list(found) == list(theta)
    torch.testing.assert_close(flatten(found), expected, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("wrong", ["first_order", "rate", "no columns of the rate", "no rows of the rate"])
def test_a_wrong_ingredient_shows_with_learned_rates(wrong: str, first_order: bool) -> None:
    policy, rates = LEARNED["every rate"]
    theta, params_by_step, batches, kl = problem(inner_loop("lvc", rates, first_order, policy), 2, policy)
    fixed = Rates(0.2) if wrong == "rate" else rates
    inner = inner_loop("lvc", fixed, first_order != (wrong == "first_order"), policy)
    product = fisher_product(policy, inner, theta, batches, params_by_step)
    vector = unflatten(torch.ones(flatten(theta).numel(), dtype=torch.float64), theta)
    _, expected = torch.autograd.functional.vhp(kl, flatten(theta), flatten(vector))

    def without_rates(values: Params) -> Params:
        return {name: 0 * value if name.startswith("lr.") else value for name, value in values.items()}

    found = product(without_rates(vector) if wrong == "no columns of the rate" else vector)
    if wrong == "no rows of the rate":
        found = without_rates(found)
    differs = (flatten(found) - expected).norm() > 1e-3 * expected.norm()
    assert bool(differs) == (wrong != "rate" or not first_order)  # at first order J has no factor of the rate


def test_thinning_is_staggered_and_its_weights_sum_to_one() -> None:
    batch = random_batch(stack(random_params(0), 2), 2, seed=1, episodes=7, steps=11)
    kept = every_step(batch, 5)
    times = [[0, 5, 10], [4, 9], [3, 8], [2, 7], [1, 6], [0, 5, 10], [4, 9]]
    for b, chosen in enumerate(times):
        for field in ("observations", "actions", "advantages"):
            assert torch.equal(getattr(kept, field)[:, b, : len(chosen)], getattr(batch, field)[:, b, chosen])
        assert torch.equal(kept.behaviour.mean[:, b, : len(chosen)], batch.behaviour.mean[:, b, chosen])
        assert torch.equal(kept.weights[:, b, : len(chosen)] > 0, batch.weights[:, b, chosen] > 0)
        assert (kept.weights[:, b, len(chosen) :] == 0).all()
    torch.testing.assert_close(kept.weights.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    ratio = kept.weights[:, 0] / batch.weights[:, 0, [0, 5, 10]]
    torch.testing.assert_close(ratio[:, 0], ratio.nan_to_num(0).amax(1))  # all by one factor


def test_one_short_episode_keeps_its_first_step() -> None:
    batch = random_batch(stack(random_params(0), 1), 1, seed=1, episodes=1, steps=3)
    assert every_step(batch, 5).weights.shape == (1, 1, 1)
    assert torch.equal(every_step(batch, 5).actions, batch.actions[:, :, :1])


def test_thinning_by_episodes_keeps_whole_episodes() -> None:
    batch = random_batch(stack(random_params(0), 2), 2, seed=1, episodes=7)
    kept = every_episode(batch, 3)
    assert torch.equal(kept.actions, batch.actions[:, [0, 3, 6]])
    assert torch.equal(every_episode(batch, 3, 1).actions, batch.actions[:, [1, 4]])
    torch.testing.assert_close(kept.weights.sum((1, 2)), torch.ones(2, dtype=torch.float64))
