"""Humanoid: reward, observation, start and ending against their formulas and gymnasium's humanoid."""

import math

import numpy as np
import pytest
import torch
from robots import assert_terms, forwarded, play

from maml_envs.robots.humanoid import BODIES, HumanoidDirection, impact_cost
from maml_envs.robots.model import State

TASKS = [[1.0, 0.0], [-0.6, 0.8]]


def test_the_reward_is_its_formula() -> None:
    env = HumanoidDirection(threads=1)
    for played in play(env, torch.tensor(TASKS), 4, push=2.0):
        states = (forwarded(env.model, state) for state in (played.before, played.after))
        ends = [np.stack([d.subtree_com[1, :2] for d in data]) for data in states]
        run = 0.25 * (np.array(TASKS) * (ends[1] - ends[0])).sum(-1) / 0.003
        assert_terms(played, run, 0.1, 5.0)
        # Not the torso's.
        torso = (played.after.qpos - played.before.qpos)[:, :2].numpy() / env.dt
        assert (np.abs(1.25 * (np.array(TASKS) * torso).sum(-1) - run) > 1e-3).all()
    assert np.abs(run).max() > 0.5
    assert np.abs(played.control).max() == 0.4
    env.close()


def test_promp_sees_and_pays_contact_forces() -> None:
    env, plain = HumanoidDirection("promp", threads=1), HumanoidDirection(threads=1)
    live, paid = np.ones(2, dtype=bool), 0.0
    other = play(plain, torch.tensor(TASKS), 25, push=2.0)
    for played in play(env, torch.tensor(TASKS), 25, push=2.0):
        data = forwarded(env.model, played.after, played.control)
        own = [np.concatenate([getattr(d, name).flatten() for name in BODIES]) for d in data]
        expected = torch.cat((played.after.qpos[:, 2:], played.after.qvel, torch.from_numpy(np.stack(own))), -1)
        torch.testing.assert_close(played.step.observation[live], expected[live].float(), rtol=1e-4, atol=1e-3)
        contact = np.array([min(5e-7 * (d.cfrc_ext**2).sum(), 10) for d in data])
        np.testing.assert_allclose(-played.step.info["reward_contact"][live], contact[live], rtol=1e-4, atol=1e-6)
        difference = (played.step.reward - next(other).step.reward).numpy()
        np.testing.assert_allclose(difference[live], -contact[live], rtol=1e-4, atol=1e-5)
        paid = max(paid, *contact[live], 0.0)
        live &= ~played.step.terminated.numpy()
    assert expected.shape == (2, 376)
    assert env.observation_space.shape == (376,)
    assert paid > 0.01
    assert impact_cost(torch.full((2, 14, 6), 1e4)).tolist() == [10.0, 10.0]
    env.close()
    plain.close()


def test_ending_observation_and_spaces() -> None:
    env = HumanoidDirection()
    qpos = torch.tensor(env.model.qpos0).repeat(5, 1)
    qpos[:, 2] = torch.tensor([0.99, 1.01, 1.99, 2.01, float("nan")])
    state = State(qpos, torch.arange(23.0).repeat(5, 1))
    assert env.terminated(state).tolist() == [True, False, False, True, False]
    assert torch.equal(env.observation(state)[0], torch.cat((qpos[0, 2:], torch.arange(23.0).double())))
    assert env.observation_space.shape == (45,)
    assert env.action_space.high.tolist() == [1.0] * 17
    assert env.action_scale == 10
    assert env.dt == pytest.approx(0.015)
    assert HumanoidDirection.presets == ("gymnasium", "promp")


def test_start_states() -> None:
    n = 2000
    env = HumanoidDirection(threads=1)
    env.reset(torch.ones(n, 2), torch.arange(n))
    for shift in (env.state.qpos - torch.tensor(env.model.qpos0), env.state.qvel):
        assert shift.abs().max() < 0.01
        assert (shift.abs().amax(0) > 0.0098).all()
        assert (shift.mean(0).abs() < 5 * 0.01 / math.sqrt(3 * n)).all()
    env.close()
