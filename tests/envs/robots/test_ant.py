"""Ant: rewards, observations, starts and endings of each preset against their formulas and gymnasium's ant."""

import math

import numpy as np
import pytest
import torch
from robots import Played, assert_terms, forwarded, play

from maml_envs.robots.ant import LEGS_DOWN, Ant, AntDirection, AntDirection2D, AntGoal, AntVelocity
from maml_envs.robots.model import State

NAN, INF = float("nan"), float("inf")
TASKS = {
    AntDirection: [[1.0], [-1.0], [1.0]],
    AntDirection2D: [[0.6, 0.8], [-1.0, 0.0], [0.0, -1.0]],
    AntVelocity: [[0.3], [1.1], [2.9]],
    AntGoal: [[2.0, 1.0], [-0.5, 0.2], [0.1, -2.0]],
}
# Control cost, bonus, lowest and highest height.
TERMS = {
    (AntDirection, "gymnasium"): (0.5, 1.0, 0.0, 1.0),
    (AntDirection, "finn2017"): (0.005, 0.05, 0.2, 1.0),
    (AntDirection2D, "gymnasium"): (0.5, 1.0, 0.0, 1.0),
    (AntVelocity, "gymnasium"): (0.005, 1.05, 0.2, 1.0),
    (AntVelocity, "finn2017"): (0.005, 1.05, 0.2, 1.0),
    (AntGoal, "gymnasium"): (0.1, 0.0, -INF, INF),
    (AntGoal, "finn2017"): (0.005, 4.05, 0.2, 1.0),
}
CASES = pytest.mark.parametrize(("family", "preset"), TERMS)


def expected_run(family: type[Ant], preset: str, played: Played, env: Ant) -> np.ndarray:
    """The task's reward by its formula, from the states alone."""
    if preset == "finn2017":
        data = forwarded(env.model, played.after)
        position, velocity = (
            np.stack([getattr(d, name)[1] for d in data]) for name in ("subtree_com", "subtree_linvel")
        )
    else:
        position = played.after.qpos.numpy()
        velocity = (position - played.before.qpos.numpy())[:, :3] / 0.05
    task = np.array(TASKS[family])
    if family is AntGoal:
        return -np.abs(position[:, :2] - task).sum(-1)
    if family is AntVelocity:
        return -np.abs(velocity[:, 0] - task[:, 0])
    return (velocity[:, : task.shape[1]] * task).sum(-1)


@CASES
def test_the_reward_is_its_formula(family: type[Ant], preset: str) -> None:
    env = family(preset, threads=1)
    cost, survive, _, _ = TERMS[family, preset]
    runs, costs = [], []
    for played in play(env, torch.tensor(TASKS[family]), 40, push=1.5):
        runs.append(expected_run(family, preset, played, env))
        contact = None
        if preset == "finn2017":
            forces = np.stack([d.cfrc_ext for d in forwarded(env.model, played.after, played.control)])
            contact = 0.0005 * (np.clip(forces, -1, 1) ** 2).sum((1, 2))
            costs.append(contact)
        assert_terms(played, runs[-1], cost, survive, contact)
    # Large and varied enough to tell formulas apart.
    assert np.std(runs) > 0.3
    assert preset == "gymnasium" or np.max(costs) > 0.001
    env.close()


def test_rllabs_velocity_is_not_the_torsos() -> None:
    env = AntDirection("finn2017", threads=1)
    (played,) = play(env, torch.ones(2, 1), 1, push=1.0)
    torso = (played.after.qpos - played.before.qpos)[:, 0] / env.dt
    assert (played.step.info["reward_run"] - torso).abs().max() > 0.1
    env.close()


@CASES
def test_endings(family: type[Ant], preset: str) -> None:
    env = family(preset)
    low, high = TERMS[family, preset][2:]
    qpos = torch.tensor(env.model.qpos0).repeat(5, 1)
    qpos[:, 2] = torch.tensor([-0.001, 0.001, 0.199, 0.999, 1.001])
    ended = [not low <= height <= high for height in qpos[:, 2].tolist()]
    assert env.terminated(State(qpos, torch.zeros(5, 14))).tolist() == ended
    qpos[:, 2] = NAN
    assert not env.terminated(State(qpos, torch.zeros(5, 14))).any()
    env.reset(torch.tensor(TASKS[family])[:1], torch.arange(1))
    env.state.qpos[0, 2] = 3.0
    assert env.step(torch.zeros(1, 8)).terminated.tolist() == [high < 3]
    env.close()


@CASES
def test_observations(family: type[Ant], preset: str) -> None:
    env = family(preset, threads=1)
    first = env.reset(torch.tensor(TASKS[family]), torch.arange(3))
    start = env.state.clone()
    (played,) = play(env, torch.tensor(TASKS[family]), 1)
    for seen, state, control in ((first, start, None), (played.step.observation, played.after, played.control)):
        parts = [state.qpos[:, 2:], state.qvel]
        if preset == "finn2017":
            own = [
                np.concatenate((d.cfrc_ext.clip(-1, 1).flatten(), d.xmat[1], d.subtree_com[1]))
                for d in forwarded(env.model, state, control)
            ]
            parts = [state.qpos, state.qvel, torch.from_numpy(np.stack(own))]
        elif family is AntGoal:
            parts = [state.qpos, state.qvel]
        assert seen.dtype == torch.float32
        assert env.observation_space.shape == seen.shape[1:]
        torch.testing.assert_close(seen, torch.cat(parts, -1).float(), rtol=1e-6, atol=1e-6)
    assert first.shape[1] == (125 if preset == "finn2017" else 29 if family is AntGoal else 27)
    env.close()


@pytest.mark.parametrize(("preset", "unit", "dt"), [("gymnasium", 10.0, 0.05), ("finn2017", 1.0, 0.02)])
def test_spaces_and_defaults(preset: str, unit: float, dt: float) -> None:
    env = AntDirection(preset)
    assert env.action_space.high.tolist() == [1.0] * 8
    assert env.action_scale == unit
    assert env.dt == pytest.approx(dt)
    assert (env.horizon, env.copies, env.preset, AntDirection().preset) == (200, 2, preset, "gymnasium")
    assert AntDirection.presets == AntVelocity.presets == AntGoal.presets == ("gymnasium", "finn2017")
    assert AntDirection2D.presets == ("gymnasium",)
    # A control of 1 is 150 Nm in both.
    assert (env.model.actuator_gear[:, 0] == 150).all()
    assert (env.model.actuator_ctrlrange == [-1, 1]).all()
    softness = [0.8, 0.8, 0.01] if preset == "finn2017" else [0.9, 0.95, 0.001]
    np.testing.assert_allclose(env.model.geom_solimp[:, :3], [softness] * env.model.ngeom)


def test_start_states() -> None:
    n = 3000
    for preset, width in (("gymnasium", 0.1 / math.sqrt(3)), ("finn2017", 0.01)):
        env = AntDirection(preset, threads=1)
        env.reset(torch.ones(n, 1), torch.arange(n))
        default = torch.tensor(LEGS_DOWN if preset == "finn2017" else env.model.qpos0, dtype=torch.float64)
        assert ((env.state.qpos.mean(0) - default).abs() < 5 * width / math.sqrt(n)).all()
        assert ((env.state.qpos.std(0) / width - 1).abs() < 5 / math.sqrt(2 * n)).all()
        assert ((env.state.qvel.std(0) / 0.1 - 1).abs() < 5 / math.sqrt(2 * n)).all()
        env.close()
