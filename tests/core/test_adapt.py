"""The inner loop against closed forms on a quadratic."""

import pytest
import torch
from torch import Tensor

from maml_rl.core.adapt import InnerLoop, Rates
from maml_rl.core.tree import Params

A = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0], dtype=torch.float64)


def quadratic(params: Params, target: Tensor) -> Tensor:
    off = params["x"] - target
    return 0.5 * off @ A @ off


RATES = Rates(0.1)
LOOP = InnerLoop(quadratic, RATES)
TARGETS = [torch.tensor([0.3, 0.1], dtype=torch.float64), torch.tensor([-1.0, 2.0], dtype=torch.float64)]


def test_one_step_is_the_gradient_step() -> None:
    moved = LOOP.step({"x": START}, TARGETS[0], 0.1)
    torch.testing.assert_close(moved["x"], START - 0.1 * A @ (START - TARGETS[0]))


def test_no_batch_changes_nothing() -> None:
    assert LOOP.adapt({"x": START}, [], 0.1)["x"] is START


def test_the_given_parameters_are_left_alone() -> None:
    before = START.clone()
    LOOP.adapt({"x": START}, TARGETS, 0.1)
    assert torch.equal(before, START)


@pytest.mark.parametrize("first_order", [False, True])
def test_jacobian_of_two_steps(first_order: bool) -> None:
    """D adapted / d start is (I - lr A)^2 for second order, I for first order."""

    def through(x: Tensor) -> Tensor:
        return InnerLoop(quadratic, RATES, first_order).adapt({"x": x}, TARGETS, 0.1)["x"]

    jacobian = torch.autograd.functional.jacobian(through, START)
    step = torch.eye(2, dtype=torch.float64) - 0.1 * A
    expected = torch.eye(2, dtype=torch.float64) if first_order else step @ step
    torch.testing.assert_close(jacobian, expected)


def test_values_do_not_depend_on_the_order_of_differentiation() -> None:
    one, two = (InnerLoop(quadratic, RATES, first).adapt({"x": START}, TARGETS, 0.1)["x"] for first in (False, True))
    assert torch.equal(one, two)


def test_a_rate_for_each_parameter() -> None:
    def loss(params: Params, scale: Tensor) -> Tensor:
        return scale * (params["x"].square().sum() + params["y"].square().sum())

    params = {"x": START, "y": START}
    rates = {"x": torch.tensor([0.1, 0.2], dtype=torch.float64), "y": torch.zeros(2, dtype=torch.float64)}
    moved = InnerLoop(loss, RATES).step(params, torch.tensor(1.0, dtype=torch.float64), rates)
    torch.testing.assert_close(moved["x"], START - torch.tensor([0.1, 0.2]) * 2 * START)
    assert torch.equal(moved["y"], START)


def test_a_rate_can_be_learned() -> None:
    rate = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)
    LOOP.step({"x": START}, TARGETS[0], {"x": rate})["x"].sum().backward()
    torch.testing.assert_close(rate.grad, -A @ (START - TARGETS[0]))


def test_vmap_gives_each_task_its_own_step() -> None:
    targets = torch.stack(TARGETS)
    stacked = torch.func.vmap(lambda t: LOOP.step({"x": START}, t, 0.1)["x"])(targets)
    for row, target in zip(stacked, targets, strict=True):
        torch.testing.assert_close(row, LOOP.step({"x": START}, target, 0.1)["x"])


def test_a_careful_step_is_halved_until_the_loss_falls_and_left_out_where_it_does_not() -> None:
    """On x^2 / 2 a step of rate r gives (1 - r) x: the loss falls for r < 2, and stays the same for r = 2."""
    loop = InnerLoop(lambda params, _: 0.5 * params["x"].square().sum(), RATES)
    start = {"x": torch.tensor([3.0], dtype=torch.float64)}
    for rate, backtracks, expected in ((0.5, 3, 1.5), (2.0, 3, 0.0), (3.0, 3, -1.5), (7.0, 1, 3.0), (7.0, 2, -2.25)):
        moved = loop.careful_step(start, None, rate, backtracks)
        assert float(moved["x"]) == pytest.approx(expected)
    many = {"x": torch.tensor([[3.0], [1e308], [float("inf")]], dtype=torch.float64)}
    step = torch.func.vmap(lambda params, rate: loop.careful_step(params, None, rate, 2))
    moved = step(many, torch.tensor([3.0, 3.0, 3.0], dtype=torch.float64))["x"].flatten()
    assert moved.tolist()[:2] == [-1.5, 1e308]  # a loss that is infinite does not fall
    *_, last = loop.path(start, [None] * 40, 3.0, backtracks=3)
    assert abs(float(last["x"])) < 1e-9
