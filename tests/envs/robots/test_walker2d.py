"""Walker: reward, observation, start and ending against their formulas and gymnasium's walker."""

import math

import numpy as np
import pytest
import torch
from robots import assert_terms, play

from maml_envs.robots.model import State
from maml_envs.robots.walker2d import Walker2d, Walker2dDirection, Walker2dRandomDynamics, Walker2dVelocity

# Bonus, time step in s.
TERMS = {Walker2dDirection: (1.0, 0.016), Walker2dVelocity: (15.0, 0.016), Walker2dRandomDynamics: (1.0, 0.016)}


@pytest.mark.parametrize("family", TERMS)
def test_the_reward_is_its_formula(family: type[Walker2d]) -> None:
    bonus, dt = TERMS[family]
    env = family(threads=1)
    tasks = {Walker2dDirection: torch.tensor([[1.0], [-1.0]]), Walker2dVelocity: torch.tensor([[0.2], [7.0]])}
    task = tasks.get(family, env.held_out_tasks(2))
    assert env.dt == pytest.approx(dt)
    for played in play(env, task, 6, push=2.0):
        speed = (played.after.qpos - played.before.qpos)[:, 0].numpy() / dt
        goal = task[:, 0].numpy()
        run = {Walker2dDirection: goal * speed, Walker2dVelocity: -np.abs(speed - goal)}.get(family, speed)
        assert_terms(played, run, 0.001, bonus)
    assert np.abs(speed).max() > 0.3
    env.close()


def test_endings() -> None:
    env = Walker2dDirection()
    qpos = torch.tensor(env.model.qpos0).repeat(6, 1)
    qpos[:4, 1] = torch.tensor([0.79, 0.81, 1.99, 2.01])
    qpos[4:, 2] = torch.tensor([-1.01, 1.01])
    state = State(qpos, torch.zeros(6, 9))
    assert env.terminated(state).tolist() == [True, False, False, True, True, True]
    state.qpos[:] = float("nan")
    assert not env.terminated(state).any()


def test_observation_spaces_and_start() -> None:
    n = 2000
    env = Walker2dDirection(threads=1)
    seen = env.observation(State(torch.arange(9.0), torch.tensor([-20.0, -9, 0, 1, 2, 3, 9, 10, 11])))
    assert seen.tolist() == [*range(1, 9), -10, -9, 0, 1, 2, 3, 9, 10, 10]
    assert env.observation_space.shape == (17,)
    assert env.action_space.high.tolist() == [1.0] * 6
    assert env.action_scale == 10
    assert all(family.presets == ("gymnasium",) for family in TERMS)
    env.reset(torch.ones(n, 1), torch.arange(n))
    for shift in (env.state.qpos - torch.tensor(env.model.qpos0), env.state.qvel):
        assert shift.abs().max() < 0.005
        assert (shift.abs().amax(0) > 0.0049).all()
        assert (shift.mean(0).abs() < 5 * 0.005 / math.sqrt(3 * n)).all()
    env.close()
