"""What films ask of an environment: tasks in words, places, goals, pictures; for every family, by hand."""

import copy
from contextlib import closing

import gym_probes
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import maml_envs
from maml_envs import GymnasiumTaskEnv, InputError, Step, TaskEnv, VectorOptions
from maml_envs.registry import make
from maml_envs.robots.half_cheetah import HalfCheetahDirection
from maml_envs.robots.mujoco_task import MujocoTask
from maml_envs.robots.random_dynamics import RandomDynamics
from maml_rl.core.task_axis import TaskAxis
from maml_rl.rl.policies import GaussianPolicy
from maml_rl.rl.rollout import Sampler

WORDS = {
    "navigation": ([0.3, -0.204], "goal (0.30, -0.20)"),
    "half-cheetah-dir": ([1.0], "forward"),
    "half-cheetah-vel": ([1.25], "goal velocity 1.25 m/s"),
    "ant-dir": ([-1.0], "backward"),
    "ant-dir-2d": ([0.0, -1.0], "direction 270°"),
    "ant-vel": ([0.5], "goal velocity 0.50 m/s"),
    "ant-goal": ([1.0, -2.5], "goal (1.00, -2.50)"),
    "humanoid-dir": ([-0.5, 0.75**0.5], "direction 120°"),
    "walker-dir": ([-1.0], "backward"),
    "walker-vel": ([2.0], "goal velocity 2.00 m/s"),
    "bandit": ([0.1, 0.7, 0.2, 0.0, 0.3], "arm 1 pays most, 0.70"),
}
PRESETS = [(name, preset) for name in maml_envs.names() for preset in maml_envs.family(name).presets]


def first(name: str, preset: str | None = None) -> TaskEnv:
    return make(name, preset)


def begun(env: TaskEnv, batch: int = 2) -> Tensor:
    """The tasks of a batch that was reset."""
    tasks = env.held_out_tasks(batch)
    env.reset(tasks, torch.arange(batch))
    return tasks


@pytest.mark.parametrize("name", maml_envs.names())
def test_tasks_in_words(name: str) -> None:
    env = first(name)
    if isinstance(env, RandomDynamics):
        task = torch.ones(sum(env._sizes()))
        masses, _, damping, friction = task.split(env._sizes())  # views
        masses[:3] = torch.tensor(
            [1e6, 2.0, 0.5]
        )  # the first is the world's, which weighs nothing: 2 and a half cancel
        damping[0] = 1e6  # the root's is zero
        friction[:] = 0.5
        assert env.describe(task) == "mass 1.00, inertia 1.00, damping 1.00, friction 0.50"
    elif name == "tabular-mdp":
        task = torch.full((10, 5, 11), 0.1)  # every state follows with equal chance, every action pays 0.1
        task[:, 3, -1] = 1.5  # but this one
        assert env.describe(task) == "best possible return 15.0"
    else:
        task, words = WORDS[name]
        assert env.describe(torch.tensor(task)) == words


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_places_move_with_the_agent(name: str, preset: str) -> None:
    env = first(name, preset)
    tasks = begun(env)
    before = env.positions()
    if not isinstance(env, MujocoTask):
        assert (before is None) == (name in ("bandit", "tabular-mdp"))
        return
    assert before.shape == (2, 2 if name.startswith(("ant", "humanoid")) else 1)
    kept = before.clone()
    of_mass = "subtree_com" in env.fields
    (env.state.subtree_com[0, 1] if of_mass else env.state.qpos[0])[0] += 2.5
    moved = env.positions() - before
    assert torch.equal(before, kept)  # a copy
    assert moved[0, 0] == pytest.approx(2.5)
    assert moved[0, 1:].abs().sum() + moved[1].abs().sum() < 1e-9
    goals = env.goal_positions(tasks)
    assert torch.equal(goals, tasks) if name == "ant-goal" else goals is None
    env.close()


def test_the_map_of_navigation() -> None:
    env = first("navigation")
    tasks = begun(env)
    assert env.map_only
    assert torch.equal(env.goal_positions(tasks), tasks)
    before = env.positions()
    env.step(torch.tensor([[1.0, 0.0], [-0.5, 9.0]]))
    assert env.positions().flatten().tolist() == pytest.approx([0.1, 0.0, -0.05, 0.1])
    assert before.abs().sum() == 0


@pytest.mark.parametrize("name", ["bandit", "tabular-mdp"])
def test_what_has_no_picture_says_what_to_define(name: str) -> None:
    env = first(name)
    begun(env)
    assert env.goal_positions(env.held_out_tasks(2)) is None
    with pytest.raises(
        InputError, match=r"cannot draw itself: define render\(index\) .* or positions\(\) with map_only"
    ):
        env.render(0)


class Coloured(HalfCheetahDirection):
    """Forward in red, backward in blue: a model for each task."""

    def task_model(self, task: Tensor) -> mujoco.MjModel:
        model = copy.copy(self.model)
        model.geom_rgba[1:] = (1, 0, 0, 1) if task[0] > 0 else (0, 0, 1, 1)
        return model


@pytest.mark.usefixtures("opengl_works")
def test_a_picture_is_of_its_environment_in_the_model_of_its_task() -> None:
    with closing(Coloured()) as env:
        begun(env)
        red, blue = (env.render(index).astype(int) for index in (0, 1))
        assert ((red[..., 0] - red[..., 2]) > 60).sum() > 1000 > 100 > ((red[..., 2] - red[..., 0]) > 60).sum()
        assert ((blue[..., 2] - blue[..., 0]) > 60).sum() > 1000 > 100 > ((blue[..., 0] - blue[..., 2]) > 60).sum()
        again = env.render(0)
        env.state.qpos[0, 1] += 1.0  # up
        assert np.abs(env.render(0).astype(int) - again).mean() > 1
        assert np.array_equal(env.render(1), blue)
        assert env.render(0, width=64, height=48).shape == (48, 64, 3)


@pytest.mark.usefixtures("opengl_works")
def test_random_dynamics_draws_in_the_model_of_the_task() -> None:
    with closing(first("hopper-rand-params")) as env:
        task = torch.ones(2, env.held_out_tasks(1).shape[1])
        task[1] = 2.0
        env.reset(task, torch.zeros(2, dtype=torch.int64))
        assert [env.task_model(each).body_mass.sum() / env.model.body_mass.sum() for each in task] == pytest.approx(
            [1, 2]
        )
        assert np.array_equal(env.render(0), env.render(1))  # the same start, and mass does not show


class Probe(TaskEnv):
    """Answers every hook in a way of its own."""

    horizon, map_only, max_batch, copies, presets = 3, True, 7, 2, ("one", "other")
    observation_space = HalfCheetahDirection().observation_space
    action_space = HalfCheetahDirection().action_space

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.full((count, 2), 5.0)

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        return torch.full((count, 2), 6.0 if split == "in" else 7.0)

    def best_return(self, tasks: Tensor) -> Tensor:
        return tasks.sum(-1)

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        return torch.zeros(len(seeds), 17)

    def step(self, action: Tensor) -> Step:
        return Step.ongoing(torch.ones(len(action), 17), torch.ones(len(action)))

    def describe(self, task: Tensor) -> str:
        return "in its own words"

    def positions(self) -> Tensor:
        return torch.tensor([[3.0]])

    def goal_positions(self, tasks: Tensor) -> Tensor:
        return tasks[:, :1]

    def render(self, index: int = 0) -> np.ndarray:
        return np.full((1, 1, 3), index, np.uint8)


def test_the_oracles_environment_answers_all() -> None:
    policy = GaussianPolicy(19, 6, (4,))
    sampler = Sampler([Probe()], policy, observe_task=True)
    (told,) = sampler.envs
    assert (told.horizon, told.map_only, told.max_batch, told.copies) == (3, True, 7, 2)
    assert told.presets == ("one", "other")
    assert told.sample_tasks(1, torch.Generator()).tolist() == [[5, 5]]
    assert told.held_out_tasks(1, "out").tolist() == [[7, 7]]
    tasks = told.held_out_tasks(1)
    assert told.best_return(tasks).tolist() == [12]
    params = {name: value.unsqueeze(0) for name, value in policy.init(torch.Generator()).items()}
    seeds = torch.zeros(1, 1, dtype=torch.int64)
    seen = sampler.rollout(params, tasks, torch.zeros(1, 1, 2, 6), seeds, TaskAxis(1))
    assert seen.observations.tolist() == [[[[0] * 17 + [6, 6], [1] * 17 + [6, 6]]]]
    assert seen.final_observations.tolist() == [[[1] * 17 + [6, 6]]]
    assert told.describe(tasks[0]) == "in its own words"
    assert told.positions().tolist() == [[3]]
    assert told.goal_positions(tasks).tolist() == [[6]]
    assert told.render(4).tolist() == [[[4, 4, 4]]]


def test_numbers_of_a_task_where_a_family_has_no_words() -> None:
    env = GymnasiumTaskEnv(gym_probes.Counted)
    assert env.describe(torch.tensor([4.0])) == "task (4)"
    assert TaskEnv.describe(env, torch.arange(8.0) / 3) == "task (0, 0.333, 0.667, 1, 1.33, 1.67, ...)"


class Worded(gym_probes.Counted):
    """Has words for its tasks."""

    def describe(self, task: np.ndarray) -> str:
        return f"for {int(task[0])} steps"


def test_words_of_a_gymnasium_environment_and_of_ranges() -> None:
    assert GymnasiumTaskEnv(Worded).describe(torch.tensor([4.0])) == "for 4 steps"
    env = make("gymnasium:Pendulum-v1", vector=VectorOptions(task_ranges={"g": (5.0, 15.0), "m": (0.5, 2.0)}))
    assert env.describe(torch.tensor([12.0, 0.75])) == "g 12, m 0.75"
