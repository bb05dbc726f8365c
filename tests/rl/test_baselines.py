"""The linear baseline recovers what is linear, per task, from live steps only."""

import pytest
import torch

from maml_rl.rl.baselines import none
from maml_rl.rl.linear_baseline import Samples, features, linear, ridge_regression


def test_features_by_hand() -> None:
    row = features(torch.tensor([[2.0, -30.0]]), torch.tensor([50]))
    expected = [2.0, -10.0, 4.0, 100.0, 0.5, 0.25, 0.125, 1.0]
    torch.testing.assert_close(row, torch.tensor([expected], dtype=torch.float64))


def test_a_linear_target_is_fitted_exactly_for_each_task() -> None:
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(3, 5, 150, 2, generator=generator, dtype=torch.float64)
    times = torch.arange(150)
    table = features(observations, times.expand(3, 5, 150))
    target = torch.einsum("kbtf,kf->kbt", table, torch.randn(3, 8, generator=generator, dtype=torch.float64))
    live = torch.rand(3, 5, 150, generator=generator) < 0.8
    dirty = torch.where(live, target, 1e6)
    predicted = linear(Samples(observations, dirty, live, observations[:, :, -1]))(observations, times)
    torch.testing.assert_close(predicted, target, atol=1e-4, rtol=1e-4)


def test_ridge_regression_solves_the_regularised_normal_equations() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 9, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    found = ridge_regression(x, y, torch.ones(2, 9, dtype=torch.float64))
    for k in range(2):
        system = x[k].mT @ x[k] + 1e-5 * torch.eye(3, dtype=torch.float64)
        torch.testing.assert_close(system @ found[k], x[k].mT @ y[k])


def test_only_the_singular_task_gets_a_larger_ridge() -> None:
    x = torch.ones(2, 4, 2, dtype=torch.float64)
    x[0] *= 1e9  # rounding makes its Gram matrix indefinite beside a ridge of 1e-5
    x[1, :, 0] = torch.arange(4)
    y = torch.ones(2, 4, dtype=torch.float64)
    weights = torch.ones(2, 4, dtype=torch.float64)
    alone = ridge_regression(x[1:], y[1:], weights[1:])
    with pytest.raises(FloatingPointError, match=r"for task 0:"):
        ridge_regression(x, y, weights)
    x[0] = 0  # all zero: solvable by the ridge alone, weights 0
    torch.testing.assert_close(ridge_regression(x, y, weights)[1:], alone)


def test_prediction_at_another_time_uses_the_time_features() -> None:
    live = torch.ones(1, 2, 30, dtype=torch.bool)
    returns = (torch.arange(30) / 100).expand(1, 2, 30).double()
    seen = torch.zeros(1, 2, 30, 1, dtype=torch.float64)
    value = linear(Samples(seen, returns, live, seen[:, :, -1]))
    ahead = value(torch.zeros(1, 2, 1, dtype=torch.float64), torch.full((1, 2), 40))
    torch.testing.assert_close(ahead, torch.full((1, 2), 0.4, dtype=torch.float64), atol=1e-2, rtol=0)


def test_none_is_zero() -> None:
    observations = torch.randn(1, 2, 3, 4)
    returns = torch.ones(1, 2, 3)
    live = torch.ones(1, 2, 3, dtype=torch.bool)
    assert torch.equal(
        none(Samples(observations, returns, live, observations[:, :, -1]))(observations, torch.arange(3)),
        torch.zeros(1, 2, 3),
    )


@pytest.mark.parametrize(("discount", "horizon"), [(0.9, 30), (0.99, 10), (0.999, 3)])
def test_with_a_value_ahead_reward_one_for_ever_is_worth_its_limit(discount: float, horizon: int) -> None:
    """V = 1 / (1 - discount) at every step; without the value ahead, the return of the steps that are left."""
    live = torch.ones(1, 2, horizon, dtype=torch.bool)
    left = torch.arange(horizon, 0, -1).expand(1, 2, horizon).double()
    returns, seen = (1 - discount**left) / (1 - discount), torch.zeros(1, 2, horizon, 1, dtype=torch.float64)
    times = torch.arange(horizon)
    right = linear(Samples(seen, returns, live, seen[:, :, -1], discount**left))(seen, times)
    torch.testing.assert_close(right, torch.full_like(right, 1 / (1 - discount)), rtol=1e-6, atol=0)
    assert linear(Samples(seen, returns, live, seen[:, :, -1]))(seen, times)[0, 0, horizon - 1] < 2
