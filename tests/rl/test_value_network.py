"""The value network fits what is not linear, for each task and from live steps only, with a value ahead if asked."""

import pytest
import torch
from torch import Tensor

from maml_rl.rl.linear_baseline import Samples, linear
from maml_rl.rl.value_network import value_network

TIMES = torch.arange(20)
SHAPES = {
    "abs": (torch.abs, 0.25),
    "step": (lambda x: (x > 0).to(x), 0.5),
    "sine": (lambda x: torch.sin(5 * x), 0.3),
}


def uniform(tasks: int, width: int = 1, seed: int = 0) -> Tensor:
    """Observations (tasks, 10, 20, width) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(tasks, 10, 20, width, generator=generator, dtype=torch.float64) - 1


def live(tasks: int) -> Tensor:
    return torch.ones(tasks, 10, 20, dtype=torch.bool)


def fit(seen: Tensor, returns: Tensor, mask: Tensor | None = None) -> Tensor:
    """The network's values of what it was fitted to."""
    mask = live(len(seen)) if mask is None else mask
    return value_network(Samples(seen, returns, mask, seen[:, :, -1]))(seen, TIMES)


def error(found: Tensor, expected: Tensor) -> Tensor:
    """Root mean square error of each task over the standard deviation of what it should be."""
    return ((found - expected).square().mean((1, 2)) / expected.var((1, 2))).sqrt()


def explained(found: Tensor, expected: Tensor) -> Tensor:
    """R^2 of each task."""
    return 1 - error(found, expected).square()


def test_noise_is_not_remembered() -> None:
    """A network that is fitted to the returns it is subtracted from explains over half of these."""
    generator = torch.Generator().manual_seed(0)
    seen = uniform(4, width=5)
    noise = torch.randn(4, 10, 20, generator=generator, dtype=torch.float64)
    assert explained(fit(seen, noise), noise).max() < 0.02
    assert explained(linear(Samples(seen, noise, live(4), seen[:, :, -1]))(seen, TIMES), noise).min() > 0.03


def test_its_own_episodes_are_predicted_as_well_as_fresh_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    seen, fresh = uniform(4, width=5), uniform(4, width=5, seed=1)

    def returns(observations: Tensor) -> Tensor:
        noise = torch.randn(4, 10, 20, generator=generator, dtype=torch.float64)
        return torch.sin(3 * observations[..., 0]) + 0.5 * noise

    own, other = returns(seen), returns(fresh)
    value = value_network(Samples(seen, own, live(4), seen[:, :, -1]))
    here, there = explained(value(seen, TIMES), own), explained(value(fresh, TIMES), other)
    assert there.min() > 0.3
    assert (here.mean() - there.mean()).abs() < 0.06


def test_one_episode_leaves_none_to_fit_to() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        value_network(Samples(uniform(1)[:, :1], uniform(1)[:, :1, :, 0], live(1)[:, :1], uniform(1)[:, :1, 0]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tasks", [1, 10])
def test_what_is_not_linear_is_fitted(shape: str, tasks: int) -> None:
    function, share = SHAPES[shape]
    seen = uniform(tasks)
    returns = function(seen[..., 0])
    straight = linear(Samples(seen, returns, live(tasks), seen[:, :, -1]))(seen, TIMES)
    found = error(fit(seen, returns), returns)
    assert found.max() < 0.3
    # The linear baseline has the square of the observation, which serves for |x| but not for the others.
    assert (found < 2 * share * error(straight, returns)).all()


def test_hundreds_of_tasks_are_fitted_as_well_as_one() -> None:
    """A loss summed over tasks outgrows the optimiser's tolerances, which then stop it at its start."""
    seen = uniform(1)[:, :3].expand(100, -1, -1, -1)
    returns = torch.sin(5 * seen[..., 0])
    found = value_network(Samples(seen, returns, live(100)[:, :3], seen[:, :, -1]))(seen, TIMES)
    assert error(found, returns).max() < 0.2


def test_the_value_ahead_is_what_the_network_says_of_the_final_observation() -> None:
    """The equation's right side and the advantages after a time limit must speak of the same value."""
    seen, final = uniform(2), 2 + uniform(2, seed=1)[:, :, 0]
    carry = 0.95 ** (20 - TIMES).expand(2, 10, 20).double()
    returns = seen[..., 0].abs() - carry * final.abs()
    length = torch.full((2, 10), 20)
    ahead = linear(Samples(seen, returns, live(2), final, carry))(final, length)
    found = value_network(Samples(seen, returns, live(2), final, carry))(final, length)
    assert (found - ahead).abs().mean() < 0.1 * ahead.std()


def test_the_fit_does_not_depend_on_how_many_tasks_there_are() -> None:
    seen = uniform(1)
    alone = fit(seen, seen[..., 0].abs())
    many = fit(seen.expand(100, -1, -1, -1), seen[..., 0].abs().expand(100, -1, -1))
    assert error(many[:1], alone).item() < 0.03
    torch.testing.assert_close(many, many[:1].expand(100, -1, -1))


def test_each_task_has_a_fit_of_its_own() -> None:
    """L-BFGS shares one line search, so that a fit stops elsewhere beside others; by less than it is wrong anyway."""
    seen = uniform(5)
    returns = torch.sin(3 * seen[..., 0]) * torch.tensor([1.0, -1.0, 10.0, 100.0, 1000.0]).double().reshape(-1, 1, 1)
    together = fit(seen, returns)
    assert error(together, returns).max() < 0.1
    for k in range(5):
        alone = fit(seen[k : k + 1], returns[k : k + 1])
        assert error(together[k : k + 1], alone).item() < 0.1
    assert error(together[:1], -together[1:2]).item() > 1


def test_what_comes_after_the_end_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = uniform(2)
    returns = seen[..., 0].abs()
    mask = torch.arange(20) < torch.randint(1, 21, (2, 10, 1), generator=generator)
    clean = fit(seen, returns, mask)
    dirty = torch.where(mask.unsqueeze(-1), seen, 1e6 * uniform(2, seed=1))
    for garbage in (1e8, torch.inf, torch.nan):
        found = value_network(Samples(dirty, torch.where(mask, returns, garbage), mask, seen[:, :, -1]))(seen, TIMES)
        assert torch.equal(found, clean)
    assert error(torch.where(mask, clean, returns), returns).max() < 0.1


def test_a_live_step_does_count() -> None:
    seen, returns = uniform(1), uniform(1)[..., 0].abs()
    moved = returns.clone()
    moved[0, 3, 5:] += 10
    assert error(fit(seen, moved), fit(seen, returns)).item() > 0.5


def test_scale_and_offset_of_the_returns_pass_through() -> None:
    seen = uniform(2)
    returns = seen[..., 0].abs()
    plain, moved = fit(seen, returns), fit(seen, 1000 * returns - 7000)
    assert error(moved, 1000 * plain - 7000).max() < 0.03


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 1.0, 100.1, -1e4])
def test_constant_returns_are_their_own_value(constant: float, dtype: torch.dtype) -> None:
    seen = uniform(2).to(dtype)
    found = fit(seen, torch.full((2, 10, 20), constant, dtype=dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found, torch.full_like(found, constant), atol=1e-5, rtol=1e-5)


def test_a_constant_observation_is_no_obstacle() -> None:
    seen = torch.cat([uniform(2), torch.full((2, 10, 20, 1), 3.0, dtype=torch.float64)], -1)
    returns = seen[..., 0].abs()
    assert error(fit(seen, returns), returns).max() < 0.1


def test_an_observation_that_was_constant_may_move_a_little() -> None:
    """What no step has shown can have no large effect: a network standardised by a tiny deviation saturates."""
    seen = torch.cat([uniform(2), torch.full((2, 10, 20, 1), 3.0, dtype=torch.float64)], -1)
    value = value_network(Samples(seen, seen[..., 0].abs(), live(2), seen[:, :, -1]))
    moved = seen + torch.tensor([0.0, 1e-3])
    assert (value(moved, TIMES) - value(seen, TIMES)).abs().max() < 0.05


def test_only_the_time_tells_returns_apart() -> None:
    seen = torch.zeros(2, 10, 20, 1, dtype=torch.float64)
    returns = (TIMES.double() - 7).abs().expand(2, 10, 20)
    assert error(fit(seen, returns), returns).max() < 0.1


def test_a_value_ahead_is_carried() -> None:
    """V(o, t) = R + carry V(final, length), for returns that V(o, t) = |o| + t / 5 solves."""
    seen, final = uniform(2), uniform(2, seed=1)[:, :, 0]
    length = torch.arange(2, 22, 2).expand(2, 10)
    mask = length.unsqueeze(-1) > TIMES
    carry = torch.where(mask, 0.9 ** (length.unsqueeze(-1) - TIMES), 0.0)
    returns = seen[..., 0].abs() + TIMES / 5 - carry * (final[..., 0].abs() + length / 5).unsqueeze(-1)

    def wrong(carry_fitted: Tensor | None) -> Tensor:
        value = value_network(Samples(seen, returns, mask, final, carry_fitted))
        solved = value(seen, TIMES) - carry * value(final, length).unsqueeze(-1)
        return error(torch.where(mask, solved, returns), returns)

    assert wrong(carry).max() < 0.1
    assert (wrong(None) > 1.5 * wrong(carry)).all()


def test_no_carry_is_a_carry_of_zero() -> None:
    seen, returns = uniform(2), uniform(2)[..., 0].abs()

    def fitted(carry: Tensor | None) -> Tensor:
        return value_network(Samples(seen, returns, live(2), uniform(2, seed=1)[:, :, 0], carry))(seen, TIMES)

    assert error(fitted(torch.zeros(2, 10, 20)), fitted(None)).max() < 1e-3


@pytest.mark.parametrize(("discount", "horizon"), [(0.9, 30), (0.95, 20), (0.9, 1), (0.99, 10)])
def test_with_a_value_ahead_reward_one_for_ever_is_worth_its_limit(discount: float, horizon: int) -> None:
    """Of the solutions 1 / (1 - discount) + c discount^-t, whatever c, the one that does not change with time."""
    left = torch.arange(horizon, 0, -1).expand(2, 10, horizon).double()
    returns, seen = (1 - discount**left) / (1 - discount), torch.zeros(2, 10, horizon, 1, dtype=torch.float64)
    mask = torch.ones(2, 10, horizon, dtype=torch.bool)
    found = value_network(Samples(seen, returns, mask, seen[:, :, 0], discount**left))(seen, torch.arange(horizon))
    torch.testing.assert_close(found, torch.full_like(found, 1 / (1 - discount)), rtol=0.03, atol=0)


@pytest.mark.parametrize("what", ["observation", "return"])
def test_nan_is_an_error_that_says_where(what: str) -> None:
    seen = uniform(2)
    returns = seen[..., 0].abs()
    (seen if what == "observation" else returns)[1, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"for task 1:"):
        fit(seen, returns)
