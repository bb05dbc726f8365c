"""The gymnasium view of one environment: ids, spaces, episodes, pictures."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import maml_envs
from maml_envs.adapters.to_gymnasium import SingleEnv

IDS = [
    "maml_rl/navigation-finn2017-v0",
    "maml_rl/half-cheetah-dir-gymnasium-v0",
    "maml_rl/half-cheetah-dir-finn2017-v0",
    "maml_rl/half-cheetah-vel-gymnasium-v0",
    "maml_rl/half-cheetah-vel-finn2017-v0",
]
ROBOTS = [
    "maml_rl/ant-dir-gymnasium-v0",
    "maml_rl/ant-dir-finn2017-v0",
    "maml_rl/ant-dir-2d-gymnasium-v0",
    "maml_rl/ant-vel-gymnasium-v0",
    "maml_rl/ant-vel-finn2017-v0",
    "maml_rl/ant-goal-gymnasium-v0",
    "maml_rl/ant-goal-finn2017-v0",
    "maml_rl/humanoid-dir-gymnasium-v0",
    "maml_rl/humanoid-dir-promp-v0",
    "maml_rl/walker-dir-gymnasium-v0",
    "maml_rl/walker-vel-gymnasium-v0",
    "maml_rl/walker-rand-params-gymnasium-v0",
    "maml_rl/hopper-rand-params-gymnasium-v0",
]
DISCRETE = ["maml_rl/bandit-bernoulli-v0", "maml_rl/bandit-gaussian-v0", "maml_rl/tabular-mdp-duan2016-v0"]
Make = Callable[..., gymnasium.Env]


@pytest.fixture
def make() -> Iterator[Make]:
    """gymnasium.make, closing at the end what it made."""
    made = []

    def new(name: str, **options) -> gymnasium.Env:
        made.append(gymnasium.make(name, **options))
        return made[-1]

    yield new
    for env in made:
        env.close()


def test_every_preset_of_every_family_has_an_id() -> None:
    registered = [name for name in gymnasium.registry if name.startswith("maml_rl/")]
    assert registered == IDS + ROBOTS + DISCRETE
    families = [(name, preset) for name in maml_envs.names() for preset in maml_envs.family(name).presets]
    assert registered == [f"maml_rl/{name}-{preset}-v0" for name, preset in families]


def test_the_ids_work_in_a_program_that_imports_gymnasium_alone(tmp_path: Path) -> None:
    code = "import gymnasium; print(gymnasium.make('maml_envs:maml_rl/navigation-finn2017-v0').reset(seed=0)[0])"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0. 0.]\n", "")


@pytest.mark.filterwarnings("ignore:.*A Box observation space minimum value is -infinity:UserWarning")
@pytest.mark.filterwarnings("ignore:.*A Box observation space maximum value is infinity:UserWarning")
@pytest.mark.parametrize("name", IDS + ROBOTS + DISCRETE)
def test_gymnasium_finds_nothing_wrong(name: str, make: Make) -> None:
    # Drawing the robot needs OpenGL, and has a test of its own.
    check_env(make(name).unwrapped, skip_render_check="navigation" not in name)


@pytest.mark.parametrize("name", IDS)
def test_spaces(name: str, make: Make) -> None:
    env = make(name)
    size, width = (2, 2) if "navigation" in name else (6, 20 if "finn2017" in name else 17)
    assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (size,), np.float32)
    assert env.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32)
    first, info = env.reset(seed=0)
    observation, reward, terminated, truncated, terms = env.step(env.action_space.sample())
    assert first in env.observation_space
    assert observation in env.observation_space
    assert [type(value) for value in (reward, terminated, truncated)] == [float, bool, bool]
    assert info["task"].shape == (2 if "navigation" in name else 1,)
    assert all(type(value) in (float, bool) for value in terms.values())


@pytest.mark.parametrize("name", IDS[1:])
def test_actions_span_the_robots_bounds_and_the_terms_sum_to_the_reward(name: str, make: Make) -> None:
    env = make(name)
    env.reset(seed=4)
    for size, cost in ((1.0, 0.3), (-1.0, 0.3), (0.5, 0.075), (0.0, 0.0)):
        _, reward, _, _, info = env.step(np.full(6, size, np.float32))
        assert set(info) == {"reward_run", "reward_control"}
        assert info["reward_control"] == pytest.approx(-cost, abs=1e-6)
        assert abs(info["reward_run"]) > 1e-4
        assert reward == pytest.approx(info["reward_run"] + info["reward_control"], rel=1e-5, abs=1e-6)


def test_navigation_by_hand(make: Make) -> None:
    env = make("maml_rl/navigation-finn2017-v0")
    observation, info = env.reset(seed=1, options={"task": [0.15, -0.05]})
    assert observation.tolist() == [0, 0]
    np.testing.assert_allclose(info["task"], [0.15, -0.05], rtol=1e-6)
    observation, reward, terminated, truncated, info = env.step(np.array([1.0, -0.5], np.float32))
    np.testing.assert_allclose(observation, [0.1, -0.05], rtol=1e-6)
    assert reward == pytest.approx(-0.05, rel=1e-5)
    assert (terminated, truncated, info) == (False, False, {"success": False})
    _, reward, terminated, truncated, info = env.step(np.array([0.5, 0.0], np.float32))
    assert reward == pytest.approx(0.0, abs=1e-6)
    assert (terminated, truncated, info) == (True, False, {"success": True})


def test_the_task_that_is_asked_for_is_the_one_that_is_played(make: Make) -> None:
    env = make("maml_rl/half-cheetah-dir-gymnasium-v0")
    action = np.full(6, 0.5, np.float32)
    runs = {}
    for direction in (1.0, -1.0):
        observation, info = env.reset(seed=3, options={"task": np.array([direction])})
        assert info["task"].tolist() == [direction]
        runs[direction] = observation, env.step(action)[4]["reward_run"]
    # The same start, the same step, the opposite reward.
    np.testing.assert_array_equal(runs[1.0][0], runs[-1.0][0])
    assert runs[1.0][1] == -runs[-1.0][1] != 0


@pytest.mark.parametrize("name", [IDS[0], IDS[3]])
def test_a_seed_makes_task_start_and_episode(name: str, make: Make) -> None:
    def play(env: gymnasium.Env, seed: int | None) -> list[list[float]]:
        observation, info = env.reset(seed=seed)
        steps = [env.step(np.full(env.action_space.shape, 0.3, np.float32))[0] for _ in range(3)]
        return [info["task"].tolist(), *(row.tolist() for row in (observation, *steps))]

    one, other = make(name), make(name)
    episodes = [play(one, 7), play(one, None), play(one, None)]
    assert [play(other, 7), play(other, None), play(other, None)] == episodes
    tasks = [episode[0] for episode in episodes] + [play(one, 8)[0]]
    assert len({tuple(task) for task in tasks}) == 4


@pytest.mark.parametrize("name", [IDS[0], IDS[2]])
def test_an_episode_is_cut_at_the_horizon(name: str, make: Make) -> None:
    env = make(name, horizon=3)
    for _ in range(2):
        env.reset(seed=0)
        flags = [env.step(np.zeros(env.action_space.shape, np.float32))[2:4] for _ in range(3)]
        assert flags == [(False, False), (False, False), (False, True)]


@pytest.mark.parametrize(("name", "horizon"), [(IDS[0], 100), (IDS[1], 200)])
def test_the_horizon_is_the_familys_own_by_default(name: str, horizon: int, make: Make) -> None:
    env = make(name)
    # A goal that standing still does not reach.
    env.reset(seed=0, options={"task": [0.4, 0.4]} if "navigation" in name else None)
    still = np.zeros(env.action_space.shape, np.float32)
    assert [env.step(still)[3] for _ in range(horizon)] == [False] * (horizon - 1) + [True]


def test_a_step_before_reset_is_refused(make: Make) -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        make(IDS[1]).step(np.zeros(6, np.float32))


def test_a_vector_of_them_resets_each_from_its_own_seed() -> None:
    env = gymnasium.make_vec(IDS[0], num_envs=2, vectorization_mode="sync")
    _, info = env.reset(seed=5)
    single = gymnasium.make(IDS[0])
    assert info["task"][1].tolist() == single.reset(seed=6)[1]["task"].tolist()
    assert info["task"][0].tolist() != info["task"][1].tolist()
    env.close()


def test_navigation_draws_itself(make: Make) -> None:
    env = make(IDS[0], render_mode="rgb_array")
    env.reset(seed=0, options={"task": [0.5, 0.5]})
    before = env.render()
    assert before.shape == (400, 400, 3)
    assert before.dtype == np.uint8
    env.step(np.ones(2, np.float32))
    assert (env.render() != before).any()
    silent = make(IDS[0])
    silent.reset(seed=0)
    assert silent.unwrapped.render() is None


DRAW = """
import json, sys

try:
    import mujoco
    renderer = mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8)
    renderer.render()
    renderer.close()
except Exception as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(77)

import gymnasium, numpy as np, torch
env = gymnasium.make("maml_envs:maml_rl/half-cheetah-dir-gymnasium-v0", render_mode="rgb_array")
env.reset(seed=0)
first, again = env.render(), env.render()
for _ in range(10):
    env.step(np.ones(6, np.float32))
later = env.render()
batch = env.unwrapped.env
small = batch.render(width=64, height=32)
batch.reset(torch.ones(2, 1), torch.tensor([1, 2]))
alone = batch.render()
batch.state.qpos[1] += 1.0
neighbour_moved = batch.render()
batch.state.qpos[0, 1] += 0.3
lifted = batch.render()
env.close()
env.close()
print(json.dumps({
    "shape": first.shape, "dtype": str(first.dtype), "colors": len(np.unique(first.reshape(-1, 3), axis=0)),
    "same": bool((first == again).all()), "moved": float((first != later).mean()), "small": small.shape,
    "first only": bool((alone == neighbour_moved).all()), "lifted": float((alone != lifted).mean()),
}))
"""


def test_the_half_cheetah_draws_itself(tmp_path: Path) -> None:
    failures = []
    for backend in ("egl", "osmesa"):
        environment = os.environ | {"MUJOCO_GL": backend}
        command = [sys.executable, "-c", DRAW]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode == 77:  # MuJoCo cannot draw an empty scene either
            failures.append(f"MUJOCO_GL={backend}: {done.stdout.strip()}")
            continue
        assert done.returncode == 0, done.stderr
        drawn = json.loads(done.stdout.splitlines()[-1])
        assert drawn["shape"] == [360, 480, 3]
        assert drawn["dtype"] == "uint8"
        assert drawn["colors"] > 100
        assert drawn["small"] == [32, 64, 3]
        assert drawn["same"]
        assert drawn["first only"]
        assert drawn["moved"] > 0.01
        assert drawn["lifted"] > 0.01
        return
    pytest.skip("no OpenGL without a display here, so MuJoCo cannot draw: " + "; ".join(failures))


def test_actions_are_in_the_environments_own_units() -> None:
    class Lopsided(maml_envs.TaskEnv):
        """Its policy's actions lie in [-1, 3] and [0, 0.5]; it shows the action as its observation."""

        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        action_space = gymnasium.spaces.Box(np.array([-1, 0], np.float32), np.array([3, 0.5], np.float32))
        horizon = 10

        def sample_tasks(self, count, generator):
            return torch.rand(count, 1, generator=generator)

        def reset(self, tasks, seeds):
            return tasks.expand(-1, 2)

        def step(self, action):
            return maml_envs.Step.ongoing(action, action.sum(-1))

    env = SingleEnv(Lopsided())
    assert env.action_space == Lopsided.action_space
    env.reset(seed=0)
    for action in ((-1, 0), (3, 0.5), (0, 0.375)):
        np.testing.assert_array_equal(env.step(np.array(action, np.float32))[0], np.array(action, np.float32))
