"""Worlds of mujoco_warp beside MuJoCo's, on warp's CPU device: the same kernels and the same graph as on a GPU."""

from collections.abc import Callable

import mujoco
import numpy as np
import pytest
import torch
from alone import rollout
from robots import Make, actions, slider_model
from torch import Tensor

pytest.importorskip("mujoco_warp")

import mujoco_warp
import warp

from maml_envs.physics import gpu
from maml_envs.physics.gpu import GpuPhysics
from maml_envs.physics.gpu_buffers import buffer_sizes
from maml_envs.robots.ant import AntDirection, ant_model
from maml_envs.robots.half_cheetah import HalfCheetahDirection, half_cheetah_model
from maml_envs.robots.hopper import hopper_model
from maml_envs.robots.locomotion import Locomotion
from maml_envs.robots.model import State
from maml_envs.robots.walker2d import Walker2dRandomDynamics
from maml_rl.rl.policies import GaussianPolicy

WORLDS, STEPS = 4, 10
CPU = torch.device("cpu")


def elliptic(env: Locomotion) -> Locomotion:
    """Friction that does not depend on how the contact's axes lie in the ground."""
    env.model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    return env


def limits(t: int) -> tuple[float, float]:
    """How far positions and velocities may be apart after t + 1 control steps.

    Velocities of up to 50 are sums of float32 numbers, each rounded by 6e-8 of itself, in a system whose solver stops
    at a relative 1e-6 instead of 1e-8 and whose contacts are stiff: 1e-4 after one step, a tenth of it in positions.
    What is there grows with every contact, by half a step at most.
    """
    return 1e-5 * 1.5**t, 1e-4 * 1.5**t


def excess(cpu: Locomotion, warped: Locomotion, steps: int = STEPS) -> list[float]:
    """After every control step of both, the larger difference as a share of what is allowed, of episodes not ended.

    Infinite where a number is NaN.
    """
    found = []
    tasks, seeds, live = cpu.held_out_tasks(WORLDS), torch.arange(WORLDS), torch.ones(WORLDS, dtype=torch.bool)
    cpu.reset(tasks, seeds)
    warped.reset(tasks, seeds)
    for t, action in enumerate(actions(cpu, steps, WORLDS)):
        step = cpu.step(action)
        warped.step(action)
        states = ((cpu.state.qpos, warped.state.qpos), (cpu.state.qvel, warped.state.qvel))
        differences = [(one.double() - other.double())[live].abs().max().nan_to_num(torch.inf) for one, other in states]
        found.append(max(float(a) / b for a, b in zip(differences, limits(t), strict=True)))
        live &= ~step.terminated
        if not live.any():
            break
    return found


ROBOTS = [
    (HalfCheetahDirection, "gymnasium"),
    (HalfCheetahDirection, "finn2017"),
    (AntDirection, "gymnasium"),
    (AntDirection, "finn2017"),
    (Walker2dRandomDynamics, "gymnasium"),
]


# --- The same worlds.


@pytest.mark.parametrize(("family", "preset"), ROBOTS)
def test_it_agrees_with_mujoco(family: type[Locomotion], preset: str, on_warp: Make) -> None:
    cpu, warped = family(preset, threads=1), on_warp(family, preset)
    if family is AntDirection:
        cpu, warped = elliptic(cpu), elliptic(warped)
    tasks, seeds = cpu.held_out_tasks(WORLDS), torch.arange(WORLDS)
    first, second = cpu.reset(tasks, seeds), warped.reset(tasks, seeds)
    assert second.dtype == torch.float32
    torch.testing.assert_close(second, first, rtol=1e-6, atol=1e-4 if "cfrc_ext" in cpu.fields else 1e-6)
    fast, live = 0.0, torch.ones(WORLDS, dtype=torch.bool)
    for t, action in enumerate(actions(cpu, STEPS, WORLDS)):
        one, other = cpu.step(action), warped.step(action)
        position, velocity = limits(t)
        torch.testing.assert_close(warped.state.qpos[live].double(), cpu.state.qpos[live], rtol=0, atol=position)
        torch.testing.assert_close(warped.state.qvel[live].double(), cpu.state.qvel[live], rtol=0, atol=velocity)
        forces = 10 if "cfrc_ext" in cpu.fields else 1
        torch.testing.assert_close(other.observation[live], one.observation[live], rtol=0, atol=forces * velocity)
        torch.testing.assert_close(other.reward[live], one.reward[live], rtol=0, atol=velocity)
        assert torch.equal(other.terminated[live], one.terminated[live])
        live &= ~one.terminated
        assert set(other.info) == set(one.info)
        fast = max(fast, float(cpu.state.qvel.abs().max()))
        if not live.any():
            break
    warped.raise_deferred()
    assert t > 3
    assert fast > 5  # not because nothing moved
    cpu.close()


def steep(env: Locomotion) -> Tensor:
    """Whether each world has a capsule within 0.1 m of the ground that leans less than 37 degrees from upright."""
    found = []
    capsules = env.model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE
    radius, half = env.model.geom_size[capsules, :2].T
    for qpos in env.state.qpos:
        data = mujoco.MjData(env.model)
        data.qpos[:] = qpos
        mujoco.mj_kinematics(env.model, data)
        axes = data.geom_xmat[capsules].reshape(-1, 3, 3)[:, :, 2]
        lowest = data.geom_xpos[capsules, 2] - half * np.abs(axes[:, 2]) - radius
        found.append(bool(((lowest < 0.1) & (np.linalg.norm(axes[:, :2], axis=1) < 0.6)).any()))
    return torch.tensor(found)


def test_the_ant_agrees_but_where_a_steep_leg_has_other_axes_of_friction(on_warp: Make) -> None:
    # MuJoCo lays the edges of the friction pyramid along the capsule, mujoco_warp only where it leans 30 degrees or
    # more. When this fails because they agree everywhere, the note in docs/how_to/gpu.md can go.
    cpu, warped = AntDirection("finn2017", threads=1), on_warp(AntDirection, "finn2017")
    tasks, seeds = cpu.held_out_tasks(WORLDS), torch.arange(WORLDS)
    cpu.reset(tasks, seeds)
    warped.reset(tasks, seeds)
    cpu.state.qpos[:2, 8::2] *= 0.6  # crouched, with its feet on the ground
    cpu.state.qpos[:2, 2] = 0.38
    seen = []
    for action in actions(cpu, STEPS, WORLDS):
        warped.state.qpos.copy_(cpu.state.qpos)
        warped.state.qvel.copy_(cpu.state.qvel)
        before = steep(cpu)
        cpu.step(action)
        warped.step(action)
        difference = (warped.state.qvel.double() - cpu.state.qvel).abs().amax(1)
        seen += zip((before | steep(cpu)).tolist(), difference.tolist(), strict=True)
    flat = [difference for is_steep, difference in seen if not is_steep]
    assert len(flat) > 10
    assert max(flat) < 1e-4
    assert max(difference for is_steep, difference in seen if is_steep) > 1e-2
    cpu.close()


def test_a_wrong_version_is_far_apart(on_warp: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, warped = Walker2dRandomDynamics(threads=1), on_warp(Walker2dRandomDynamics)
    assert max(excess(cpu, warped)) < 1

    step, given = GpuPhysics.step, GpuPhysics.set_parameters

    def each(change: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        return lambda self, parameters: given(self, {name: change(value) for name, value in parameters.items()})

    wrong = {
        "no control": ("step", lambda self, control, skip: step(self, torch.zeros_like(control), skip)),
        "the other way": ("step", lambda self, control, skip: step(self, -control, skip)),
        "one physics step": ("step", lambda self, control, skip: step(self, control, 1)),
        "another world's control": ("step", lambda self, control, skip: step(self, control.roll(1, 0), skip)),
        "another world's masses": ("set_parameters", each(lambda x: x.roll(1, 0))),
        "one model for all": ("set_parameters", each(lambda x: x[:1].expand_as(x))),
    }
    for name, (method, instead) in wrong.items():
        with monkeypatch.context() as patch:
            patch.setattr(GpuPhysics, method, instead)
            warped.close()
            assert max(excess(cpu, warped, 3)) > 100, name
    warped.close()
    assert max(excess(cpu, warped, 3)) < 1
    cpu.close()


def test_what_follows_from_the_masses_is_of_each_world_too(on_warp: Make) -> None:
    env = on_warp(Walker2dRandomDynamics)
    tasks = env.held_out_tasks(3)
    env.reset(tasks[[0, 1, 0, 2]], torch.arange(4))
    model = env._physics._model
    for name in ("body_mass", "body_subtreemass", "body_invweight0", "dof_invweight0", "geom_friction", "dof_damping"):
        own = [getattr(env.task_model(task), name) for task in tasks[[0, 1, 0, 2]]]
        np.testing.assert_allclose(getattr(model, name).numpy(), np.stack(own), rtol=1e-6, err_msg=name)
    assert model.body_pos.shape[0] == 1
    # In place, so that the graph sees it; then one task for all.
    address = model.body_mass.ptr
    for rows in ([2, 2, 1, 0], [1, 1, 1, 1]):
        env.reset(tasks[rows], torch.arange(4))
        assert env._physics._model.body_mass.ptr == address
        own = [env.task_model(task).body_mass for task in tasks[rows]]
        np.testing.assert_allclose(env._physics._model.body_mass.numpy(), np.stack(own), rtol=1e-6)


def test_a_motion_known_in_closed_form() -> None:
    # v <- v + F/m dt, then x <- x + v dt, with dt = 0.1 s; nothing touches anything.
    physics = GpuPhysics(slider_model(), 3, CPU)
    physics.set_models([slider_model(2.0), slider_model(4.0), slider_model(0.5)])
    physics.set_state(torch.tensor([[0.0], [0.0], [-1.0]]), torch.tensor([[0.0], [4.0], [0.0]]))
    for force, steps, qvel, qpos in (
        (3.0, 1, [0.15, 4.075, 0.6], [0.015, 0.4075, -0.94]),
        (2.0, 3, [0.45, 4.225, 1.8], [0.12, 1.66, -0.52]),
    ):
        physics.step(torch.full((3, 1), force), steps)
        torch.testing.assert_close(physics.qvel, torch.tensor(qvel).unsqueeze(1), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(physics.qpos, torch.tensor(qpos).unsqueeze(1), rtol=1e-6, atol=1e-6)
    physics.set_models([slider_model(4.0)] * 3)
    physics.set_state(torch.zeros(3, 1), torch.zeros(3, 1))
    physics.step(torch.full((3, 1), 3.0), 1)
    torch.testing.assert_close(physics.qvel, torch.full((3, 1), 0.075))
    physics.close()


def test_equal_models_share_one() -> None:
    physics = GpuPhysics(half_cheetah_model(), 3, CPU)
    physics.set_models([half_cheetah_model()] * 3)
    assert physics._model.body_mass.shape[0] == 1


def test_models_must_differ_in_what_can_vary() -> None:
    first, slow, ghost, rubbing = (half_cheetah_model() for _ in range(4))
    slow.opt.timestep = 0.02
    ghost.geom_contype[1] = 2
    rubbing.dof_frictionloss[5] = 0.1
    physics = GpuPhysics(first, 2, CPU)
    for other, name in ((slow, "opt.timestep"), (ghost, "geom_contype"), (rubbing, "dof_frictionloss")):
        for _ in range(2):
            with pytest.raises(ValueError, match=name):
                physics.set_models([first, other])
    with pytest.raises(ValueError, match="1 models for 2 worlds: give one for each world"):
        physics.set_models([first])


# --- Without copies and without waiting.


def test_the_state_is_warps_own_memory(on_warp: Make) -> None:
    env = on_warp(HalfCheetahDirection)
    env.reset(torch.ones(2, 1), torch.arange(2))
    data = env._physics._data
    for view, array in ((env.state.qpos, data.qpos), (env.state.qvel, data.qvel)):
        assert (view.data_ptr(), view.dtype) == (array.ptr, torch.float32)
        assert view.shape == array.shape
    env.state.qpos[0, 0] = 7.0
    assert data.qpos.numpy()[0, 0] == 7.0
    address = env.state.qpos.data_ptr()
    env.reset(torch.ones(2, 1), torch.arange(2))
    env.step(torch.zeros(2, 6))
    assert env.state.qpos.data_ptr() == address


@pytest.mark.parametrize(("family", "preset"), ROBOTS[:4])
def test_nothing_is_read_from_the_device_inside_an_episode(
    family: type[Locomotion], preset: str, on_warp: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = on_warp(family, preset)
    tasks, seeds = env.held_out_tasks(2), torch.arange(2)
    moves = actions(env, 3, 2)
    env.reset(tasks, seeds)
    env.step(moves[0])

    def refuse(*_: object) -> None:
        raise AssertionError("read")

    # A bool of a tensor, .item() and float() all end in one of these; nonzero has a shape that has to be known.
    with monkeypatch.context() as patch:
        for name in ("cpu", "numpy", "tolist", "item", "__bool__", "__float__", "__int__", "nonzero", "__array__"):
            patch.setattr(Tensor, name, refuse)
        patch.setattr(warp.array, "numpy", refuse)
        patch.setattr(warp, "synchronize", refuse)
        env.reset(tasks, seeds)
        for move in moves:
            env.step(move)
        with pytest.raises(AssertionError, match="read"):
            env.raise_deferred()


# --- Start states and episodes.


def test_an_episode_is_a_function_of_task_seed_and_actions(on_warp: Make) -> None:
    env, runs = on_warp(HalfCheetahDirection), []
    for _ in range(2):
        rows = [env.reset(torch.ones(3, 1), torch.arange(3))]
        rows += [env.step(action).observation for action in actions(env, 5, 3)]
        runs.append(torch.stack(rows))
    assert torch.equal(*runs)
    env.reset(torch.ones(2, 1), torch.tensor([2, 0]))
    alone = torch.stack([env.step(action[[2, 0]]).observation for action in actions(env, 5, 3)])
    torch.testing.assert_close(alone, runs[0][1:, [2, 0]], rtol=0, atol=1e-3)


# --- Divergence.


@pytest.mark.parametrize(("qvel", "steps"), [(float("nan"), 1), (float("inf"), 1), (1e30, 1), (1e7, 8)])
def test_a_diverged_world_shows_and_its_neighbours_go_on(qvel: float, steps: int, on_warp: Make) -> None:
    env = on_warp(HalfCheetahDirection)
    tasks, seeds = torch.ones(3, 1), torch.arange(3)
    first = env.reset(tasks, seeds)
    alone = [env.step(torch.ones(3, 6)).observation for _ in range(steps)]
    env.reset(tasks, seeds)
    env.state.qvel[1, 3] = qvel
    for _ in range(steps):
        step = env.step(torch.ones(3, 6))
    assert step.reward.isfinite().tolist() == [True, False, True]
    assert not step.observation[1].isfinite().any()
    assert not torch.cat((env.state.qpos, env.state.qvel), -1)[1].isfinite().any()
    assert torch.equal(step.observation[[0, 2]], alone[-1][[0, 2]])
    # It stays so, is no overflow, and leaves nothing behind.
    assert env.step(torch.ones(3, 6)).reward.isfinite().tolist() == [True, False, True]
    env.raise_deferred()
    assert torch.equal(env.reset(tasks, seeds), first)
    again = [env.step(torch.ones(3, 6)).observation for _ in range(steps)]
    assert torch.equal(torch.stack(again), torch.stack(alone))


# --- Room for contacts.


def pairs(model: mujoco.MjModel) -> np.ndarray:
    with warp.ScopedDevice("cpu"):
        return mujoco_warp.put_model(model).nxn_geom_pair_filtered.numpy()


def test_sizes_of_the_buffers() -> None:
    # Eight capsules that touch the ground with two ends each, four edges of a pyramid for each, six limited joints.
    assert buffer_sizes(half_cheetah_model(), pairs(half_cheetah_model())) == (16, 16 * 4 + 6)
    # Twelve capsules and a sphere; eight limited joints.
    assert buffer_sizes(ant_model(), pairs(ant_model())) == (25, 25 * 4 + 8)
    # Four capsules on the ground; three pairs of capsules that touch without friction, at two points; three limits.
    assert buffer_sizes(hopper_model(), pairs(hopper_model())) == (14, 8 * 4 + 6 + 3)
    model = ant_model()
    model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    model.dof_frictionloss[6:9] = 0.1
    assert buffer_sizes(model, pairs(model)) == (25, 25 * 3 + 8 + 3)


def lying(env: Locomotion) -> State:
    """A start in which the whole robot has sunk into the ground, and there is all the contact there can be."""
    env.reset(env.held_out_tasks(3), torch.arange(3))
    env.state.qpos.copy_(env._start)
    env.state.qpos[:, 2 if env.model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE else 1] -= 5.0
    env.state.qvel.zero_()
    return env.state


@pytest.mark.parametrize("family", [HalfCheetahDirection, AntDirection])
def test_no_state_needs_more(family: type[Locomotion], on_warp: Make) -> None:
    env = on_warp(family)
    lying(env)
    env._physics.step(torch.zeros(3, env.action_width), 1)
    assert env._physics._most_contacts.numpy()[0] == 3 * env._physics._contacts
    env.raise_deferred()


def test_too_little_room_for_contacts_is_an_error(on_warp: Make) -> None:
    env = on_warp(HalfCheetahDirection, max_contacts=2)
    lying(env)
    step = env.step(torch.zeros(3, 6))
    assert not step.reward.isfinite().any()
    message = (
        "in 3 of 3 worlds, the first 0: it had room for 2 contacts a world, and at least 8 are needed: leave "
        "max_contacts of the environment's class at None, which makes room for 16"
    )
    for _ in range(2):
        with pytest.raises(FloatingPointError, match=message):
            env.raise_deferred()
    env.reset(torch.ones(3, 1), torch.arange(3))
    env.raise_deferred()


def test_too_little_room_for_rows_is_an_error_of_that_world(on_warp: Make) -> None:
    env = on_warp(HalfCheetahDirection, max_rows=16)
    lying(env)
    env.state.qpos[0, 1] = env.state.qpos[2, 1] = 3.0
    assert env.step(torch.zeros(3, 6)).reward.isfinite().tolist() == [True, False, True]
    with pytest.raises(
        FloatingPointError,
        match=r"in 1 of 3 worlds, the first 1: .* 16 constraint rows a world, and at least (6\d|70) are needed: leave "
        r"max_rows of the environment's class at None, which makes room for 70",
    ):
        env.raise_deferred()


@pytest.mark.parametrize("room", [{"contacts": 24}, {"rows": 100}])
def test_where_a_full_buffer_could_go_unseen_it_is_refused(room: dict[str, int]) -> None:
    model = ant_model()
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
    with pytest.raises(ValueError, match="give 25 contacts and 108 rows or more"):
        GpuPhysics(model, 2, CPU, **room)
    GpuPhysics(model, 2, CPU).close()


def falling_foot() -> mujoco.MjModel:
    """A ball that falls through a thin slab between two stages of Runge-Kutta: it touches nothing before and after."""
    return mujoco.MjModel.from_xml_string(
        """<mujoco><option integrator="RK4" timestep="0.1" gravity="0 0 0"/><worldbody>
        <geom type="box" size="5 5 0.02" contype="1" conaffinity="1"/>
        <body pos="0 0 0"><joint name="z" type="slide" axis="0 0 1"/><geom type="sphere" size="0.05" mass="1"/></body>
        </worldbody><actuator><motor joint="z" ctrlrange="-1 1"/></actuator></mujoco>"""
    )


def test_contacts_between_the_stages_of_runge_kutta_are_seen() -> None:
    physics = GpuPhysics(falling_foot(), 2, CPU)
    physics.set_state(torch.tensor([[0.5], [5.0]]), torch.tensor([[-10.0], [-10.0]]))  # 0.5, 0, 0, -0.5
    physics.step(torch.zeros(2, 1), 1)
    assert physics._rows_seen.tolist() == [4, 0]
    assert int(physics._data.nefc.numpy()[0]) == 0  # at the end there is nothing to see
    physics.close()
    small = GpuPhysics(falling_foot(), 2, CPU, rows=1)
    small.set_state(torch.tensor([[0.5], [5.0]]), torch.tensor([[-10.0], [-10.0]]))
    small.step(torch.zeros(2, 1), 1)
    assert small.qpos.isfinite().tolist() == [[False], [True]]
    with pytest.raises(FloatingPointError, match="in 1 of 2 worlds, the first 0: it had room for 1 constraint rows"):
        small.check()
    small.set_state(torch.full((2, 1), 5.0), torch.zeros(2, 1))
    small.step(torch.zeros(2, 1), 1)
    small.check()
    small.close()


def test_warp_chooses_its_own_order() -> None:
    """Its deterministic mode costs several times the speed and megabytes a world, and does not fix all orders."""
    physics = GpuPhysics(slider_model(), 2, CPU)
    assert physics._model.opt.deterministic == mujoco_warp.put_model(slider_model()).opt.deterministic
    physics.close()


def test_a_rollout_says_it(on_warp: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = GaussianPolicy(17, 6, (4,), init_std=1.0, min_std=1e-6)
    params = {name: value.expand(2, *value.shape) for name, value in policy.init(torch.Generator()).items()}
    noise, seeds = torch.zeros(2, 3, 20, 6), torch.arange(6).reshape(2, 3)
    tasks = torch.tensor([[1.0], [-1.0]])
    env = on_warp(HalfCheetahDirection)
    expected = rollout([HalfCheetahDirection(threads=1)], policy, params, tasks, noise[:, :, :5], seeds)
    found = rollout([env], policy, params, tasks, noise[:, :, :5], seeds)
    torch.testing.assert_close(found.observations, expected.observations, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.rewards, expected.rewards, rtol=0, atol=1e-3)
    env.close()
    monkeypatch.setattr(HalfCheetahDirection, "max_contacts", 1)
    with pytest.raises(FloatingPointError, match="leave max_contacts"):
        rollout([env], policy, params, tasks, noise, seeds)


def test_there_is_always_a_row() -> None:
    assert buffer_sizes(slider_model(), pairs(slider_model())) == (0, 1)


def test_the_solver_that_stops_at_its_limit_is_no_overflow() -> None:
    assert not gpu.OVERFLOWS & mujoco_warp.OverflowType.ITERATIONS
    assert gpu.OVERFLOWS & mujoco_warp.OverflowType.EPA_HORIZON


def test_what_nobody_reads_is_not_computed_and_changes_nothing() -> None:
    """Cameras, lights and sensors: beside MuJoCo, which computes them, on a model whose sensor looks at a camera."""
    model = mujoco.MjModel.from_xml_string("""
        <mujoco>
          <option timestep="0.01"/>
          <worldbody>
            <light pos="0 0 3"/><camera name="eye" pos="0 -2 0"/>
            <body><joint name="x" type="slide" axis="1 0 0"/><geom size="0.1" mass="2"/><camera pos="0 0 1"/></body>
          </worldbody>
          <actuator><motor joint="x" ctrlrange="-3 3"/></actuator>
          <sensor><framepos objtype="camera" objname="eye"/><jointpos joint="x"/></sensor>
        </mujoco>""")
    data, physics = mujoco.MjData(model), GpuPhysics(model, 2, CPU)
    before = {name: getattr(physics._data, name).numpy().copy() for name in ("cam_xpos", "light_xpos", "sensordata")}
    physics.set_state(torch.zeros(2, 1), torch.zeros(2, 1))
    physics.step(torch.full((2, 1), 3.0), 20)
    data.ctrl[:] = 3.0
    mujoco.mj_step(model, data, 20)
    torch.testing.assert_close(physics.qpos[:, 0], torch.tensor(data.qpos).float().expand(2), rtol=1e-5, atol=1e-6)
    assert data.sensordata[-1] != 0
    for name, value in before.items():
        assert np.array_equal(getattr(physics._data, name).numpy(), value)
