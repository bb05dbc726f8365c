"""Humanoid: reward, observation, start and ending against their formulas and gymnasium's humanoid."""

import math

import mujoco
import numpy as np
import pytest
import torch
from robots import assert_same_robot, assert_terms, beside, center_of_mass, play

from maml_envs.robots.humanoid import HumanoidDirection
from maml_envs.robots.mujoco_task import State

TASKS = [[1.0, 0.0], [-0.6, 0.8]]


def test_the_reward_is_its_formula() -> None:
    env = HumanoidDirection(threads=1)
    for played in play(env, torch.tensor(TASKS), 4, push=2.0):
        ends = [center_of_mass(env.model, state)[0][:, :2] for state in (played.before, played.after)]
        run = 0.25 * (np.array(TASKS) * (ends[1] - ends[0])).sum(-1) / 0.003
        assert_terms(played, run, 0.1, 5.0)
        # Not the torso's.
        torso = (played.after.qpos - played.before.qpos)[:, :2].numpy() / env.dt
        assert (np.abs(1.25 * (np.array(TASKS) * torso).sum(-1) - run) > 1e-3).all()
    assert np.abs(run).max() > 0.5
    assert np.abs(played.control).max() == 0.4
    env.close()


def test_it_is_humanoid_v5_with_the_newton_solver() -> None:
    options = {f"include_{part}_in_observation": False for part in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")}
    env = HumanoidDirection(threads=1)
    steps = list(play(env, torch.tensor([[1.0, 0.0]]), 6, push=1.0))
    theirs = beside("Humanoid-v5", steps, 0, newton=True, contact_cost_weight=0, **options)
    assert_same_robot(env, steps, theirs, 0)
    assert env.model.opt.solver == mujoco.mjtSolver.mjSOL_NEWTON
    env.close()


def test_ending_observation_and_spaces() -> None:
    env = HumanoidDirection()
    qpos = torch.tensor(env.model.qpos0).repeat(5, 1)
    qpos[:, 2] = torch.tensor([0.99, 1.01, 1.99, 2.01, float("nan")])
    state = State(qpos, torch.arange(23.0).repeat(5, 1))
    assert env.terminated(state).tolist() == [True, False, False, True, False]
    assert torch.equal(env.observation(state)[0], torch.cat((qpos[0, 2:], torch.arange(23.0).double())))
    assert env.observation_space.shape == (45,)
    assert env.action_space.high.tolist() == [10.0] * 17
    assert env.dt == pytest.approx(0.015)
    assert HumanoidDirection.presets == ("gymnasium",)


def test_start_states() -> None:
    n = 2000
    env = HumanoidDirection(threads=1)
    env.reset(torch.ones(n, 2), torch.arange(n))
    for shift in (env.state.qpos - torch.tensor(env.model.qpos0), env.state.qvel):
        assert shift.abs().max() < 0.01
        assert (shift.abs().amax(0) > 0.0098).all()
        assert (shift.mean(0).abs() < 5 * 0.01 / math.sqrt(3 * n)).all()
    env.close()
