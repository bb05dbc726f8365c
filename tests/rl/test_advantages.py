"""Returns and advantages against numbers worked out by hand."""

import pytest
import torch

from maml_rl.rl.advantages import discounted_returns, gae, normalise

LIVE = torch.tensor([[True, True, True], [True, True, False]])
REWARDS = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 99.0]], dtype=torch.float64)


def test_discounted_returns_by_hand() -> None:
    expected = torch.tensor([[1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4], [1 + 0.5 * 2, 2, 0]], dtype=torch.float64)
    torch.testing.assert_close(discounted_returns(REWARDS, LIVE, 0.5), expected)


def test_bootstrap_follows_the_last_live_step() -> None:
    ahead = torch.tensor([8.0, 16.0], dtype=torch.float64)
    expected = torch.tensor([[4.0, 6.0, 8.0], [6.0, 10.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(discounted_returns(REWARDS, LIVE, 0.5, ahead), expected)


def test_infinite_horizon_needs_the_bootstrap() -> None:
    """Reward 1 for ever is worth 1 / (1 - discount); cut at 3 steps without a bootstrap it is not."""
    ones, live = torch.ones(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.bool)
    right = torch.full((1, 3), 10.0, dtype=torch.float64)
    torch.testing.assert_close(discounted_returns(ones, live, 0.9, right[:, 0]), right)
    assert discounted_returns(ones, live, 0.9)[0, 0] == pytest.approx(1 + 0.9 + 0.81)


def test_gae_by_hand() -> None:
    values = torch.tensor([[0.5, 1.0, 2.0], [0.5, 1.0, 77.0]], dtype=torch.float64)
    d2 = 4 - 2.0
    d1 = 2 + 0.5 * 2 - 1.0
    d0 = 1 + 0.5 * 1 - 0.5
    short1 = 2 - 1.0
    expected = [[d0 + 0.4 * (d1 + 0.4 * d2), d1 + 0.4 * d2, d2], [d0 + 0.4 * short1, short1, 0.0]]
    torch.testing.assert_close(gae(REWARDS, values, LIVE, 0.5, 0.8), torch.tensor(expected, dtype=torch.float64))


def test_lambda_one_is_return_minus_value() -> None:
    values = torch.tensor([[0.5, 1.0, 2.0], [0.5, 1.0, 77.0]], dtype=torch.float64)
    expected = torch.where(LIVE, discounted_returns(REWARDS, LIVE, 0.9) - values, 0.0)
    torch.testing.assert_close(gae(REWARDS, values, LIVE, 0.9, 1.0), expected)


def test_lambda_zero_is_the_temporal_difference() -> None:
    values = torch.tensor([[0.5, 1.0, 2.0], [0.5, 1.0, 77.0]], dtype=torch.float64)
    expected = torch.tensor([[1 + 0.9 * 1 - 0.5, 2 + 0.9 * 2 - 1, 4 - 2.0], [1 + 0.9 * 1 - 0.5, 1.0, 0]])
    torch.testing.assert_close(gae(REWARDS, values, LIVE, 0.9, 0.0), expected.double())


@pytest.mark.parametrize("horizon", [1, 2, 3, 7, 8, 9, 64, 65, 200])
@pytest.mark.parametrize("bootstraps", [False, True])
def test_gae_is_its_recursion(horizon: int, bootstraps: bool) -> None:
    """Step by step from the end, for episodes of all lengths, with garbage after them."""
    generator = torch.Generator().manual_seed(horizon)
    rewards, values = torch.randn(2, horizon, horizon, generator=generator, dtype=torch.float64)
    ahead = torch.randn(horizon, generator=generator, dtype=torch.float64) if bootstraps else None
    mask = torch.ones(horizon, horizon, dtype=torch.bool).tril()  # episode i has i + 1 steps
    dirty = [torch.where(mask, x, torch.nan) for x in (rewards, values)]
    found = gae(*dirty, mask, 0.97, 0.9, ahead)
    for i in range(horizon):
        advantage, following = 0.0, float(ahead[i]) if ahead is not None else 0.0
        for t in range(i, -1, -1):
            advantage = float(rewards[i, t]) + 0.97 * following - float(values[i, t]) + 0.97 * 0.9 * advantage
            following = float(values[i, t])
            assert float(found[i, t]) == pytest.approx(advantage, rel=1e-10, abs=1e-12)
    assert (found[~mask] == 0).all()


def test_normalise_pools_the_live_steps_of_a_task() -> None:
    normal = normalise(REWARDS, LIVE)
    live = normal[LIVE]
    assert live.mean() == pytest.approx(0, abs=1e-12)
    assert live.square().mean() == pytest.approx(1)
    assert normal[1, 2] == 0
    mean, std = 2.0, (2 * 1 + 0 + 0 + 4) ** 0.5 / 5**0.5
    assert normal[0, 2] == pytest.approx((4 - mean) / std)


def test_normalise_divides_by_the_standard_deviation_and_keeps_tasks_apart() -> None:
    scaled = normalise(torch.stack([REWARDS, 10 * REWARDS + 3]), torch.stack([LIVE, LIVE]))
    torch.testing.assert_close(scaled[0], scaled[1])


def test_ended_garbage_is_ignored() -> None:
    for garbage in (1e30, float("nan"), float("inf")):
        dirty = torch.where(LIVE, REWARDS, garbage)
        torch.testing.assert_close(normalise(dirty, LIVE), normalise(REWARDS, LIVE))
        torch.testing.assert_close(discounted_returns(dirty, LIVE, 0.9), discounted_returns(REWARDS, LIVE, 0.9))
