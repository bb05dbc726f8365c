"""Half-cheetah: model, observation and reward of each preset against MuJoCo and gymnasium."""

import math
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from maml_envs import InputError
from maml_envs.robots.half_cheetah import HalfCheetah, HalfCheetahDirection, HalfCheetahVelocity, half_cheetah_model
from maml_envs.robots.model import State

FAMILIES = (HalfCheetahDirection, HalfCheetahVelocity)
HELD_OUT = [[0.7558706], [0.1408627], [0.4277037], [0.2928452]]
PRESETS = ("gymnasium", "finn2017")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes a log where it runs when gymnasium loads its half-cheetah: a deprecated attribute."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def gymnasium_env() -> Iterator[gymnasium.Env]:
    env = gymnasium.make("HalfCheetah-v5", ctrl_cost_weight=0.05).unwrapped
    env.reset(seed=0)
    yield env
    env.close()


def actions(steps: int, batch: int, scale: float) -> Tensor:
    """Policy actions, a fifth of them beyond the bounds."""
    return scale * 0.8 * torch.randn(steps, batch, 6, generator=torch.Generator().manual_seed(11))


def mass_center(env: HalfCheetah, state: State) -> tuple[np.ndarray, np.ndarray]:
    """MuJoCo's own centre of mass (batch, 3) and its velocity (batch, 3)."""
    position, velocity = [], []
    for qpos, qvel in zip(state.qpos, state.qvel, strict=True):
        data = mujoco.MjData(env.model)
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_kinematics(env.model, data)
        mujoco.mj_comPos(env.model, data)
        mujoco.mj_comVel(env.model, data)
        mujoco.mj_subtreeVel(env.model, data)
        position.append(data.subtree_com[1].copy())
        velocity.append(data.subtree_linvel[1].copy())
    return np.stack(position), np.stack(velocity)


# --- The model.


def test_the_model_is_the_one_that_gymnasium_compiles(gymnasium_env: gymnasium.Env) -> None:
    ours, theirs = half_cheetah_model(), gymnasium_env.model
    arrays = [name for name in dir(ours) if not name.startswith("_")]
    arrays = [name for name in arrays if isinstance(getattr(ours, name), np.ndarray)]
    for needed in ("body_mass", "body_inertia", "body_ipos", "dof_invweight0", "geom_friction", "actuator_gear"):
        assert needed in arrays
    for name in arrays:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert ours.body_mass.sum() == pytest.approx(14.0, rel=1e-12)
    options = ("timestep", "integrator", "solver", "iterations", "tolerance", "disableflags", "enableflags")
    for name in options:
        assert getattr(ours.opt, name) == getattr(theirs.opt, name), name
    assert ours.opt.timestep == 0.01


# --- Spaces, observation, action.


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("preset", "width", "unit", "dt"), [("gymnasium", 17, 10, 0.05), ("finn2017", 20, 1, 0.01)])
def test_spaces_and_defaults(family: type[HalfCheetah], preset: str, width: int, unit: float, dt: float) -> None:
    env = family(preset)
    assert env.observation_space.shape == (width,)
    assert env.action_space.low.tolist() == [-1.0] * 6
    assert env.action_space.high.tolist() == [1.0] * 6
    assert env.action_scale == unit
    assert env.dt == pytest.approx(dt)
    assert (env.horizon, env.copies, env.max_batch, env.preset) == (200, 2, None, preset)
    assert family().preset == "gymnasium"
    assert family.presets == PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_observation_layout(preset: str) -> None:
    env = HalfCheetahVelocity(preset, threads=1)
    first = env.reset(torch.ones(3, 1), torch.arange(3))
    start = env.state.clone()
    step = env.step(actions(1, 3, env.action_space.high[0].item())[0])
    for observation, state in ((first, start), (step.observation, env.state.clone())):
        assert observation.dtype == torch.float32
        parts = [state.qpos[:, 1:], state.qvel]
        if preset == "finn2017":
            parts.append(torch.from_numpy(mass_center(env, state)[0]))
            # The centre of mass follows the root, which is about 0.7 m above the ground.
            torch.testing.assert_close(parts[2][:, 0], state.qpos[:, 0], rtol=0, atol=0.2)
            assert ((parts[2][:, 2] - 0.6).abs() < 0.2).all()
        torch.testing.assert_close(observation, torch.cat(parts, -1).float(), rtol=1e-6, atol=1e-7)
    assert not torch.equal(first, step.observation)
    env.close()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_full_action_is_the_full_control(preset: str) -> None:
    env = HalfCheetahDirection(preset, threads=1)
    env.reset(torch.ones(4, 1), torch.tensor([3, 3, 3, 3]))
    step = env.step(torch.tensor([[1.0], [-1.0], [0.1], [50.0]]).expand(4, 6))
    costs = [-0.05 * 6, -0.05 * 6, -0.05 * 6 * 0.01, -0.05 * 6]
    torch.testing.assert_close(step.info["reward_control"], torch.tensor(costs, dtype=torch.float64))
    assert torch.equal(step.observation[0], step.observation[3])
    assert not torch.equal(step.observation[0], step.observation[1])
    # The physics got that control: the same as MuJoCo's with 1 on all six motors.
    env.reset(torch.ones(1, 1), torch.tensor([3]))
    data = mujoco.MjData(env.model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = env.state.qpos[0], env.state.qvel[0], 1.0
    mujoco.mj_step(env.model, data, 5 if preset == "gymnasium" else 1)
    np.testing.assert_allclose(step.observation[0, :17], np.concatenate((data.qpos[1:], data.qvel)), rtol=1e-5)
    env.close()


# --- Rewards.


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_reward_is_its_formula(family: type[HalfCheetah], preset: str) -> None:
    env = family(preset, threads=1)
    task = (
        torch.tensor([[1.0], [-1.0], [1.0]]) if family is HalfCheetahDirection else torch.tensor([[0.0], [0.7], [2.9]])
    )
    env.reset(task, torch.arange(3))
    env.state.qvel[:, 0] = torch.tensor([1.5, 0.3, -2.0])
    speeds = []
    for action in actions(8, 3, 1.0):
        before = env.state.clone()
        step = env.step(action)
        after = env.state.clone()
        if preset == "gymnasium":
            speed = (after.qpos[:, 0] - before.qpos[:, 0]).numpy() / 0.05
        else:
            speed = mass_center(env, after)[1][:, 0]
        control = np.clip(action.double().numpy(), -1, 1)
        cost = 0.05 * (control**2).sum(-1)
        goal = task[:, 0].numpy()
        run = goal * speed if family is HalfCheetahDirection else -np.abs(speed - goal)
        np.testing.assert_allclose(step.reward, run - cost, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(step.info["reward_run"], run, rtol=0, atol=1e-6)
        np.testing.assert_allclose(step.info["reward_control"], -cost, rtol=0, atol=1e-6)
        assert set(step.info) == {"reward_run", "reward_control"}
        assert step.reward.dtype == torch.float32
        assert not step.terminated.any()
        assert not step.truncated.any()
        speeds.append(speed)
    # Fast enough to tell formulas apart, forwards and backwards.
    assert np.max(speeds) > 1
    assert np.min(speeds) < -1
    env.close()


def test_no_state_ends_an_episode() -> None:
    env = HalfCheetahDirection(threads=1)
    env.reset(torch.ones(2, 1), torch.arange(2))
    env.state.qpos[0, 1], env.state.qpos[0, 2] = 5.0, math.pi  # high up, on its back
    assert env.step(torch.zeros(2, 6)).terminated.tolist() == [False, False]
    env.close()


# --- Start states.


@pytest.mark.parametrize("preset", PRESETS)
def test_start_states(preset: str) -> None:
    n = 5000
    env = HalfCheetahDirection(preset, threads=1)
    env.reset(torch.ones(n, 1), torch.arange(n))
    qpos, qvel = env.state.qpos, env.state.qvel
    assert (qpos.mean(0).abs() < 5 * 0.1 / math.sqrt(n)).all()
    assert (qvel.mean(0).abs() < 5 * 0.1 / math.sqrt(n)).all()
    assert ((qvel.std(0) / 0.1 - 1).abs() < 5 / math.sqrt(2 * n)).all()
    assert (((qvel / 0.1) ** 4).mean(0) / 3 - 1).abs().max() < 5 * math.sqrt(96 / n) / 3
    if preset == "gymnasium":
        assert qpos.abs().max() < 0.1
        assert (qpos.abs().amax(0) > 0.0995).all()
        assert ((qpos.std(0) * math.sqrt(3) / 0.1 - 1).abs() < 5 * math.sqrt(0.2 / n)).all()
    else:
        assert ((qpos.std(0) / 0.01 - 1).abs() < 5 / math.sqrt(2 * n)).all()
        assert (((qpos / 0.01) ** 4).mean(0) / 3 - 1).abs().max() < 5 * math.sqrt(96 / n) / 3
    correlation = torch.corrcoef(torch.cat((qpos, qvel), -1).T) - torch.eye(18, dtype=torch.float64)
    assert correlation.abs().max() < 5 / math.sqrt(n)
    env.close()


def test_an_episode_is_a_function_of_task_seed_and_actions() -> None:
    runs = []
    for _ in range(2):
        env = HalfCheetahVelocity(threads=1)
        rows = [env.reset(torch.full((2, 1), 1.5), torch.tensor([8, 9]))]
        rows += [env.step(action).observation for action in actions(5, 2, 1.0)]
        runs.append(torch.stack(rows))
        env.close()
    assert torch.equal(*runs)
    assert not torch.equal(runs[0][0, 0], runs[0][0, 1])


# --- Tasks.


def test_held_out_directions_are_balanced() -> None:
    env = HalfCheetahDirection()
    assert env.held_out_tasks(5).tolist() == [[1.0], [-1.0], [1.0], [-1.0], [1.0]]
    assert env.held_out_tasks(40).sum() == 0
    with pytest.raises(InputError, match="only two tasks, so no split 'out': use split='in'"):
        env.held_out_tasks(4, "out")


@pytest.mark.parametrize(("preset", "top"), [("gymnasium", 3.0), ("finn2017", 2.0)])
def test_goal_velocities(preset: str, top: float) -> None:
    env = HalfCheetahVelocity(preset)
    tasks = env.sample_tasks(4000, torch.Generator().manual_seed(0))
    assert tasks.shape == (4000, 1)
    assert 0 < tasks.min() < 0.005
    assert top - 0.005 < tasks.max() < top
    assert tasks.mean().item() == pytest.approx(top / 2, abs=4.5 * top / math.sqrt(12 * 4000))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    inside, beyond = env.held_out_tasks(40), env.held_out_tasks(40, "out")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(inside, HalfCheetahVelocity(preset).held_out_tasks(40))
    assert torch.equal(beyond, HalfCheetahVelocity(preset).held_out_tasks(40, "out"))
    assert inside.shape == beyond.shape == (40, 1)
    assert ((inside > 0) & (inside < top)).all()
    assert ((beyond > top) & (beyond < top + 1)).all()
    # All of the range, not a corner of it.
    assert inside.max() - inside.min() > 0.85 * top
    assert beyond.max() - beyond.min() > 0.85
    with pytest.raises(InputError, match="HalfCheetahVelocity has no held-out tasks with split='far'"):
        env.held_out_tasks(4, "far")


def test_held_out_goal_velocities_have_not_moved() -> None:
    # Published numbers hold for these tasks.
    expected = torch.tensor(HELD_OUT)
    torch.testing.assert_close(HalfCheetahVelocity("finn2017").held_out_tasks(40)[:4], 2 * expected)
    torch.testing.assert_close(HalfCheetahVelocity("gymnasium").held_out_tasks(40)[:4], 3 * expected)
