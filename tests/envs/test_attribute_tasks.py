"""Tasks from ranges of attributes: what is set, what is drawn, and what is refused in which words."""

from functools import partial

import gym_probes
import gymnasium
import numpy as np
import pytest
import torch

import maml_envs
from maml_envs import InputError, VectorOptions
from maml_envs.adapters.attribute_tasks import RangedEnv, _short

Ranges = dict[str, tuple[float, float]]


def ranged(name: str, ranges: Ranges) -> RangedEnv:
    return RangedEnv(gymnasium.make(name), ranges)


def test_attributes_are_set_to_the_values_of_the_row() -> None:
    env = ranged("Pendulum-v1", {"m": (0.5, 2), "g": (5, 15)})
    env.set_task(np.array([9.0, 1.5], np.float32))  # columns in alphabetical order
    assert (env.unwrapped.g, env.unwrapped.m) == (9.0, 1.5)
    torque, plain = np.array([1.0], np.float32), gymnasium.make("Pendulum-v1", g=9.0)
    plain.unwrapped.m = 1.5
    for each in (env, plain):
        each.reset(seed=3)
    assert [env.step(torque)[0].tolist() for _ in range(5)] == [plain.step(torque)[0].tolist() for _ in range(5)]


def test_parts_of_a_mujoco_model() -> None:
    ranges = {
        "gravity": (-12, -6), "body_mass.torso": (1, 5), "dof_damping.foot_joint": (0, 1),
        "geom_friction.floor.0": (1, 2), "actuator_gear.0.0": (100, 200), "jnt_stiffness.leg_joint": (0, 3),
        "model.opt.timestep": (0.001, 0.002), "model.opt.wind.1": (0, 1),
    }  # fmt: skip
    env = ranged("Hopper-v5", ranges)
    values = {"gravity": -7, "body_mass.torso": 4, "dof_damping.foot_joint": 0.5, "geom_friction.floor.0": 1.25}
    values |= {"actuator_gear.0.0": 150, "jnt_stiffness.leg_joint": 2, "model.opt.timestep": 0.0015}
    values |= {"model.opt.wind.1": 0.5}
    before, model = env.unwrapped.model.body_mass.copy(), env.unwrapped.model
    env.set_task(np.array([values[key] for key in sorted(values)]))
    assert model.opt.gravity.tolist() == [0, 0, -7]
    assert model.body("torso").mass == [4]
    np.testing.assert_array_equal(model.body_mass[2:], before[2:])
    assert (model.joint("foot_joint").damping, model.geom("floor").friction[0]) == ([0.5], 1.25)
    assert (model.actuator_gear[0, 0], model.joint("leg_joint").stiffness) == (150, [2])
    assert (model.opt.timestep, model.opt.wind.tolist()) == (0.0015, [0, 0.5, 0])
    # what MuJoCo derives from masses followed: mj_setConst
    assert model.body_subtreemass[0] == pytest.approx(4 + before[2:].sum())
    env.set_task(np.array([values[key] if key != "body_mass.torso" else 1 for key in sorted(values)]))
    assert model.body_subtreemass[0] == pytest.approx(1 + before[2:].sum())


def test_the_values_of_the_model_itself_change_nothing() -> None:
    plain = gymnasium.make("Hopper-v5")
    mass = float(plain.unwrapped.model.body("torso").mass[0])
    env = ranged("Hopper-v5", {"gravity": (-9.81, -9.81), "body_mass.torso": (mass, mass)})
    env.set_task(env.sample_tasks(1, np.random.default_rng(0))[0])
    for each in (env, plain):
        each.reset(seed=3)
    action = np.full(3, 0.5, np.float32)
    for _ in range(10):
        np.testing.assert_allclose(env.step(action)[0], plain.step(action)[0], rtol=1e-9)


def test_tasks_fill_their_ranges_and_out_lies_beyond_them() -> None:
    ranges = {"g": (5.0, 15.0), "l": (0.5, 2.0), "m": (0.1, 4.1), "max_torque": (0.0, 1.0), "max_speed": (-8.0, -4.0)}
    env = ranged("Pendulum-v1", ranges)
    low, high = np.array([ranges[key] for key in sorted(ranges)]).T
    tasks = env.sample_tasks(4000, np.random.default_rng(1))
    assert ((tasks >= low) & (tasks <= high)).all()
    np.testing.assert_allclose(tasks.mean(0), (low + high) / 2, atol=0.03 * (high - low).max())
    out = env.held_out_tasks(4000, "out")
    assert ((out < low) | (out > high)).all()
    quarter = (high - low) / 4
    bounds = {key: (a, b) for key, a, b in zip(sorted(ranges), out.min(0), out.max(0), strict=True)}
    for key, (a, b) in bounds.items():
        column = sorted(ranges).index(key)
        # a quarter of the width on either side; not where a positive quantity would become negative
        lowest = low[column] - quarter[column] if key not in ("m", "max_torque") else high[column]
        assert a == pytest.approx(lowest, abs=0.02)
        assert b == pytest.approx(high[column] + quarter[column], abs=0.02)
    assert np.array_equal(env.held_out_tasks(5, "out"), env.held_out_tasks(5, "out"))
    inside = env.held_out_tasks(4000, "in")
    assert ((inside >= low) & (inside <= high)).all()


def test_beyond_a_negative_range_there_is_no_positive_value() -> None:
    env = RangedEnv(gymnasium.make("Pendulum-v1"), {"g": (-1.0, -0.1)})
    out = env.held_out_tasks(500, "out")
    assert -1.225 <= out.min() < out.max() < -1


REFUSED = {
    "unknown": ("Pendulum-v1", {"gg": (1, 2)}, r"'gg' is not an attribute of PendulumEnv; did you mean g\?"),
    "near": ("CartPole-v1", {"mass_pole": (1, 2)}, "is not an attribute of CartPoleEnv; did you mean masspole"),
    "no number": ("Hopper-v5", {"model": (1, 2)}, "'model' is a MjModel and not a number of HopperEnv"),
    "array": ("Hopper-v5", {"model.opt.wind": (1, 2)}, "has 3 numbers: name one, such as 'model.opt.wind.0'"),
    "element": ("Hopper-v5", {"geom_friction.floor.7": (1, 2)}, "has no number '7': give 0 to 2"),
    "body": ("Hopper-v5", {"body_mass.tors": (1, 2)}, r"no body of the model is named 'tors'; did you mean torso\?"),
    "field": ("Hopper-v5", {"body_mas.torso": (1, 2)}, "a MuJoCo model has no 'body_mas'; did you mean body_mass"),
    "option": ("Hopper-v5", {"model.opt.timestp": (1, 2)}, r"did you mean timestep\?"),
    "read only": ("Hopper-v5", {"dt": (1, 2)}, "dt = 1 cannot be set: property 'dt'"),
    "order": ("Pendulum-v1", {"g": (3, 1)}, r"g = \[3, 1\] is no range: give \[low, high\] with low <= high"),
    "infinite": ("Pendulum-v1", {"g": (0, np.inf)}, r"g = \[0, inf\] is no range"),
    "empty": ("Pendulum-v1", {}, r"has no sample_tasks and no set_task. Give ranges .* in \[vector.task_ranges\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    name, ranges, said = REFUSED[case]
    with pytest.raises(InputError, match=said):
        maml_envs.make(f"gymnasium:{name}", vector=VectorOptions(task_ranges=ranges))


def test_an_empty_table_is_refused_by_itself() -> None:
    with pytest.raises(
        InputError, match=r"task_ranges is empty: give an attribute and its range, such as g = \[5, 15\]"
    ):
        ranged("Pendulum-v1", {})


def test_ids_that_are_not_there() -> None:
    for name, said in (("Pendulom-v1", "Did you mean: `Pendulum`"), ("no_such_module:X-v0", "no_such_module")):
        with pytest.raises(InputError, match=rf"^env = 'gymnasium:{name}': [\s\S]*{said}"):
            maml_envs.make(f"gymnasium:{name}", vector=VectorOptions(task_ranges={"g": (1, 2)}))


def test_a_class_without_tasks_takes_ranges_and_one_with_tasks_does_not() -> None:
    with pytest.raises(InputError, match="Counted draws its own tasks: leave them out"):
        maml_envs.make("gym_probes:Counted", vector=VectorOptions(task_ranges={"goal": (1, 2)}))
    with pytest.raises(
        InputError, match=r"(?s)has no sample_tasks and no set_task.*def sample_tasks\(self, count, rng\)"
    ):
        maml_envs.make("gym_probes:NoMethods")
    env = partial(RangedEnv, ranges={"spring": (1, 2)})(gym_probes.NoMethods())
    env.set_task(np.array([1.5]))
    assert (env.unwrapped.spring, gym_probes.NoMethods.spring) == (1.5, 1.0)


def test_the_batch_plays_its_tasks() -> None:
    env = maml_envs.make("gymnasium:Pendulum-v1", horizon=7, vector=VectorOptions(task_ranges={"g": (0, 20)}))
    env.reset(torch.tensor([[0.0], [0.0], [20.0]]), torch.tensor([5, 5, 5]))
    step = env.step(torch.zeros(3, 1))
    assert torch.equal(step.observation[0], step.observation[1])
    # g turns the pole: thdot grows by 3 g / (2 l) sin(th) dt, with l = 1 and dt = 0.05
    theta = torch.atan2(*env.reset(torch.zeros(1, 1), torch.tensor([5]))[0, [1, 0]])
    faster = 3 * 20 / 2 * torch.sin(theta) * 0.05
    torch.testing.assert_close(step.observation[2, 2] - step.observation[0, 2], faster, rtol=1e-4, atol=1e-4)


def test_words_for_a_task_are_the_ends_that_tell_it_apart() -> None:
    assert _short(["_env.physics.model.body_mass.2", "g"]) == ["body_mass.2", "g"]
    assert _short(["model.body_mass.1", "model.body_mass.2"]) == ["body_mass.1", "body_mass.2"]
    assert _short(["a.mass", "b.mass"]) == ["a.mass", "b.mass"]
    assert _short(["mass", "b.mass"]) == ["mass", "b.mass"]
