"""Bandits: rewards have the task's means and depend on a row's seed alone."""

import math

import gymnasium
import pytest
import torch
from torch import Tensor

from maml_envs import InputError, check_contract
from maml_envs.adapters.to_gymnasium import SingleEnv
from maml_envs.bandit import Bandit

N = 20000
PRESETS = pytest.mark.parametrize("preset", ["bernoulli", "gaussian"])


def one_hot(arms: Tensor, width: int) -> Tensor:
    return torch.nn.functional.one_hot(arms, width).float()


def pull(preset: str, means: list[float], arm: int, pulls: int = 1) -> Tensor:
    """Rewards (N, pulls) of one arm of one task, a row for each seed 0, 1, ..."""
    env = Bandit(preset, arms=len(means))
    env.reset(torch.tensor(means).expand(N, -1), torch.arange(N))
    action = one_hot(torch.full((N,), arm), len(means))
    return torch.stack([env.step(action).reward for _ in range(pulls)], -1)


def within(value: Tensor | float, expected: float, deviation: float) -> bool:
    return abs(float(value) - expected) < 4.5 * deviation


def test_defaults() -> None:
    env = Bandit()
    assert Bandit.presets == ("bernoulli", "gaussian")
    assert (env.preset, env.horizon, env.action_width, env.discrete) == ("bernoulli", 10, 5, True)
    assert env.action_space == gymnasium.spaces.Discrete(5)
    assert env.observation_space.shape == (1,)
    assert (Bandit(horizon=3).horizon, Bandit(arms=7).action_width) == (3, 7)


@PRESETS
def test_the_contract_is_kept(preset: str) -> None:
    check_contract(Bandit(preset))
    check_contract(Bandit(preset, arms=2))


@pytest.mark.parametrize("arm", range(4))
def test_an_arm_pays_with_its_probability(arm: int) -> None:
    means = [0.0, 0.2, 0.7, 1.0]
    rewards = pull("bernoulli", means, arm, pulls=2)
    assert set(rewards.unique().tolist()) <= {0.0, 1.0}
    p = means[arm]
    assert abs(float(rewards.mean()) - p) <= 4.5 * math.sqrt(p * (1 - p) / (2 * N))


@pytest.mark.parametrize("arm", range(3))
def test_an_arm_pays_its_mean_and_noise_of_deviation_one(arm: int) -> None:
    means = [-2.0, 0.0, 5.0]
    rewards = pull("gaussian", means, arm, pulls=2).double()
    assert within(rewards.mean(), means[arm], math.sqrt(1 / (2 * N)))
    assert within(rewards.var(), 1.0, math.sqrt(2 / (2 * N)))
    # A Gaussian's tails, not a uniform's.
    assert within((rewards - means[arm]).pow(4).mean(), 3.0, math.sqrt(96 / (2 * N)))


def test_the_noise_is_the_same_whatever_arm_is_pulled() -> None:
    low, high = (pull("gaussian", [-1.0, 1.0], arm) for arm in (0, 1))
    torch.testing.assert_close(high - low, torch.full((N, 1), 2.0))


@PRESETS
def test_pulls_are_unrelated_and_so_are_seeds(preset: str) -> None:
    rewards = pull(preset, [0.5, 0.5], 0, pulls=3)
    assert torch.corrcoef(rewards.T).triu(1).abs().max() < 4.5 / math.sqrt(N)
    # Nor is a seed's pull the one before or after of the next seed.
    neighbours = torch.cat([rewards[:-1], rewards[1:]], -1)
    assert torch.corrcoef(neighbours.T).triu(1).abs().max() < 4.5 / math.sqrt(N)


@PRESETS
def test_a_rows_rewards_depend_on_its_seed_task_and_action_alone(preset: str) -> None:
    env, generator = Bandit(preset, arms=3), torch.Generator().manual_seed(0)
    tasks, seeds = env.sample_tasks(40, generator), torch.randint(2**62, (40,), generator=generator)
    actions = one_hot(torch.randint(3, (4, 40), generator=generator), 3)

    def play(rows: Tensor) -> Tensor:
        env.reset(tasks[rows], seeds[rows])
        return torch.stack([env.step(action[rows]).reward for action in actions])

    whole = play(torch.arange(40))
    assert torch.equal(play(torch.arange(40)), whole)
    order = torch.randperm(40, generator=generator)
    assert torch.equal(play(order), whole[:, order])
    for row in (0, 7, 39):
        assert torch.equal(play(torch.tensor([row])), whole[:, row : row + 1])
    assert torch.equal(play(torch.tensor([3, 3])), whole[:, [3, 3]])
    assert whole[0].unique().numel() == (2 if preset == "bernoulli" else 40)


@PRESETS
def test_info_is_the_mean_of_the_arm_and_nothing_ends(preset: str) -> None:
    env = Bandit(preset, arms=3)
    first = env.reset(torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]), torch.arange(2))
    assert torch.equal(first, torch.ones(2, 1))
    for arms, means in (([2, 0], [0.3, 0.4]), ([0, 1], [0.1, 0.5])):
        step = env.step(one_hot(torch.tensor(arms), 3))
        assert list(step.info) == ["mean_reward"]
        assert torch.equal(step.info["mean_reward"], torch.tensor(means))
        assert torch.equal(step.observation, torch.ones(2, 1))
        assert not step.terminated.any()
        assert not step.truncated.any()


def test_bernoulli_tasks_are_uniform() -> None:
    tasks = Bandit("bernoulli", arms=2).sample_tasks(N, torch.Generator().manual_seed(1)).double()
    assert tasks.shape == (N, 2)
    assert 0 <= tasks.min() < 1e-3
    assert 1 - 1e-3 < tasks.max() <= 1
    assert within(tasks.mean(), 1 / 2, math.sqrt(1 / 12 / (2 * N)))
    assert within(tasks.var(), 1 / 12, math.sqrt(1 / 180 / (2 * N)))
    assert within(torch.corrcoef(tasks.T)[0, 1], 0.0, 1 / math.sqrt(N))


def test_gaussian_tasks_are_standard_normal() -> None:
    tasks = Bandit("gaussian", arms=2).sample_tasks(N, torch.Generator().manual_seed(1)).double()
    assert tasks.shape == (N, 2)
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        assert within((tasks**power).mean(), expected, math.sqrt(variance / (2 * N)))
    assert within(torch.corrcoef(tasks.T)[0, 1], 0.0, 1 / math.sqrt(N))


@PRESETS
def test_held_out_tasks_are_fixed_and_none_lie_beyond(preset: str) -> None:
    assert torch.equal(Bandit(preset).held_out_tasks(4), Bandit(preset).held_out_tasks(4))
    with pytest.raises(InputError, match="Bandit has no held-out tasks with split='out'"):
        Bandit(preset).held_out_tasks(4, "out")


def test_the_gymnasium_view_takes_an_index() -> None:
    env = SingleEnv(Bandit("bernoulli", arms=3, horizon=3))
    assert env.action_space == gymnasium.spaces.Discrete(3)
    env.reset(seed=0, options={"task": [0.0, 1.0, 0.0]})
    steps = [env.step(arm) for arm in (0, 1, 2)]
    assert [reward for _, reward, *_ in steps] == [0.0, 1.0, 0.0]
    assert [info["mean_reward"] for *_, info in steps] == [0.0, 1.0, 0.0]
    assert [truncated for *_, truncated, _ in steps] == [False, False, True]
