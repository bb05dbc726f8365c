"""Random dynamics: factors in their ranges, and each world is MuJoCo's with the parameters of its task."""

import math

import mujoco
import numpy as np
import pytest
import torch
from robots import actions, play

from maml_envs.robots.hopper import HopperRandomDynamics, hopper_model
from maml_envs.robots.random_dynamics import RandomDynamics
from maml_envs.robots.walker2d import Walker2dRandomDynamics, random_walker2d_model

FAMILIES = pytest.mark.parametrize("family", [Walker2dRandomDynamics, HopperRandomDynamics])
NAMES = ("body_mass", "body_inertia", "dof_damping", "geom_friction")


def parts(model: mujoco.MjModel, task: torch.Tensor) -> list[np.ndarray]:
    """The factors of each parameter, in its shape, without the splitting of the code."""
    sizes = np.cumsum([getattr(model, name).size for name in NAMES])[:-1]
    found = np.split(task.double().numpy(), sizes)
    return [part.reshape(getattr(model, name).shape) for part, name in zip(found, NAMES, strict=True)]


@pytest.mark.parametrize(
    ("family", "sizes"), [(Walker2dRandomDynamics, (8, 24, 9, 24)), (HopperRandomDynamics, (5, 15, 6, 15))]
)
def test_factors(family: type[RandomDynamics], sizes: tuple[int, ...]) -> None:
    env = family()
    tasks = env.sample_tasks(300, torch.Generator().manual_seed(0))
    assert tasks.shape == (300, sum(sizes))
    for split, reach in (("in", 3), ("out", 4)):
        held_out = env.held_out_tasks(300, split)
        assert torch.equal(held_out, family().held_out_tasks(300, split))
        assert not torch.equal(held_out, tasks)
        for factors, base in zip(held_out.split(sizes, 1), (1.5, 1.5, 1.3, 1.5), strict=True):
            exponent = factors.double().log() / math.log(base)
            assert 0.99 * reach < exponent.max() < reach + 1e-5
            assert -reach - 1e-5 < exponent.min() < -0.99 * reach
            assert exponent.mean().abs() < 4.5 * reach / math.sqrt(3 * exponent.numel())
            assert exponent.std().item() == pytest.approx(reach / math.sqrt(3), rel=0.05)
            # Each element has a factor of its own.
            assert torch.corrcoef(exponent.T).fill_diagonal_(0).abs().max() < 5 / math.sqrt(300)
    with pytest.raises(ValueError, match="no held-out tasks with split='far'"):
        env.held_out_tasks(3, "far")


@FAMILIES
def test_a_tasks_model_has_its_parameters_and_what_follows_from_them(family: type[RandomDynamics]) -> None:
    env = family()
    (task,) = env.held_out_tasks(1)
    before = {name: getattr(env.model, name).copy() for name in NAMES}
    model = env.task_model(task)
    for name, factors in zip(NAMES, parts(env.model, task), strict=True):
        np.testing.assert_allclose(getattr(model, name), before[name] * factors, rtol=1e-12)
        np.testing.assert_array_equal(getattr(env.model, name), before[name])
    assert model.body_subtreemass[0] == pytest.approx(model.body_mass.sum(), rel=1e-12)
    # The root's slide carries all of it.
    assert model.dof_M0[0] == pytest.approx(model.body_mass.sum(), rel=1e-12)
    assert model.dof_invweight0[0] != env.model.dof_invweight0[0]
    assert model.opt.disableflags == env.model.opt.disableflags


@FAMILIES
def test_a_world_is_mujocos_with_the_parameters_of_its_task(family: type[RandomDynamics]) -> None:
    env = family(threads=2)
    tasks = env.held_out_tasks(3, "out")
    steps = list(play(env, tasks, 5))
    default = hopper_model() if family is HopperRandomDynamics else random_walker2d_model()
    for row in range(3):
        model = hopper_model() if family is HopperRandomDynamics else random_walker2d_model()
        for name, factors in zip(NAMES, parts(default, tasks[row]), strict=True):
            getattr(model, name)[:] *= factors
        data = mujoco.MjData(model)
        mujoco.mj_setConst(model, data)
        data.qpos[:], data.qvel[:] = steps[0].before.qpos[row], steps[0].before.qvel[row]
        for played in steps:
            data.ctrl[:] = played.control[row]
            mujoco.mj_step(model, data, env.frame_skip)
            np.testing.assert_array_equal(played.after.qpos[row], data.qpos)
            np.testing.assert_array_equal(played.after.qvel[row], data.qvel)
    # Other parameters are another world.
    assert (steps[-1].after.qvel[0] - steps[-1].after.qvel[1]).abs().max() > 0.1
    env.close()


def episode(env: RandomDynamics, tasks: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Observations of some rows of a batch of six, in any order (steps, rows, obs)."""
    seen = [env.reset(tasks[rows], torch.arange(6)[rows])]
    seen += [env.step(action[rows]).observation for action in actions(env, 10, 6)]
    return torch.stack(seen)


def test_a_world_does_not_depend_on_who_else_is_there() -> None:
    one, many = HopperRandomDynamics(threads=1), HopperRandomDynamics(threads=3)
    tasks = one.held_out_tasks(6)
    whole = episode(many, tasks, [0, 1, 2, 3, 4, 5])
    assert whole.isfinite().all()
    assert torch.equal(episode(one, tasks, [0, 1, 2, 3, 4, 5]), whole)
    for rows in ([3], [5, 0, 3], [1], [4, 2]):
        assert torch.equal(episode(one, tasks, rows), whole[:, rows])
        assert torch.equal(episode(many, tasks, rows), whole[:, rows])
    # Twice the same task in one batch, and afterwards others at the same place.
    twice = tasks[[2, 2, 4, 2, 4, 0]]
    assert torch.equal(episode(many, twice, [0, 1, 2, 3, 4, 5])[:, :1], episode(one, twice, [0]))
    assert torch.equal(episode(many, tasks, [0, 1, 2, 3, 4, 5]), whole)
    one.close()
    many.close()


def test_constants_are_made_once_while_the_tasks_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    env, made = HopperRandomDynamics(threads=1), []
    own = HopperRandomDynamics.task_parameters
    monkeypatch.setattr(
        HopperRandomDynamics, "task_parameters", lambda self, tasks: made.append(tasks) or own(self, tasks)
    )
    tasks = env.held_out_tasks(3)

    def reset(rows: list[int]) -> int:
        made.clear()
        env.reset(tasks[rows], torch.arange(len(rows)))
        return len(made)

    assert [reset(rows) for rows in ([0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0], [1, 0])] == [1, 0, 1, 1, 0]
    env.close()
    assert reset([1, 0]) == 1
    env.close()


@pytest.mark.parametrize("split", ["in", "out"])
@FAMILIES
def test_full_control_does_not_diverge(family: type[RandomDynamics], split: str) -> None:
    env = family(threads=1)
    for played in play(env, env.held_out_tasks(20, split), 60):
        assert played.step.reward.isfinite().all()
    env.close()
