"""What the inner loop changes: all, the last layer, a context; with a fixed rate or a learned one."""

import pytest
import torch
from alone import stack
from torch import Tensor

from maml_rl.core.adapt import InnerLoop, Rates, scaled
from maml_rl.core.tree import Params
from maml_rl.rl.data import Batch
from maml_rl.rl.losses import inner_loss
from maml_rl.rl.policies import CONTEXT, GaussianPolicy
from synthetic import random_batch, random_params, task

POLICY = GaussianPolicy(observations=3, actions=2, hidden=(4,), context=2)
PARAMS = {"a": torch.tensor([1.0, 2.0], dtype=torch.float64), "b": torch.tensor([[3.0]])}
ADAPTED = [None, frozenset({"b"}), frozenset({"a", "b"})]


def batches(params: Params, steps: int) -> list[Batch]:
    return [task(random_batch(stack(params, 1), 1, seed, policy=POLICY), 0) for seed in range(steps)]


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("adapted", ADAPTED)
def test_theta_is_the_parameters_and_a_learned_rate_for_each_that_adapts(
    adapted: frozenset[str] | None, learned: bool
) -> None:
    theta = Rates(0.3, adapted, learned).init(PARAMS)
    rates = [f"lr.{name}" for name in PARAMS if learned and (adapted is None or name in adapted)]
    assert list(theta) == ["a", "b", *rates]
    for name, value in PARAMS.items():
        assert theta[name] is value
    for name in rates:
        torch.testing.assert_close(theta[name], torch.full_like(PARAMS[name.removeprefix("lr.")], 0.3))


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("adapted", ADAPTED)
def test_split_gives_the_parameters_back_and_a_rate_for_each(adapted: frozenset[str] | None, learned: bool) -> None:
    rates = Rates(0.3, adapted, learned)
    params, rate = rates.split(rates.init(PARAMS))
    assert list(params) == ["a", "b"]
    assert all(params[name] is value for name, value in PARAMS.items())
    if adapted is None and not learned:
        assert rate == 0.3
        return
    assert rate.keys() == PARAMS.keys()
    for name, value in PARAMS.items():
        expected = 0.3 if adapted is None or name in adapted else 0.0
        assert rate[name].dtype == value.dtype
        torch.testing.assert_close(rate[name].expand_as(value), torch.full_like(value, expected))


def test_a_learned_rate_is_the_one_in_theta_and_not_its_start() -> None:
    rates = Rates(0.3, frozenset({"b"}), learned=True)
    theta = rates.init(PARAMS) | {"lr.b": torch.tensor([[-0.7]])}
    assert rates.split(theta)[1]["b"] is theta["lr.b"]


def test_scaled() -> None:
    assert scaled(0.5, 0.5) == 0.25
    found = scaled({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(0.0)}, 0.5)
    assert {name: value.tolist() for name, value in found.items()} == {"a": [0.5, 1.0], "b": 0.0}


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("adapted", [None, POLICY.head, frozenset({CONTEXT})], ids=["all", "last", "context"])
def test_only_what_adapts_changes(adapted: frozenset[str] | None, learned: bool) -> None:
    params = random_params(0, POLICY)
    rates = Rates(0.3, adapted, learned)
    start, rate = rates.split(rates.init(params))
    found = InnerLoop(inner_loss(POLICY, "log_prob"), rates).adapt(start, batches(params, 2), rate)
    changed = {name for name in params if not torch.equal(found[name], params[name])}
    assert found.keys() == params.keys()
    assert changed == (params.keys() if adapted is None else adapted)


def test_a_learned_rate_that_has_not_moved_is_the_fixed_rate() -> None:
    params, loss = random_params(0, POLICY), inner_loss(POLICY, "lvc")
    found = []
    for learned in (False, True):
        rates = Rates(0.3, POLICY.head, learned)
        start, rate = rates.split(rates.init(params))
        found.append(InnerLoop(loss, rates).adapt(start, batches(params, 2), rate))
    for name in params:
        torch.testing.assert_close(found[0][name], found[1][name])


def test_one_step_moves_against_the_gradient_at_its_own_rate() -> None:
    def loss(params: Params, target: Tensor) -> Tensor:
        return 0.5 * (params["a"] - target).square().sum() + 0.5 * params["b"].square().sum()

    rates = Rates(0.1, learned=True)
    theta = rates.init(PARAMS) | {"lr.a": torch.tensor([0.5, -1.0], dtype=torch.float64)}
    start, rate = rates.split(theta)
    found = InnerLoop(loss, rates).adapt(start, [torch.zeros(2, dtype=torch.float64)], rate)
    # a (1 - lr) for each number; the rate of b is still 0.1.
    torch.testing.assert_close(found["a"], torch.tensor([0.5, 4.0], dtype=torch.float64))
    torch.testing.assert_close(found["b"], torch.tensor([[2.7]]))


@pytest.mark.parametrize("adapted", [None, POLICY.head, frozenset({CONTEXT})], ids=["all", "last", "context"])
def test_the_gradient_of_theta_through_two_steps_is_that_of_finite_differences(adapted: frozenset[str] | None) -> None:
    params = random_params(0, POLICY)
    rates, loss, data = Rates(0.3, adapted, learned=True), inner_loss(POLICY, "log_prob"), batches(params, 3)
    theta = rates.init(params)

    def outer(*values: Tensor) -> Tensor:
        start, rate = rates.split(dict(zip(theta, values, strict=True)))
        return loss(InnerLoop(loss, rates).adapt(start, data[:2], rate), data[2])

    values = [value.clone().requires_grad_() for value in theta.values()]
    assert torch.autograd.gradcheck(outer, values)
    gradients = dict(zip(theta, torch.autograd.grad(outer(*values), values), strict=True))
    for name in params if adapted is None else adapted:
        assert gradients[f"lr.{name}"].any(), name
