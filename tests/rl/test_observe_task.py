"""A policy that observes the task: its observation grows by the task's numbers, and nothing else changes."""

import gymnasium
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from probes import BadHeldOut, Good, Probe
from tiny import tiny
from torch import Tensor

import maml_envs
from maml_envs import InputError, check_contract, random
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params, map_tensors
from maml_rl.rl.distributions import Distribution
from maml_rl.rl.episodes import begin, with_task
from maml_rl.rl.learner import build, environments
from maml_rl.rl.policies import CategoricalPolicy, GaussianPolicy
from maml_rl.rl.rollout import Sampler

STEPS, BATCH = 2, 3


def stacked(policy: GaussianPolicy | CategoricalPolicy, tasks: int) -> Params:
    return {n: torch.stack([v] * tasks) for n, v in policy.init(torch.Generator().manual_seed(0)).items()}


class Blind:
    """Acts on the first numbers of an observation alone."""

    def __init__(self, policy: GaussianPolicy | CategoricalPolicy) -> None:
        self.policy = policy

    def __call__(self, params: Params, observation: Tensor) -> Distribution:
        return self.policy(params, observation[..., : self.policy.observations].contiguous())

    def control(self, action: Tensor) -> Tensor:
        return self.policy.control(action)


@pytest.mark.parametrize("name", maml_envs.names())
def test_the_observation_is_the_environments_and_then_the_task(name: str) -> None:
    config = tiny(env=name, horizon=None, method="oracle")
    plain, (told,), learner = maml_envs.make(name), environments(config, 1), build(config)
    tasks, seeds = plain.sample_tasks(BATCH, torch.Generator().manual_seed(1)), torch.arange(BATCH).unsqueeze(-1)
    numbers, own = tasks.flatten(1), plain.observation_space.shape[0]
    assert (learner.sampler.observe_task, learner.policy.observations) == (True, own + numbers.shape[1])
    for env in (told, learner.env):
        assert (type(env), env.observation_space) == (type(plain), plain.observation_space)
        assert (env.action_space, env.horizon, env.max_batch) == (plain.action_space, plain.horizon, plain.max_batch)
        assert (env.copies, env.device, env.discrete) == (plain.copies, plain.device, plain.discrete)
    policy = (CategoricalPolicy if plain.discrete else GaussianPolicy)(own, plain.action_width, (4,))
    noise = random.normal(seeds, (STEPS, plain.action_width)).float()
    arguments = (stacked(policy, BATCH), tasks, noise, seeds, TaskAxis(BATCH))
    expected = Sampler([plain], policy).rollout(*arguments)
    found = Sampler([told], Blind(policy), observe_task=True).rollout(*arguments)
    told_of = numbers.to(expected.observations)[:, None]
    both = expected._replace(
        observations=torch.cat([expected.observations, told_of[:, :, None].expand(-1, -1, STEPS, -1)], -1),
        final_observations=torch.cat([expected.final_observations, told_of], -1),
    )
    map_tensors(lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0) or a, found, both)
    for env in (plain, told, learner):
        env.close()


@pytest.mark.parametrize("name", ["navigation", "bandit", "tabular-mdp", "half-cheetah-vel"])
def test_tasks_and_what_is_known_of_them_are_the_environments(name: str) -> None:
    env = maml_envs.make(name)
    learner = build(tiny(env=name, horizon=None, method="oracle"))
    told = learner.env
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
    learner.close()


class Drawn(Probe):
    """Draws itself, and counts how often it is closed."""

    max_batch, copies, closed = 7, 2, 0

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        return np.full((2, 2, 3), 9, np.uint8)

    def close(self) -> None:
        self.closed += 1


def test_pictures_endings_and_limits_are_the_environments() -> None:
    learner = build(tiny(env="test_observe_task:Drawn", horizon=None, method="oracle"))
    env, envs = learner.env, learner.sampler.envs
    check_contract(env)
    assert (env.max_batch, env.copies, env.horizon) == (7, 2, 3)
    assert (env.render() == 9).all()
    assert [each.closed for each in envs] == [0, 0]
    learner.close()
    assert [each.closed for each in envs] == [1, 1]
    assert isinstance(env.observation_space, gymnasium.spaces.Box)
    undrawn = build(tiny(env="probes:BadHeldOut", horizon=None, method="oracle")).env
    assert isinstance(undrawn, BadHeldOut)
    with pytest.raises(InputError, match="cannot draw itself"):
        undrawn.render()


def test_numbers_of_a_task_by_hand() -> None:
    """A task of 2 x 2 numbers, in another type than the observation, in its rows' order."""
    observation = torch.tensor([[1.0], [2.0]])
    tasks = torch.tensor([[[3, 4], [5, 6]], [[7, 8], [9, 10]]])
    assert with_task(observation, tasks.flatten(1)).tolist() == [[1, 3, 4, 5, 6], [2, 7, 8, 9, 10]]
    assert with_task(observation, tasks.flatten(1)).dtype == torch.float32
    assert with_task(observation, None) is observation
    params, seeds = {"log_std": torch.zeros(2, 2)}, torch.zeros(2, 3, dtype=torch.int64)
    constants, carry = begin(Good(), params, tasks, seeds, observe_task=True)
    rows = [[0, 0, 0, 3, 4, 5, 6]] * 3, [[0, 0, 0, 7, 8, 9, 10]] * 3
    assert carry.observation.tolist() == carry.final.tolist() == list(rows)
    assert carry.observation.dtype == constants.task.dtype == torch.float32
    blind, carry = begin(Good(), params, tasks, seeds, observe_task=False)
    assert (blind.task, carry.observation.tolist()) == (None, [[[0, 0, 0]] * 3] * 2)


def test_a_rollout_in_waves_tells_each_episode_its_own_task() -> None:
    class Few(Probe):
        max_batch = 3

    policy = GaussianPolicy(2, 1, (4,))
    tasks, seeds = torch.tensor([[0.1], [0.2], [0.3]]), torch.zeros(3, 5, dtype=torch.int64)
    sampler = Sampler([Few(), Few()], policy, observe_task=True)
    found = sampler.rollout(stacked(policy, 3), tasks, torch.zeros(3, 5, 3, 1), seeds, TaskAxis(3))
    expected = torch.stack([torch.ones(3), tasks[:, 0]], -1)[:, None].expand(3, 5, 2)
    assert torch.equal(found.observations, expected[:, :, None].expand(3, 5, 3, 2))
    assert torch.equal(found.final_observations, expected)
