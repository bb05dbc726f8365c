"""What the tests of the robots share: random play, MuJoCo's own centre of mass, gymnasium's robots beside ours."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import gymnasium
import mujoco
import numpy as np
import torch
from torch import Tensor

from maml_envs.robots.locomotion import Locomotion
from maml_envs.robots.model import State
from maml_envs.task_env import Step

Make = Callable[..., Locomotion]
"""The fixture ``on_warp``: a robot's class, preset and sizes of buffers to one whose worlds are mujoco_warp's."""


class Played(NamedTuple):
    before: State
    control: np.ndarray  # (batch, act)
    after: State
    step: Step


def actions(env: Locomotion, steps: int, batch: int) -> Tensor:
    """Policy actions, a fifth of them beyond the bounds."""
    scale = 0.8 * float(env.action_space.high[0])
    return scale * torch.randn(steps, batch, env.action_width, generator=torch.Generator().manual_seed(11))


def controls(env: Locomotion, action: Tensor) -> np.ndarray:
    """What an action is to the motors, whose ranges are symmetric."""
    bound, scale = env.model.actuator_ctrlrange[:, 1], float(env.action_space.high[0])
    return np.clip(action.double().numpy() / scale, -1, 1) * bound


def play(env: Locomotion, tasks: Tensor, steps: int, push: float = 0.0) -> Iterator[Played]:
    """Random actions from a start with a push along x and, if it is free, half of it along y."""
    env.reset(tasks, torch.arange(len(tasks)))
    env.state.qvel[:, 0] += push
    if env.model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE:
        env.state.qvel[:, 1] += push / 2
    for action in actions(env, steps, len(tasks)):
        before = env.state.clone()
        step = env.step(action)
        yield Played(before, controls(env, action), env.state.clone(), step)


def forwarded(model: mujoco.MjModel, state: State, control: np.ndarray | None = None) -> list[mujoco.MjData]:
    """MuJoCo's own data of each world's state, all passes taken."""
    found = []
    for row, (qpos, qvel) in enumerate(zip(state.qpos, state.qvel, strict=True)):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos, qvel
        if control is not None:
            data.ctrl[:] = control[row]
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        found.append(data)
    return found


def assert_terms(
    played: Played, run: np.ndarray, control_cost: float, survive: float, contact: np.ndarray | None = None
) -> None:
    """The terms are these, and the reward is their sum."""
    expected = {"reward_run": run, "reward_control": -control_cost * (played.control**2).sum(-1)}
    if contact is not None:
        expected["reward_contact"] = -contact
    if survive:
        expected["reward_survive"] = np.full(len(run), survive)
    assert set(played.step.info) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(played.step.info[name], value, rtol=0, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(played.step.reward, sum(expected.values()), rtol=1e-5, atol=1e-5)


class Beside(NamedTuple):
    """One step of gymnasium's robot from the state and with the control of ours."""

    observation: np.ndarray
    reward: float
    terminated: bool
    info: dict
    qpos: np.ndarray
    qvel: np.ndarray


def beside(
    name: str, steps: list[Played], row: int, newton: bool = False, time_step: float | None = None, **options
) -> list[Beside]:
    """Gymnasium's own environment over the same episode, to its end.

    It reads positions of bodies from the integrator's last stage; here they are made those of the state, and what the
    solver of the next step starts from is left alone.
    """
    env = gymnasium.make(name, disable_env_checker=True, **options).unwrapped
    if time_step:
        env.model.opt.timestep = time_step
    if newton:
        env.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    simulate = env.do_simulation

    def exact(control: np.ndarray, frames: int) -> None:
        simulate(control, frames)
        warm = env.data.qacc_warmstart.copy()
        mujoco.mj_forward(env.model, env.data)
        mujoco.mj_rnePostConstraint(env.model, env.data)
        env.data.qacc_warmstart[:] = warm

    env.do_simulation = exact
    env.reset(seed=0)
    env.set_state(steps[0].before.qpos[row].numpy(), steps[0].before.qvel[row].numpy())
    found = []
    for played in steps:
        observation, reward, terminated, _, info = env.step(played.control[row])
        found.append(Beside(observation, reward, terminated, info, env.data.qpos.copy(), env.data.qvel.copy()))
        if terminated:
            break
    env.close()
    return found


def assert_same_robot(env: Locomotion, steps: list[Played], theirs: list[Beside], row: int) -> None:
    """The same bits of states and endings to the end; observations and rewards, which are float32 here, to rounding.

    Gymnasium gives no bonus for the step that ends.
    """
    for played, other in zip(steps, theirs, strict=False):
        np.testing.assert_array_equal(played.after.qpos[row], other.qpos)
        np.testing.assert_array_equal(played.after.qvel[row], other.qvel)
        np.testing.assert_allclose(played.step.observation[row], other.observation, rtol=1e-6, atol=1e-6)
        assert played.step.terminated[row] == other.terminated
        reward = other.reward + env.definition.survive * other.terminated
        np.testing.assert_allclose(played.step.reward[row], reward, rtol=1e-6, atol=1e-6)


def slider_model(mass: float = 2.0) -> mujoco.MjModel:
    """A mass on a rail, at 0.5 by default, pushed with a force of 1 to 3 N, in steps of 0.1 s."""
    return mujoco.MjModel.from_xml_string(f"""
        <mujoco>
          <option timestep="0.1" gravity="0 0 0"/>
          <worldbody>
            <body><joint name="x" type="slide" axis="1 0 0" ref="0.5"/><geom size="0.1" mass="{mass}"/></body>
          </worldbody>
          <actuator><motor joint="x" ctrllimited="true" ctrlrange="1 3"/></actuator>
        </mujoco>""")
