"""Meta-World's benchmarks as a gymnasium environment whose tasks are rows; imports Meta-World only when used."""

import difflib
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from maml_envs.errors import InputError

BY_METAWORLD = "metaworld:"
BENCHMARKS = ("ML10", "ML25", "ML45")
GOALS = 50
"""Of each environment and split, as in the benchmarks."""

WIDTH = 6
"""Numbers in the longest of the environments' random vectors."""

SEED = 0
"""Of the training goals, whatever the seed of training; held-out goals are those of the next seed, as in ML1."""


class RobotPool:
    """Idle robots, kept for reuse: loading one takes as long as some hundred steps. Pickled, it is empty."""

    def __init__(self) -> None:
        self._waiting: dict[type, list[Any]] = {}

    def take(self, kind: type) -> Any:  # noqa: ANN401  a SawyerXYZEnv
        """Take a robot of a class out, or load one."""
        waiting = self._waiting.get(kind)
        return waiting.pop() if waiting else kind()

    def give_back(self, robot: object) -> None:
        """Put back a robot that ``take`` gave."""
        self._waiting.setdefault(type(robot), []).append(robot)

    def __reduce__(self) -> tuple[type["RobotPool"], tuple[()]]:
        """Pickle as an empty pool: robots stay in their process."""
        return RobotPool, ()


class MetaWorld(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A Sawyer arm that is not told its goal or, in ML10 and larger, which of several things it is to do.

    | quantity    | value                                                                      |
    |-------------|----------------------------------------------------------------------------|
    | observation | gripper, objects, both one step before, and zeros for the goal (39)        |
    | action      | the hand's move and the gripper's force in [-1, 1] (4)                     |
    | reward      | Meta-World's own, version 2: 0 to 10 a step                                |
    | ends        | never; success does not end an episode                                     |
    | task        | environment by number, then its random vector, zeros after its end (7)     |
    | horizon     | 500; more is not possible                                                  |

    A random vector holds an environment's goal, and where its object starts. Training tasks are the 50 of each
    training environment, dealt to environments as evenly as their count allows. Held-out split "in": 50 others of the
    training environments; split "out": the benchmark's test environments, whose numbers come after the others.

    Args:
        name: An environment of Meta-World's, which makes ML1; or ML10, ML25 or ML45.
        robots: Where those of other environments wait.

    Source: Yu et al. 2019, Meta-World (arXiv 1910.10897), and its package.
    """

    horizon = 500

    def __init__(self, name: str, robots: RobotPool) -> None:
        from metaworld import env_dict

        known = env_dict.ALL_V3_ENVIRONMENTS
        split = getattr(env_dict, f"{name}_V3") if name in BENCHMARKS else {"train": {name: known[name]}, "test": {}}
        self._train, self._test = list(split["train"]), list(split["test"])
        self._kinds = [*split["train"].values(), *split["test"].values()]
        self._robots = robots
        self._goals: dict[tuple[bool, int], NDArray[np.float64]] = {}
        self._robot = robots.take(self._kinds[0])
        super().__init__(self._robot)

    def _tasks(self, test: bool, seed: int) -> NDArray[np.float64]:
        """Return tasks (environments, GOALS, 1 + WIDTH); drawing those of one environment takes about a second."""
        import metaworld

        if (test, seed) not in self._goals:
            names, first = (self._test, len(self._train)) if test else (self._train, 0)
            drawn = metaworld.CustomML(names, [], seed=seed).train_tasks
            rows = np.zeros((len(names), GOALS, 1 + WIDTH))
            for task, row in zip(drawn, rows.reshape(-1, 1 + WIDTH), strict=True):
                vector = pickle.loads(task.data)["rand_vec"]
                row[0], row[1 : 1 + len(vector)] = first + names.index(task.env_name), vector
            self._goals[test, seed] = rows
        return self._goals[test, seed]

    def sample_tasks(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw training tasks; none comes twice before all of its environment's have come once."""
        tasks, turn = self._tasks(False, SEED), np.arange(count)
        environments = rng.permutation(len(tasks))[turn % len(tasks)]
        goals = rng.permuted(np.tile(np.arange(GOALS), (len(tasks), 1)), axis=1)
        rows: NDArray[np.float64] = tasks[environments, goals[environments, turn // len(tasks) % GOALS]]
        return rows

    def held_out_tasks(self, count: int, split: str) -> NDArray[np.float64]:
        """Return the first ``count`` tasks of the split, environments in turn.

        Raises:
            InputError: There are fewer, or no such split.
        """
        test = split == "out"
        if test and not self._test:
            raise InputError(f"{BY_METAWORLD}{self._train[0]} has no test environments: use split = 'in', or ML10")
        tasks = self._tasks(test, SEED if test else SEED + 1)
        rows: NDArray[np.float64] = tasks.transpose(1, 0, 2).reshape(-1, 1 + WIDTH)
        if count > len(rows):
            raise InputError(f"tasks = {count}, but there are {len(rows)} held-out tasks with split = {split!r}")
        return rows[:count]

    def set_task(self, task: NDArray[Any]) -> None:
        """Take the task's robot, and hide its goal."""
        from metaworld import Task

        kind = self._kinds[int(task[0])]
        if type(self._robot) is not kind:
            self._robots.give_back(self._robot)
            self.env = self._robot = self._robots.take(kind)
        vector = task[1 : 1 + self._robot._random_reset_space.low.size].astype(np.float64)
        data = {"env_cls": kind, "rand_vec": vector, "partially_observable": True}
        self._robot.set_task(Task(kind.__name__, pickle.dumps(data)))


def metaworld_maker(name: str) -> Callable[[], "gymnasium.Env[Any, Any]"]:
    """Return the function that makes the environment of "metaworld:NAME".

    Raises:
        InputError: Meta-World is not installed, or has no such environment.
    """
    try:
        from metaworld import env_dict
    except ModuleNotFoundError as error:
        if error.name != "metaworld":
            raise
        raise InputError(
            f"env = '{BY_METAWORLD}{name}' needs Meta-World, which wants a virtual environment of its own, whose "
            "Python is vector.worker_python; docs/how_to/metaworld.md makes one in two commands"
        ) from error
    known = [*BENCHMARKS, *env_dict.ALL_V3_ENVIRONMENTS]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise InputError(f"env = '{BY_METAWORLD}{name}': Meta-World has no {name!r}; {hint}")
    return partial(MetaWorld, name, RobotPool())
