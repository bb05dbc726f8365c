"""Hopper: reward, observation and ending against their formulas and gymnasium's hopper."""

import numpy as np
import pytest
import torch
from robots import assert_terms, play

from maml_envs.robots.hopper import HopperRandomDynamics
from maml_envs.robots.model import State


def test_the_reward_is_its_formula() -> None:
    env = HopperRandomDynamics(threads=1)
    for played in play(env, env.held_out_tasks(3), 8, push=1.0):
        speed = (played.after.qpos - played.before.qpos)[:, 0].numpy() / 0.016
        assert_terms(played, speed, 0.001, 1.0)
    assert np.abs(speed).max() > 0.3
    env.close()


def test_endings() -> None:
    env = HopperRandomDynamics()
    qpos, qvel = torch.tensor(env.model.qpos0).repeat(9, 1), torch.zeros(9, 6)
    qpos[0, 1], qpos[1, 1] = 0.69, 0.71
    qpos[2, 2], qpos[3, 2], qpos[4, 2] = -0.21, 0.21, 0.19
    qpos[5, 4] = 101.0
    qvel[6, 0], qvel[7, 5] = -101.0, 99.0
    qpos[8] = float("nan")
    ended = env.terminated(State(qpos, qvel)).tolist()
    assert ended == [True, False, True, True, False, True, True, False, False]


def test_observation_and_spaces() -> None:
    env = HopperRandomDynamics()
    seen = env.observation(State(torch.arange(6.0), torch.tensor([-11.0, -10, 0, 1, 10, 12])))
    assert seen.tolist() == [1, 2, 3, 4, 5, -10, -10, 0, 1, 10, 10]
    assert env.observation_space.shape == (11,)
    assert env.action_space.high.tolist() == [1.0] * 3
    assert env.action_scale == 10
    assert env.dt == pytest.approx(0.016)
    assert HopperRandomDynamics.presets == ("gymnasium",)
