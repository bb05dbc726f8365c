"""MujocoTask and its simulator on a point mass whose motion is known in closed form, and on the half-cheetah."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from robots import slider_model
from torch import Tensor

from maml_envs import InputError, check_contract
from maml_envs.physics.cpu import CpuPhysics
from maml_envs.robots.half_cheetah import HalfCheetahDirection, half_cheetah_model
from maml_envs.robots.model import ResetNoise, State, gymnasium_asset
from maml_envs.robots.mujoco_task import MujocoTask


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MuJoCo writes its log where it runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Slider(MujocoTask):
    """The task is a price of velocity; an episode ends beyond 2 m."""

    def __init__(self, noise: ResetNoise | None = None, frame_skip: int = 3) -> None:
        still = ResetNoise(qvel_normal=0.0)
        super().__init__(slider_model(), frame_skip, noise=noise or still, horizon=5)

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, 1, generator=generator)

    def observation(self, state: State) -> Tensor:
        return torch.cat((state.qpos, state.qvel), -1)

    def reward_terms(self, before: State, control: Tensor, after: State, task: Tensor) -> dict[str, Tensor]:
        moved = (after.qpos - before.qpos)[..., 0] / self.dt
        return {"moved": task[..., 0] * moved, "effort": -control.square().sum(-1)}

    def terminated(self, state: State) -> Tensor:
        return state.qpos[..., 0] > 2.0


def assert_equal(actual: Tensor, expected: list, atol: float = 1e-6) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=actual.dtype), rtol=0, atol=atol)


# --- The batched simulator.


def test_a_step_holds_the_control_for_frame_skip_physics_steps() -> None:
    physics = CpuPhysics(slider_model(), batch=2, threads=1)
    physics.set_state(torch.tensor([[0.5], [-1.0]]), torch.tensor([[0.0], [4.0]]))
    physics.step(torch.tensor([[1.0], [3.0]]), frame_skip=3)
    # v <- v + F/m dt, then x <- x + v dt, three times: x moves by 3 v dt + 6 F/m dt^2.
    assert_equal(physics.qvel, [[0.15], [4.45]], 1e-12)
    assert_equal(physics.qpos, [[0.53], [-1.0 + 1.2 + 0.09]], 1e-12)
    # Other numbers of physics steps, from the state that was reached.
    physics.step(torch.tensor([[2.0], [1.0]]), frame_skip=1)
    assert_equal(physics.qvel, [[0.25], [4.5]], 1e-12)
    assert_equal(physics.qpos, [[0.555], [0.74]], 1e-12)
    physics.step(torch.tensor([[2.0], [1.0]]), frame_skip=2)
    assert_equal(physics.qvel, [[0.45], [4.6]], 1e-12)
    assert_equal(physics.qpos, [[0.635], [1.655]], 1e-12)
    physics.close()


def test_a_world_can_have_a_model_of_its_own() -> None:
    physics = CpuPhysics(slider_model(), batch=3, threads=2)
    physics.set_models([slider_model(2.0), slider_model(4.0), slider_model(0.5)])
    physics.set_state(torch.zeros(3, 1), torch.zeros(3, 1))
    physics.step(torch.full((3, 1), 3.0), frame_skip=1)
    assert_equal(physics.qvel, [[0.15], [0.075], [0.6]], 1e-12)
    physics.close()


def test_worlds_can_be_given_other_models() -> None:
    physics = CpuPhysics(slider_model(), batch=2, threads=1)
    physics.set_models([slider_model(4.0), slider_model(2.0)])
    physics.set_state(torch.zeros(2, 1), torch.zeros(2, 1))
    physics.step(torch.full((2, 1), 3.0), frame_skip=1)
    assert_equal(physics.qvel, [[0.075], [0.15]], 1e-12)
    with pytest.raises(ValueError, match="1 models for 2 worlds"):
        physics.set_models([slider_model()])
    physics.close()


def test_set_state_forgets_all_of_the_previous_episode() -> None:
    physics = CpuPhysics(half_cheetah_model(), batch=2, threads=1)
    qpos, qvel, control = torch.zeros(2, 9), torch.ones(2, 9), torch.full((2, 6), 0.3)
    physics.set_state(qpos, qvel)
    physics.step(control, 5)
    first = torch.cat((physics.qpos, physics.qvel), -1)
    for _ in range(3):
        physics.step(-control, 5)
    physics.set_state(qpos, qvel)
    physics.step(control, 5)
    assert torch.equal(torch.cat((physics.qpos, physics.qvel), -1), first)
    physics.close()


def cheetah_steps(threads: int, batch: int = 7, steps: int = 10) -> Tensor:
    """All states of a batch that starts and is pushed in the same way whatever the number of threads."""
    generator = torch.Generator().manual_seed(0)
    physics = CpuPhysics(half_cheetah_model(), batch, threads)
    physics.set_state(torch.rand(batch, 9, generator=generator), torch.randn(batch, 9, generator=generator))
    states = []
    for _ in range(steps):
        physics.step(2 * torch.rand(batch, 6, generator=generator) - 1, 5)
        states.append(torch.cat((physics.qpos, physics.qvel), -1))
    physics.close()
    return torch.stack(states, 1)


def test_threads_do_not_change_a_bit() -> None:
    states = cheetah_steps(threads=1)
    assert states.isfinite().all()
    assert torch.equal(cheetah_steps(threads=2), states)
    assert torch.equal(cheetah_steps(threads=5), states)


def test_it_agrees_with_mujoco_stepping_one_world() -> None:
    model, states = half_cheetah_model(), cheetah_steps(threads=2)
    generator = torch.Generator().manual_seed(0)
    qpos, qvel = torch.rand(7, 9, generator=generator), torch.randn(7, 9, generator=generator)
    controls = [2 * torch.rand(7, 6, generator=generator) - 1 for _ in range(10)]
    for world in range(7):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos[world], qvel[world]
        for step, control in enumerate(controls):
            data.ctrl[:] = control[world]
            mujoco.mj_step(model, data, 5)
            together = states[world, step].numpy()
            np.testing.assert_array_equal(together, np.concatenate((data.qpos, data.qvel)))


def test_two_simulators_side_by_side_in_threads() -> None:
    expected, found = cheetah_steps(threads=1), {}

    def work(name: int) -> None:
        found[name] = cheetah_steps(threads=2)

    workers = [threading.Thread(target=work, args=(name,)) for name in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], expected)


# --- A task.


def test_actions_span_the_control_range_and_rewards_are_the_sum_of_the_terms() -> None:
    env = Slider()
    observation = env.reset(torch.tensor([[1.0], [2.0], [-1.0], [0.0]]), torch.arange(4))
    assert observation.dtype == torch.float32
    assert_equal(observation, [[0.5, 0.0]] * 4)
    assert env.dt == pytest.approx(0.3)
    assert (env.action_space.low.item(), env.action_space.high.item()) == (-1, 1)
    assert env.observation_space.shape == (2,)
    # Actions -1, 0, 1 and beyond are forces of 1, 2 and 3 N on 2 kg.
    step = env.step(torch.tensor([[-1.0], [0.0], [1.0], [1e9]]))
    assert_equal(step.observation, [[0.53, 0.15], [0.56, 0.3], [0.59, 0.45], [0.59, 0.45]])
    assert_equal(step.info["moved"], [0.1, 2 * 0.2, -0.3, 0.0])
    assert_equal(step.info["effort"], [-1.0, -4.0, -9.0, -9.0])
    assert_equal(step.reward, [-0.9, -3.6, -9.3, -9.0])
    assert step.reward.dtype == torch.float32
    assert step.reward.shape == (4,)
    env.close()


def test_an_action_between_is_linear() -> None:
    env = Slider()
    env.reset(torch.zeros(3, 1), torch.arange(3))
    assert_equal(env.step(torch.tensor([[0.5], [-0.25], [-1.1]])).info["effort"], [-6.25, -3.0625, -1.0])
    env.close()


def test_the_state_that_ends_an_episode_is_the_one_after_the_step() -> None:
    env = Slider()
    env.reset(torch.zeros(2, 1), torch.arange(2))
    assert env.step(torch.zeros(2, 1)).terminated.tolist() == [False, False]
    env.state.qpos[:] = torch.tensor([[1.9], [1.0]])
    env.state.qvel[:] = 1.0
    step = env.step(torch.zeros(2, 1))
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [False, False]
    # No auto-reset: it stands still, while the other goes on.
    after = env.step(torch.zeros(2, 1))
    assert torch.equal(after.observation[0], step.observation[0])
    assert after.observation[1, 0] > step.observation[1, 0]
    env.close()


def test_what_a_step_returned_is_not_written_over() -> None:
    env = Slider()
    observation = env.reset(torch.ones(1, 1), torch.arange(1))
    step = env.step(torch.zeros(1, 1))
    kept = [observation.clone(), step.observation.clone(), step.reward.clone(), step.info["moved"].clone()]
    env.step(torch.ones(1, 1))
    env.reset(torch.ones(1, 1), torch.arange(1))
    for now, then in zip((observation, step.observation, step.reward, step.info["moved"]), kept, strict=True):
        assert torch.equal(now, then)
    env.close()


def test_reset_comes_first_and_close_can_be_repeated() -> None:
    env = Slider()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"call reset\(tasks, seeds\) before step"):
            env.step(torch.zeros(1, 1))
        with pytest.raises(RuntimeError, match=r"call reset\(tasks, seeds\) before reading the state"):
            _ = env.state
        env.reset(torch.zeros(3, 1), torch.arange(3))
        assert env.state.qpos.shape == (3, 1)
        env.reset(torch.zeros(2, 1), torch.arange(2))
        assert env.step(torch.zeros(2, 1)).observation.shape == (2, 2)
        env.close()
        env.close()


def test_start_states_have_the_widths_of_the_noise() -> None:
    n = 6000
    uniform = Slider(ResetNoise(qpos_uniform=0.2, qvel_normal=0.3))
    uniform.reset(torch.zeros(n, 1), torch.arange(n))
    shift = uniform.state.qpos[:, 0] - 0.5
    assert shift.abs().max() < 0.2
    assert shift.max() > 0.199
    assert shift.min() < -0.199
    assert shift.mean().abs() < 4.5 * 0.2 / np.sqrt(3 * n)
    assert shift.std().item() == pytest.approx(0.2 / np.sqrt(3), rel=0.03)
    assert uniform.state.qvel.mean().abs() < 4.5 * 0.3 / np.sqrt(n)
    assert uniform.state.qvel.std().item() == pytest.approx(0.3, rel=0.04)
    assert torch.corrcoef(torch.stack((shift, uniform.state.qvel[:, 0])))[0, 1].abs() < 4.5 / np.sqrt(n)
    normal = Slider(ResetNoise(qpos_normal=0.01, qvel_normal=0.0))
    normal.reset(torch.zeros(n, 1), torch.arange(n))
    shift = (normal.state.qpos[:, 0] - 0.5) / 0.01
    assert shift.std().item() == pytest.approx(1.0, rel=0.04)
    assert (shift**4).mean().item() == pytest.approx(3.0, rel=0.15)
    assert (normal.state.qvel == 0).all()
    uniform.close()
    normal.close()
    rolling = Slider(ResetNoise(qvel_normal=0.0, qvel_uniform=0.4))
    rolling.reset(torch.zeros(n, 1), torch.arange(n))
    assert (rolling.state.qpos == 0.5).all()
    assert 0.398 < rolling.state.qvel.abs().max() < 0.4
    assert rolling.state.qvel.std().item() == pytest.approx(0.4 / np.sqrt(3), rel=0.03)
    assert rolling.state.qvel.mean().abs() < 4.5 * 0.4 / np.sqrt(3 * n)
    rolling.close()


def test_a_start_state_depends_on_its_seed_alone() -> None:
    env = Slider(ResetNoise(qpos_uniform=0.2, qvel_normal=0.3))
    whole = env.reset(torch.zeros(6, 1), torch.arange(6))
    assert whole.unique(dim=0).shape == (6, 2)
    assert torch.equal(env.reset(torch.ones(2, 1), torch.tensor([4, 1])), whole[[4, 1]])
    torch.manual_seed(1)
    assert torch.equal(env.reset(torch.zeros(1, 1), torch.tensor([3])), whole[3:4])
    env.close()


def test_a_row_of_a_batch_is_a_run_of_its_own() -> None:
    batch, one = HalfCheetahDirection(threads=4), HalfCheetahDirection(threads=1)
    tasks, seeds = torch.tensor([[1.0], [-1.0], [1.0]]), torch.tensor([5, 6, 7])
    actions = 1.2 * torch.randn(10, 3, 6, generator=torch.Generator().manual_seed(1))
    first = batch.reset(tasks, seeds)
    together = [batch.step(action) for action in actions]
    for row in range(3):
        assert torch.equal(one.reset(tasks[row : row + 1], seeds[row : row + 1])[0], first[row])
        for step, action in zip(together, actions, strict=True):
            alone = one.step(action[row : row + 1])
            assert torch.equal(alone.observation[0], step.observation[row])
            assert torch.equal(alone.reward[0], step.reward[row])
    batch.close()
    one.close()


def test_every_copy_steps_on_all_cores_or_on_the_threads_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def pool_threads(threads: int) -> int:
        env = HalfCheetahDirection(threads=threads)
        env.reset(torch.ones(20, 1), torch.arange(20))
        count = env._physics._batch.nthread
        env.close()
        return count

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16), raising=False)
    monkeypatch.setattr("maml_envs.cores._read", lambda path: "")
    assert [pool_threads(threads) for threads in (0, 1, 2, 7)] == [16, 1, 2, 7]


# --- Divergence.


def diverging(qvel: float, steps: int, threads: int = 1) -> tuple[list[list[bool]], Tensor, Tensor]:
    """Whether each reward is finite, the last observations, and the neighbour's states had it been alone."""
    env = HalfCheetahDirection(threads=threads)
    tasks, seeds = torch.ones(3, 1), torch.arange(3)
    env.reset(tasks, seeds)
    alone = [env.step(torch.ones(3, 6)).observation for _ in range(steps)][-1]
    env.reset(tasks, seeds)
    env.state.qvel[1, 3] = qvel
    taken = [env.step(torch.ones(3, 6)) for _ in range(steps)]
    env.close()
    return [step.reward.isfinite().tolist() for step in taken], taken[-1].observation, alone


@pytest.mark.parametrize(("qvel", "steps"), [(float("nan"), 1), (float("inf"), 1), (1e7, 8), (1e6, 4)])
def test_a_diverged_world_shows_and_its_neighbours_go_on(qvel: float, steps: int) -> None:
    finite, observation, alone = diverging(qvel, steps)
    assert finite[-1] == [True, False, True]
    assert not observation[1].isfinite().any()
    assert torch.equal(observation[[0, 2]], alone[[0, 2]])


@pytest.mark.parametrize("threads", [1, 3])
def test_divergence_writes_no_log_file(threads: int, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    diverging(1e7, 8, threads)
    assert not list(folder.iterdir())


LOGGED = """
import sys
import torch
import maml_envs
from maml_envs import VectorOptions
if sys.argv[1] == "pool":
    env = maml_envs.make("half-cheetah-dir", threads=2)
    env.reset(torch.ones(3, 1), torch.arange(3))
    env.state.qvel[1, 3] = 1e7
else:  # gymnasium's half-cheetah has an attribute that MuJoCo warns of when it compiles
    vector = VectorOptions(workers=int(sys.argv[1]), task_ranges={"gravity": (-10.0, -9.0)})
    env = maml_envs.make("gymnasium:HalfCheetah-v5", vector=vector)
    env.reset(env.held_out_tasks(3), torch.arange(3))
for _ in range(8):
    env.step(torch.ones(3, 6))
env.close()
"""


@pytest.mark.parametrize("where", ["pool", "0", "2"])
def test_a_process_writes_no_log_file(where: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOGGED, where], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    assert "mjWARN" in done.stderr or "unstable" in done.stderr or "settotalmass" in done.stderr, done.stderr


def test_a_diverged_world_stays_diverged_until_reset() -> None:
    env = HalfCheetahDirection(threads=1)
    first = env.reset(torch.ones(2, 1), torch.arange(2))
    expected = env.step(torch.ones(2, 6)).observation
    env.state.qpos[0, 0] = float("nan")
    for _ in range(5):
        step = env.step(torch.ones(2, 6))
        assert step.reward.isfinite().tolist() == [False, True]
    assert torch.equal(env.reset(torch.ones(2, 1), torch.arange(2)), first)
    assert torch.equal(env.step(torch.ones(2, 6)).observation, expected)
    env.close()


def test_a_nan_action_shows_though_mujoco_takes_it_for_zero() -> None:
    env = HalfCheetahDirection(threads=1)
    env.reset(torch.ones(2, 1), torch.arange(2))
    action = torch.ones(2, 6)
    action[1, 2] = float("nan")
    step = env.step(action)
    assert step.reward.isfinite().tolist() == [True, False]
    assert step.info["reward_control"].isfinite().tolist() == [True, False]
    env.close()


def test_nothing_is_written_where_it_runs(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    env = HalfCheetahDirection(threads=4)
    env.reset(torch.ones(2, 1), torch.arange(2))
    for _ in range(10):
        env.step(torch.full((2, 6), 10.0))
    env.close()
    assert list(folder.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_gymnasium_asset_reads_the_models_of_gymnasium() -> None:
    assert '<mujoco model="cheetah">' in gymnasium_asset("half_cheetah.xml")
    with pytest.raises(FileNotFoundError):
        gymnasium_asset("half_giraffe.xml")


# --- What a class of one's own may not do.


def _slow(self: Slider, state: State) -> Tensor:
    velocity = state.qvel
    velocity /= 10
    return torch.cat((state.qpos, velocity), -1)


def _cheap(self: Slider, before: State, control: Tensor, after: State, task: Tensor) -> dict[str, Tensor]:
    control *= 0.1
    return {"moved": task[..., 0] * after.qpos[..., 0], "effort": -control.square().sum(-1)}


def _far(self: Slider, state: State) -> Tensor:
    state.qpos.abs_()
    return state.qpos[..., 0] > 2.0


def _solved(self: Slider, state: State, task: Tensor) -> Tensor:
    task += 1
    return state.qpos[..., 0] > task[..., 0]


@pytest.mark.parametrize(
    ("name", "function"), [("observation", _slow), ("reward_terms", _cheap), ("terminated", _far), ("success", _solved)]
)
def test_what_changes_its_state_in_place_is_refused(name: str, function: object) -> None:
    env = type("Changing", (Slider,), {name: function})(ResetNoise(qvel_normal=0.5, qpos_normal=0.5))
    env.reset(torch.ones(4, 1), torch.arange(4))
    with pytest.raises(InputError, match=rf"Changing\.{name} changes in place what it is given, which the simulation"):
        env.step(torch.full((4, 1), 0.5))


class Heavy(Slider):
    def __init__(self, change: str) -> None:
        super().__init__()
        if change == "range":
            self.model.actuator_ctrlrange[0] = (-9.0, 9.0)
        elif change == "start":
            self.model.qpos0[0] = 1.0
        else:
            self.model.opt.timestep *= 2


def test_changes_to_the_model_that_come_too_late_are_refused() -> None:
    for change in ("range", "start"):
        with pytest.raises(InputError, match=r"self\.model were changed after super\(\).__init__, .*MjSpec"):
            Heavy(change).reset(torch.ones(1, 1), torch.arange(1))
    env, slow = Slider(), Heavy("time step")
    assert slow.dt == pytest.approx(2 * env.dt)
    slow.reset(torch.ones(1, 1), torch.arange(1))
    start = slow.state.qpos.clone()
    moved = slow.step(torch.ones(1, 1)).info["moved"]
    assert_equal(moved, [float(slow.state.qpos - start) / slow.dt], 1e-6)


def test_a_robot_without_actuators_is_refused() -> None:
    class Stone(Slider):
        def __init__(self) -> None:
            model = "<mujoco><worldbody><body><joint type='slide'/><geom size='0.1'/></body></worldbody></mujoco>"
            MujocoTask.__init__(self, model)

    with pytest.raises(InputError, match=r"Stone: an action has no numbers: .* \(a URDF has none\)"):
        check_contract(Stone())
