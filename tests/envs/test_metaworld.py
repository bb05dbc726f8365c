"""Meta-World's tasks as rows: with a stand-in of two arms and a shelf, and with Meta-World where it is installed."""

import pickle
import sys
from collections import Counter
from contextlib import closing
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from tiny import rows, tiny

import maml_envs
from maml_envs import InputError, VectorOptions
from maml_envs.adapters.metaworld import SEED, WIDTH, MetaWorld, RobotPool, metaworld_maker
from maml_rl import evaluate, meta_train


class Task(NamedTuple):
    env_name: str
    data: bytes


class Arm(gymnasium.Env):
    """Observes its kind and its goal; the reward is the last number of its random vector."""

    made = 0
    kind, size = 0, 3
    max_path_length = 500
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self) -> None:
        Arm.made += 1
        self._random_reset_space = gymnasium.spaces.Box(0, 1, (self.size,))

    def set_task(self, task: Task) -> None:
        data = pickle.loads(task.data)
        assert data["partially_observable"] is True
        assert data["env_cls"] is type(self)
        self.vector = data["rand_vec"]
        assert self.vector.shape == (self.size,)
        assert self.vector.dtype == np.float64

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.array([self.kind, self.vector[0]]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.reset()[0], self.vector[-1], False, False, {"success": float(self.kind == 1)}


class Door(Arm):
    kind, size = 1, 6


class Shelf(Arm):
    kind, size = 2, 2


KINDS = {"arm-v3": Arm, "door-v3": Door, "shelf-v3": Shelf}


class CustomML:
    """Goal g of an environment is the vector (100 seed + g, ..., 10 kind + g)."""

    def __init__(self, train: list[str], test: list[str], seed: int) -> None:
        self.train_tasks = []
        for name in train:
            for goal in range(50):
                vector = np.full(KINDS[name].size, 100.0 * seed + goal)
                vector[-1] = 10 * KINDS[name].kind + goal
                self.train_tasks.append(Task(name, pickle.dumps({"rand_vec": vector})))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("metaworld")
    ml10 = {"train": {"arm-v3": Arm, "door-v3": Door}, "test": {"shelf-v3": Shelf}}
    found = {
        "env_dict": SimpleNamespace(ALL_V3_ENVIRONMENTS=KINDS, ML10_V3=ml10),
        "CustomML": CustomML,
        "Task": Task,
    }
    vars(module).update(found)
    monkeypatch.setitem(sys.modules, "metaworld", module)
    monkeypatch.setattr(Arm, "made", 0)


def test_without_metaworld_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(InputError, match=r"needs Meta-World.*is vector\.worker_python; docs/how_to/metaworld\.md"):
        maml_envs.make("metaworld:reach-v3")


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "said"),
    [("arm-v2", r"has no 'arm-v2'; did you mean arm-v3"), ("xyz", "there are ML10, ML25, ML45, arm-v3, door-v3")],
)
def test_an_unknown_name_says_what_there_is(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        maml_envs.make(f"metaworld:{name}")


@pytest.mark.usefixtures("stand_in")
def test_ranges_are_refused() -> None:
    with pytest.raises(InputError, match="task_ranges does nothing for env = 'metaworld:arm-v3'"):
        maml_envs.make("metaworld:arm-v3", vector=VectorOptions(task_ranges={"gravity": (0, 1)}))


@pytest.mark.usefixtures("stand_in")
def test_training_tasks_are_dealt_evenly_and_none_twice() -> None:
    env = metaworld_maker("ML10")()
    for count, shares in ((7, [3, 4]), (100, [50, 50]), (1, [1])):
        tasks = env.sample_tasks(count, np.random.default_rng(count))
        assert tasks.shape == (count, 1 + WIDTH)
        assert sorted(Counter(tasks[:, 0]).values()) == shares
        assert len({tuple(row) for row in tasks}) == count
    assert set(tasks[:, 0]) <= {0, 1}
    drawn = {int(env.sample_tasks(1, np.random.default_rng(seed))[0, 0]) for seed in range(20)}
    assert drawn == {0, 1}


@pytest.mark.usefixtures("stand_in")
def test_held_out_tasks_are_new_goals_or_new_environments() -> None:
    env = metaworld_maker("ML10")()
    # of the next seed, environments in turn, zeros after the vector
    expected = [[0, 100, 100, 0, 0, 0, 0], [1, 100, 100, 100, 100, 100, 10], [0, 101, 101, 1, 0, 0, 0]]
    assert env.held_out_tasks(3, "in").tolist() == expected
    assert env.held_out_tasks(2, "out").tolist() == [[2, 0, 20, 0, 0, 0, 0], [2, 1, 21, 0, 0, 0, 0]]
    assert len(env.held_out_tasks(100, "in")) == 100
    with pytest.raises(InputError, match="tasks = 101, but there are 100 held-out tasks with split = 'in'"):
        env.held_out_tasks(101, "in")
    with pytest.raises(InputError, match="metaworld:arm-v3 has no test environments"):
        metaworld_maker("arm-v3")().held_out_tasks(1, "out")


@pytest.mark.usefixtures("stand_in")
def test_each_row_plays_its_own_environment_whatever_came_before() -> None:
    with closing(maml_envs.make("metaworld:ML10")) as env:
        made = Arm.made
        tasks = torch.cat((env.held_out_tasks(3), env.held_out_tasks(2, "out")))
        for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 1, 1, 0, 3]):
            observation = env.reset(tasks[order], torch.arange(5))
            assert observation[:, 0].tolist() == tasks[order, 0].tolist()
            step = env.step(torch.zeros(5, 1))
            assert step.reward.tolist() == [[0.0, 10, 1, 20, 21][i] for i in order]
            assert step.info["success"].tolist() == [float(i == 1) for i in order]
        # at most three doors, three arms and two shelves at once, and one more where one is taken before one is left
        assert Arm.made - made <= 5 + 3 + 2
        assert env.horizon == 500


def test_idle_robots_are_taken_again_and_stay_in_their_process() -> None:
    idle = RobotPool()
    one = idle.take(Arm)
    idle.give_back(one)
    assert not cloudpickle.loads(cloudpickle.dumps(idle))._waiting
    assert isinstance(idle.take(Door), Door)
    assert idle.take(Arm) is one
    assert idle.take(Arm) is not one


@pytest.fixture(scope="module")
def metaworld() -> ModuleType:
    return pytest.importorskip("metaworld")


def vectors(tasks: list[Any]) -> list[list[float]]:
    return [pickle.loads(task.data)["rand_vec"].tolist() for task in tasks]


def test_goals_are_those_of_the_ml1_benchmark(metaworld: ModuleType) -> None:
    benchmark = metaworld.ML1("reach-v3", seed=SEED)
    env = metaworld_maker("reach-v3")()
    drawn = env.sample_tasks(50, np.random.default_rng(1))
    assert sorted(drawn[:, 1:].tolist()) == sorted(vectors(benchmark.train_tasks))
    assert env.held_out_tasks(50, "in")[:, 1:].tolist() == vectors(benchmark.test_tasks)
    task, theirs = benchmark.test_tasks[3], benchmark.train_classes["reach-v3"]()
    theirs.set_task(task)
    env.set_task(env.held_out_tasks(4, "in")[3])
    first = env.reset(seed=1)[0]
    assert np.array_equal(first, theirs.reset()[0])
    assert not first[-3:].any()  # the goal is hidden
    for action in np.linspace(-1, 1, 40).reshape(10, 4):
        one, two = env.step(action), theirs.step(action)
        assert np.array_equal(one[0], two[0])
        assert one[1:] == two[1:]


def test_ml10_has_ten_environments_and_five_others(metaworld: ModuleType) -> None:
    env = metaworld_maker("ML10")()
    assert isinstance(env, MetaWorld)
    assert Counter(env.sample_tasks(20, np.random.default_rng(0))[:, 0]) == dict.fromkeys(range(10), 2)
    out = env.held_out_tasks(250, "out")
    assert out[:5, 0].tolist() == [10, 11, 12, 13, 14]
    for row in (*env.sample_tasks(10, np.random.default_rng(1)), *out[:5]):
        env.set_task(row.astype(np.float32))
        seen = [env.reset(seed=1)[0], env.step(np.full(4, 0.1))[0]]
        assert np.isfinite(seen).all()
        assert not np.array(seen)[:, -3:].any()


@pytest.mark.usefixtures("metaworld")
def test_training_does_not_depend_on_workers(tmp_path: Any) -> None:
    runs = []
    for workers in (0, 2):
        config = tiny(
            env="metaworld:reach-v3", vector={"workers": workers}, horizon=4, iterations=1, inner={"steps": 1}
        )
        runs.append(meta_train(config, tmp_path / str(workers), quiet=True))
    assert rows(runs[0]) == rows(runs[1])
    assert rows(runs[0])[0]["success/1"] == 0
    result, _ = evaluate(runs[1])
    assert result.success == [[0.0] * 3] * 3


@pytest.mark.usefixtures("metaworld")
def test_workers_import_no_torch() -> None:
    with closing(maml_envs.make("metaworld:reach-v3", vector=VectorOptions(workers=1))) as env:
        env.reset(env.held_out_tasks(1), torch.zeros(1, dtype=torch.int64))
        (pid,) = env._batch.pids
        with open(f"/proc/{pid}/maps") as maps:
            assert "libtorch" not in maps.read()
