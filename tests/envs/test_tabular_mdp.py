"""Tabular MDPs: transitions and rewards are the task's, and depend on a row's seed alone."""

import math

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from maml_envs import InputError, check_contract
from maml_envs.adapters.to_gymnasium import SingleEnv
from maml_envs.tabular_mdp import TabularMDP

N = 20000

# Action 0 moves 0 -> 1 -> 2 -> 0 and action 1 stays; the mean reward of state s and action a is 10 s + a.
CYCLE = torch.tensor(
    [
        [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]],
        [[0.0, 0.0, 1.0, 10.0], [0.0, 1.0, 0.0, 11.0]],
        [[1.0, 0.0, 0.0, 20.0], [0.0, 0.0, 1.0, 21.0]],
    ]
)


def one_hot(index: Tensor, width: int) -> Tensor:
    return torch.nn.functional.one_hot(index, width).float()


def lottery(*chances: float, mean: float = 0.0) -> Tensor:
    """A task (S, 1, S + 1) with one action, whose next state has these chances in every state."""
    row = torch.tensor([*chances, mean])
    return row.expand(len(chances), 1, -1)


def play(task: Tensor, steps: int, rows: int = N) -> tuple[Tensor, Tensor]:
    """States (rows, steps) after each step and rewards (rows, steps) of the only action, for seeds 0, 1, ..."""
    env = TabularMDP(states=len(task), actions=1)
    env.reset(task.expand(rows, -1, -1, -1), torch.arange(rows))
    done = [env.step(torch.ones(rows, 1)) for _ in range(steps)]
    return torch.stack([s.observation.argmax(-1) for s in done], -1), torch.stack([s.reward for s in done], -1)


def within(value: Tensor | float, expected: float, deviation: float) -> bool:
    return abs(float(value) - expected) < 4.5 * deviation


def test_defaults() -> None:
    env = TabularMDP()
    assert (env.preset, env.horizon, env.action_width) == ("duan2016", 10, 5)
    assert env.observation_space.shape == (10,)
    assert env.action_space == gymnasium.spaces.Discrete(5)
    assert (TabularMDP(horizon=4).horizon, TabularMDP(states=3, actions=2).action_width) == (4, 2)
    check_contract(env)
    check_contract(TabularMDP(states=3, actions=2))


def test_deterministic_transitions_by_hand() -> None:
    env = TabularMDP(states=3, actions=2)
    first = env.reset(CYCLE.expand(2, -1, -1, -1), torch.arange(2))
    assert first.tolist() == [[1.0, 0.0, 0.0]] * 2
    # Row 0 walks the cycle with one stop, row 1 stops first.
    for actions, states, means in (
        ((0, 1), (1, 0), (0.0, 1.0)),
        ((1, 0), (1, 1), (11.0, 0.0)),
        ((0, 0), (2, 2), (10.0, 10.0)),
        ((0, 1), (0, 2), (20.0, 21.0)),
    ):
        step = env.step(one_hot(torch.tensor(actions), 2))
        assert torch.equal(step.observation, one_hot(torch.tensor(states), 3))
        assert torch.equal(step.info["mean_reward"], torch.tensor(means))
        assert (step.reward - torch.tensor(means)).abs().max() < 5
        assert not step.terminated.any()
        assert not step.truncated.any()


def test_every_episode_starts_in_state_0() -> None:
    env = TabularMDP(states=3, actions=2)
    for _ in range(2):
        assert torch.equal(env.reset(CYCLE.expand(4, -1, -1, -1), torch.arange(4)), one_hot(torch.zeros(4).long(), 3))
        env.step(one_hot(torch.zeros(4).long(), 2))


def test_the_next_state_has_the_given_probabilities() -> None:
    chances = (0.05, 0.6, 0.0, 0.35)
    states, _ = play(lottery(*chances), steps=2)
    for step in range(2):
        for state, chance in enumerate(chances):
            frequency = (states[:, step] == state).double().mean()
            assert abs(frequency - chance) <= 4.5 * math.sqrt(chance * (1 - chance) / N)
    # The second draw is a new one.
    assert torch.corrcoef(states.double().T)[0, 1].abs() < 4.5 / math.sqrt(N)


def test_probabilities_are_those_of_the_state_one_is_in() -> None:
    stay = torch.tensor([[[0.9, 0.1, 0.0]], [[0.3, 0.7, 0.0]]])
    states, _ = play(stay, steps=2)
    for state, chance in ((0, 0.1), (1, 0.7)):
        after = states[states[:, 0] == state, 1].double()
        assert within(after.mean(), chance, math.sqrt(chance * (1 - chance) / len(after)))


def test_rewards_have_their_mean_deviation_one_and_nothing_to_do_with_the_next_state() -> None:
    states, rewards = play(lottery(0.5, 0.5, mean=3.0), steps=2)
    rewards = rewards.double()
    assert within(rewards.mean(), 3.0, math.sqrt(1 / (2 * N)))
    assert within(rewards.var(), 1.0, math.sqrt(2 / (2 * N)))
    # Columns: both steps' rewards and both next states, of a seed and of the next one, all unrelated.
    columns = torch.cat([rewards, states.double()], -1)
    columns = torch.cat([columns[:-1], columns[1:]], -1)
    assert torch.corrcoef(columns.T).triu(1).abs().max() < 4.5 / math.sqrt(N)


def test_a_sum_of_probabilities_below_one_leads_to_no_state_that_is_not_there() -> None:
    # What rounding does, made large: a tenth of the draws lie above the sum.
    states, _ = play(lottery(0.45, 0.45), steps=3, rows=500)
    assert states.unique().tolist() == [0, 1]
    states, _ = play(lottery(0.9, 0.0), steps=3, rows=500)
    assert states.unique().tolist() == [0]


def test_a_row_depends_on_its_seed_task_and_actions_alone() -> None:
    env, generator = TabularMDP(states=4, actions=3), torch.Generator().manual_seed(0)
    tasks, seeds = env.sample_tasks(30, generator), torch.randint(2**62, (30,), generator=generator)
    actions = one_hot(torch.randint(3, (5, 30), generator=generator), 3)

    def episode(rows: Tensor) -> Tensor:
        env.reset(tasks[rows], seeds[rows])
        steps = [env.step(action[rows]) for action in actions]
        return torch.stack([torch.cat([s.observation, s.reward.unsqueeze(-1)], -1) for s in steps])

    whole = episode(torch.arange(30))
    assert torch.equal(episode(torch.arange(30)), whole)
    order = torch.randperm(30, generator=generator)
    assert torch.equal(episode(order), whole[:, order])
    for row in (0, 11, 29):
        assert torch.equal(episode(torch.tensor([row])), whole[:, row : row + 1])
    assert torch.equal(episode(torch.tensor([3, 3])), whole[:, [3, 3]])
    assert whole[..., -1].unique().numel() == 5 * 30


@pytest.mark.parametrize(("states", "actions"), [(10, 5), (3, 2)])
def test_tasks_are_dirichlet_rows_and_normal_rewards(states: int, actions: int) -> None:
    count = 2000
    tasks = TabularMDP(states=states, actions=actions).sample_tasks(count, torch.Generator().manual_seed(3)).double()
    assert tasks.shape == (count, states, actions, states + 1)
    chances, means = tasks[..., :-1], tasks[..., -1]
    assert (chances >= 0).all()
    torch.testing.assert_close(chances.sum(-1), torch.ones(count, states, actions).double(), rtol=0, atol=1e-6)
    # Each chance is Beta(1, S - 1); its square has the mean 2 / (S (S + 1)) and its fourth power 24 / (S ... (S + 3)).
    for state in range(states):
        chance = chances[..., state].flatten()
        square = 2 / (states * (states + 1))
        fourth = 12 * square / ((states + 2) * (states + 3))
        assert within(chance.mean(), 1 / states, math.sqrt((square - 1 / states**2) / len(chance)))
        assert within(chance.square().mean(), square, math.sqrt((fourth - square**2) / len(chance)))
    assert within(means.mean(), 1.0, math.sqrt(1 / means.numel()))
    assert within(means.var(), 1.0, math.sqrt(2 / means.numel()))


def test_held_out_tasks_are_fixed() -> None:
    assert torch.equal(TabularMDP().held_out_tasks(3), TabularMDP().held_out_tasks(3))


def test_the_gymnasium_view_takes_an_index() -> None:
    env = SingleEnv(TabularMDP(states=3, actions=2, horizon=3))
    assert env.action_space == gymnasium.spaces.Discrete(2)
    env.reset(seed=0)
    for action in (2, -1, 0.7, "1", None, float("nan"), [0, 1]):
        with pytest.raises(InputError, match="is not one of the 2 actions"):
            env.step(action)
    env.step(np.array(1))
    first, _ = env.reset(seed=0, options={"task": CYCLE})
    steps = [env.step(action) for action in (0, 1, 0)]
    assert [first.tolist(), *(row.tolist() for row, *_ in steps)] == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert [info["mean_reward"] for *_, info in steps] == [0.0, 11.0, 10.0]
    assert [truncated for *_, truncated, _ in steps] == [False, False, True]
