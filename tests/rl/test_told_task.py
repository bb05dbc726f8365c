"""An environment that tells the task: the observation grows by the task's numbers, and nothing else changes."""

import gymnasium
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from probes import BadHeldOut, Probe
from tiny import tiny
from torch import Tensor

import maml_envs
from maml_envs import InputError, TaskEnv, ToldTask, check_contract
from maml_rl.rl.learner import environments
from maml_rl.rl.policies import GaussianPolicy
from maml_rl.rl.rollout import rollout

STEPS, BATCH = 2, 3


def actions(env: TaskEnv) -> Tensor:
    """(steps, batch, act), rows of one hot where actions are discrete."""
    random = torch.Generator().manual_seed(5)
    if env.discrete:
        arms = torch.randint(env.action_width, (STEPS, BATCH), generator=random)
        return torch.nn.functional.one_hot(arms, env.action_width).float()
    return torch.rand(STEPS, BATCH, env.action_width, generator=random) - 0.5


@pytest.mark.parametrize("name", maml_envs.names())
def test_the_observation_is_the_environments_and_then_the_task(name: str) -> None:
    plain, (told,) = (maml_envs.make(name), environments(tiny(env=name, horizon=None, method="oracle"), 1))
    assert isinstance(told, ToldTask)
    tasks, seeds = plain.sample_tasks(BATCH, torch.Generator().manual_seed(1)), torch.arange(BATCH)
    numbers, own = tasks.flatten(1), plain.observation_space.shape[0]
    assert told.observation_space.shape == (own + numbers.shape[1],)
    assert (told.action_space, told.horizon, told.max_batch) == (plain.action_space, plain.horizon, plain.max_batch)
    assert (told.copies, told.device, told.discrete) == (plain.copies, plain.device, plain.discrete)
    expected, found = plain.reset(tasks, seeds), told.reset(tasks, seeds)
    torch.testing.assert_close(found, torch.cat([expected, numbers.to(expected)], 1), rtol=0, atol=0)
    for action in actions(plain):
        one, other = plain.step(action), told.step(action)
        both = torch.cat([one.observation, numbers.to(one.observation)], 1)
        torch.testing.assert_close(other._asdict(), one._replace(observation=both)._asdict(), rtol=0, atol=0)
    for env in (plain, told):
        env.close()


@pytest.mark.parametrize("name", ["navigation", "bandit", "tabular-mdp", "half-cheetah-vel"])
def test_tasks_and_what_is_known_of_them_are_the_environments(name: str) -> None:
    env = maml_envs.make(name)
    told = ToldTask(env)
    drawn, again = (e.sample_tasks(4, torch.Generator().manual_seed(2)) for e in (env, told))
    assert torch.equal(drawn, again)
    assert torch.equal(told.held_out_tasks(5), env.held_out_tasks(5))
    assert not torch.equal(told.held_out_tasks(4), drawn)
    known, best = env.best_return(drawn), told.best_return(drawn)
    assert (known is None) == (best is None) == (name not in ("bandit", "tabular-mdp"))
    if known is not None and best is not None:
        assert torch.equal(known, best)
    try:
        beyond = env.held_out_tasks(3, "out")
    except InputError as error:
        with pytest.raises(InputError, match=str(error)):
            told.held_out_tasks(3, "out")
    else:
        assert torch.equal(told.held_out_tasks(3, "out"), beyond)
    env.close()


class Drawn(Probe):
    """Draws itself, and counts how often it is closed."""

    max_batch, copies, closed = 7, 2, 0

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        return np.full((2, 2, 3), 9, np.uint8)

    def close(self) -> None:
        self.closed += 1


def test_pictures_endings_and_limits_go_through() -> None:
    env = Drawn()
    told = ToldTask(env)
    check_contract(told)
    assert (told.max_batch, told.copies, told.horizon) == (7, 2, 3)
    assert (told.render() == 9).all()
    assert env.closed == 0
    told.close()
    assert env.closed == 1
    assert isinstance(told.observation_space, gymnasium.spaces.Box)
    with pytest.raises(InputError, match="cannot draw itself"):
        ToldTask(BadHeldOut()).render()


def test_numbers_of_a_task_by_hand() -> None:
    """A task of 2 x 2 numbers, in another type than the observation, in its rows' order."""
    observation = torch.tensor([[1.0], [2.0]])
    tasks = torch.tensor([[[3, 4], [5, 6]], [[7, 8], [9, 10]]])
    assert ToldTask.told(observation, tasks).tolist() == [[1, 3, 4, 5, 6], [2, 7, 8, 9, 10]]
    assert ToldTask.told(observation, tasks).dtype == torch.float32


def test_a_rollout_in_waves_tells_each_episode_its_own_task() -> None:
    class Few(Probe):
        max_batch = 3

    policy = GaussianPolicy(2, 1, (4,))
    params = {n: torch.stack([v] * 3) for n, v in policy.init(torch.Generator().manual_seed(0)).items()}
    tasks, seeds = torch.tensor([[0.1], [0.2], [0.3]]), torch.zeros(3, 5, dtype=torch.int64)
    found = rollout([ToldTask(Few()), ToldTask(Few())], policy, params, tasks, torch.zeros(3, 5, 3, 1), seeds)
    expected = torch.stack([torch.ones(3), tasks[:, 0]], -1)[:, None].expand(3, 5, 2)
    assert torch.equal(found.observations, expected[:, :, None].expand(3, 5, 3, 2))
    assert torch.equal(found.final_observations, expected)
