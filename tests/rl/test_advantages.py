"""Returns and advantages against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from maml_rl.config.rl import Baseline, Config
from maml_rl.rl.advantages import discounted_returns, gae, normalise, to_batch
from maml_rl.rl.data import Trajectory
from maml_rl.rl.distributions import Normal

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
    normal, divisor = normalise(REWARDS, LIVE)
    live = normal[LIVE]
    assert live.mean() == pytest.approx(0, abs=1e-12)
    assert live.square().mean() == pytest.approx(1)
    assert normal[1, 2] == 0
    mean, std = 2.0, (2 * 1 + 0 + 0 + 4) ** 0.5 / 5**0.5
    assert normal[0, 2] == pytest.approx((4 - mean) / std)
    assert divisor == pytest.approx(std)


def test_normalise_divides_by_the_standard_deviation_and_keeps_tasks_apart() -> None:
    scaled, divisor = normalise(torch.stack([REWARDS, 10 * REWARDS + 3]), torch.stack([LIVE, LIVE]))
    torch.testing.assert_close(scaled[0], scaled[1])
    assert float(divisor[1] / divisor[0]) == pytest.approx(10)


def test_normalise_divides_by_no_less_than_it_is_told() -> None:
    tasks, live = torch.stack([REWARDS, REWARDS]), torch.stack([LIVE, LIVE])
    free, std = normalise(tasks, live)
    held, divisor = normalise(tasks, live, torch.tensor([0.5, 2.0]) * std)
    torch.testing.assert_close(held, free * torch.tensor([1.0, 0.5]).double()[:, None, None])
    torch.testing.assert_close(divisor, std * torch.tensor([1.0, 2.0]).double())


def test_ended_garbage_is_ignored() -> None:
    for garbage in (1e30, float("nan"), float("inf")):
        dirty = torch.where(LIVE, REWARDS, garbage)
        torch.testing.assert_close(normalise(dirty, LIVE)[0], normalise(REWARDS, LIVE)[0])
        torch.testing.assert_close(discounted_returns(dirty, LIVE, 0.9), discounted_returns(REWARDS, LIVE, 0.9))


def made(lengths: list[int], truncated: list[bool], seed: int = 0) -> Trajectory:
    """One task's episodes of these lengths, of random numbers, with garbage after their ends."""
    generator = torch.Generator().manual_seed(seed)
    episodes, steps = len(lengths), max(lengths)
    observations, actions, mean = torch.randn(3, 1, episodes, steps, 2, generator=generator, dtype=torch.float64)
    rewards = torch.randn(1, episodes, steps, generator=generator, dtype=torch.float64)
    final = torch.randn(1, episodes, 2, generator=generator, dtype=torch.float64)
    mask = torch.arange(steps) < torch.tensor(lengths).unsqueeze(-1)
    behaviour = Normal(mean, torch.zeros_like(mean))
    return Trajectory(observations, actions, rewards, mask[None], torch.tensor([truncated]), final, behaviour)


def feature(observation: np.ndarray, time: int) -> np.ndarray:
    seen = np.clip(observation, -10, 10)
    return np.concatenate([seen, seen**2, [time / 100, (time / 100) ** 2, (time / 100) ** 3, 1.0]])


@pytest.mark.parametrize("decay", [1.0, 0.8])
def test_what_follows_a_time_limit_step_by_step(decay: float) -> None:
    """All of ``to_batch`` with bootstrap_on_truncation, over again in loops: the fit, the values, the recursion."""
    lengths, truncated, discount = [6, 3, 5, 4], [True, False, True, True], 0.7
    data = made(lengths, truncated)
    seen, rewards, final = (part[0].numpy() for part in (data.observations, data.rewards, data.final_observations))
    x, y, share = [], [], []
    for b, length in enumerate(lengths):
        for t in range(length):
            ahead = discount ** (length - t) if truncated[b] else 0.0
            x.append(feature(seen[b, t], t) - ahead * feature(final[b], length))
            y.append(sum(discount ** (s - t) * rewards[b, s] for s in range(t, length)))
            share.append(1 - ahead)
    constant = np.dot(share, y) / np.dot(share, share)
    design, target = np.array(x), np.array(y) - constant * np.array(share)
    weights = np.linalg.solve(design.T @ design + 1e-5 * np.eye(8), design.T @ target)

    def value(observation: np.ndarray, time: int) -> float:
        return constant + feature(observation, time) @ weights

    expected = np.zeros((4, 6))
    for b, length in enumerate(lengths):
        following, advantage = value(final[b], length) if truncated[b] else 0.0, 0.0
        for t in reversed(range(length)):
            own = value(seen[b, t], t)
            advantage = rewards[b, t] + discount * following - own + discount * decay * advantage
            expected[b, t], following = advantage, own
    config = Config(
        env="navigation", discount=discount, gae_lambda=decay, bootstrap_on_truncation=True, normalise_advantages=False
    )
    np.testing.assert_allclose(to_batch(data, config)[0].advantages[0], expected, rtol=1e-6, atol=1e-8)


def test_every_live_step_of_a_task_weighs_the_same() -> None:
    """Episodes of 1 and 3 steps: each step a quarter, and not each episode a half."""
    batch, _ = to_batch(made([1, 3], [False, False]), Config(env="navigation"))
    assert batch.weights.tolist() == [[[0.25, 0.0, 0.0], [0.25, 0.25, 0.25]]]


def nearly_constant(reward: float, noise: float, seed: int = 0) -> Trajectory:
    """One task, 4 episodes of 5 steps, whose rewards hardly differ."""
    data = made([5, 5, 5, 5], [False] * 4, seed)
    return data._replace(rewards=reward + noise * data.rewards)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_advantages_are_divided_by_a_share_of_the_returns_at_least(share: float) -> None:
    config = Config(
        env="navigation", discount=1.0, gae_lambda=1.0, advantage_floor=share, baseline=Baseline(name="none")
    )
    quiet, loud = (to_batch(nearly_constant(10.0, noise), config) for noise in (1e-3, 10.0))
    ramp = torch.arange(50.0, 0, -10).double()
    size = float(ramp.square().mean().sqrt())  # returns 50, 40, .. 10, all but exactly
    assert float(quiet[1].returns) == pytest.approx(size, rel=1e-3)
    std = float(ramp.std(correction=0))
    assert float(quiet[1].advantages) == pytest.approx(max(std, share * size), rel=1e-3)
    assert float(loud[0].advantages.square().mean()) == pytest.approx(1, rel=1e-6)


def test_what_a_solved_task_leaves_is_not_blown_up() -> None:
    """Episodes that cost 20 at first and next to nothing after an inner step: a further step has noise to follow."""
    config = Config(env="navigation", advantage_floor=0.01)
    _, first = to_batch(nearly_constant(-4.0, 1.0), config)
    solved = nearly_constant(-1e-3, 1e-3, seed=1)
    alone, own = to_batch(solved, config)
    after, carried = to_batch(solved, config, before=first)
    assert float(alone.advantages.square().mean()) == pytest.approx(1, rel=1e-3)
    assert float(after.advantages.square().mean()) < 0.01
    assert torch.equal(carried.returns, first.returns)
    assert first.returns > 100 * own.returns
    free, _ = to_batch(solved, config.model_copy(update={"advantage_floor": 0.0}), before=first)
    assert torch.equal(free.advantages, alone.advantages)
