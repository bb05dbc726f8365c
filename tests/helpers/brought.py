"""Environments as people bring them: small ones with something that goes wrong, or that should be right."""

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

import maml_envs


class Point(gymnasium.Env[Any, Any]):
    """Go to a place in the plane; nothing is wrong with it."""

    horizon = 10
    observation_space: Any = spaces.Box(-10, 10, (2,), np.float32)
    action_space: Any = spaces.Box(-1, 1, (2,), np.float32)
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  gymnasium's own

    def __init__(self, gain: float = 1.0, render_mode: str | None = None) -> None:
        self.gain, self.render_mode = gain, render_mode

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Any:
        return rng.uniform(-1, 1, (count, 2))

    def set_task(self, task: Any) -> None:
        self.goal = np.asarray(task)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t, self.x = 0, self.np_random.normal(0, 0.1, 2)
        return self.seen(), {}

    def seen(self) -> Any:
        return self.x.astype(np.float32)

    def moved(self, action: Any) -> NDArray[np.float64]:
        return np.asarray(action, np.float64)

    def step(self, action: Any) -> Any:
        self.t += 1
        self.x = np.clip(self.x + 0.1 * self.gain * self.moved(action), -9, 9)
        return self.seen(), -float(np.abs(self.x - self.goal).sum()), False, False, self.info()

    def info(self) -> Any:
        return {}

    def render(self) -> Any:
        return np.zeros((8, 8, 3), np.uint8)


class InitRaises(Point):
    def __init__(self) -> None:
        Path("/nonexistent/mesh.stl").read_bytes()


class SetTaskRaises(Point):
    def set_task(self, task: Any) -> None:
        raise KeyError("goal")


class ResetRaises(Point):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return (options or {})["level"]


class StepRaises(Point):
    def step(self, action: Any) -> Any:
        raise RuntimeError("boom")


class SampleTakesNoGenerator(Point):
    def sample_tasks(self, count: int) -> Any:  # type: ignore[override]
        return np.zeros((count, 2))


class SetTaskTakesNothing(Point):
    def set_task(self) -> None:  # type: ignore[override]
        pass


class ResetTakesNoSeed(Point):
    def reset(self) -> Any:  # type: ignore[override]
        return np.zeros(2, np.float32), {}


class ResetGivesNoInfo(Point):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed)[0]


class ResetInfoIsNone(Point):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed)[0], None


class InfoIsNone(Point):
    def info(self) -> Any:
        return None


class NoObservationSpace(Point):
    observation_space = None


class NoActionSpace(Point):
    action_space = None


class _Own(gymnasium.Space[Any]):
    pass


class OwnSpace(Point):
    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": _Own()})


class WordsForTasks(Point):
    def sample_tasks(self, count: int, rng: np.random.Generator) -> Any:
        return ["left"] * count


class TasksAreDicts(Point):
    def sample_tasks(self, count: int, rng: np.random.Generator) -> Any:
        return [{"velocity": value, "mass": 1.0} for value in rng.uniform(0, 2, count)]


class ResetsTasks(gymnasium.Env[Any, Any]):
    """As those of pytorch-maml-rl."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Box(-1, 1, (1,))

    def reset_task(self, task: Any) -> None:
        self.task = task


class RewardIsText(Point):
    def step(self, action: Any) -> Any:
        return self.seen(), "1.5", False, False, {}


class EndsTwice(Point):
    def step(self, action: Any) -> Any:
        return self.seen(), 0.0, np.array([False, True]), False, {}


class SeedsForTasks(Point):
    """Tasks are whole numbers that float32 does not have; what was set is kept."""

    drawn: set[int] = set()  # noqa: RUF012
    was_set: list[Any] = []  # noqa: RUF012

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Any:
        tasks = rng.integers(2**31, size=count)
        self.drawn.update(tasks.tolist())
        return tasks

    def set_task(self, task: Any) -> None:
        self.was_set.append(task)
        self.goal = np.ones(2) * (task % 7) / 7


class TasksTooLarge(Point):
    def sample_tasks(self, count: int, rng: np.random.Generator) -> Any:
        return rng.integers(2**60, 2**61, size=count)


class FractionsInBytes(Point):
    observation_space = spaces.Box(0, 1, (2,), np.uint8)

    def seen(self) -> Any:
        return np.array([0.3, 0.7])


class TooLargeForBytes(Point):
    observation_space = spaces.Dict({"n": spaces.Box(0, 255, (2,), np.uint8)})

    def seen(self) -> Any:
        return {"n": np.array([300, 2])}


class NoSuchChoice(Point):
    observation_space = spaces.Discrete(5)

    def seen(self) -> Any:
        return -1


class NoSuchChoices(Point):
    observation_space = spaces.MultiDiscrete([3, 3])

    def seen(self) -> Any:
        return np.array([3, 0])


class FractionsInFlags(Point):
    observation_space = spaces.MultiBinary(2)

    def seen(self) -> Any:
        return np.array([0.5, 0.7])


class Bytes(Point):
    observation_space = spaces.Box(0, 255, (2,), np.uint8)

    def seen(self) -> Any:
        return np.clip(100 + 10 * self.x, 0, 255).astype(np.uint8)


class UnboundedActions(Point):
    action_space = spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,), np.float32)


class IsSuccess(Point):
    def info(self) -> Any:
        return {"is_success": np.array(self.t > 5)}


class TensorSuccess(Point):
    def info(self) -> Any:
        return {"success": torch.tensor(1.0)}


class SuccessAtTheEnd(Point):
    """Says it in the last step alone, and that where it is solved."""

    def info(self) -> Any:
        return {"success": True} if self.t == 10 and self.goal[0] > 0 else {}


class Wide(Point):
    action_space = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32))

    def moved(self, action: Any) -> NDArray[np.float64]:
        return np.asarray(action, np.float64) / [2, 5] - [0, 1]


class Choices(Point):
    """Right, up, left, down, from 5 on."""

    action_space = spaces.Discrete(4, start=5)

    def moved(self, action: Any) -> NDArray[np.float64]:
        assert self.action_space.contains(action)
        return np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])[action - 5]


class Named(Point):
    observation_space = spaces.Dict(
        {"place": spaces.Box(-10, 10, (2,), np.float64), "late": spaces.Discrete(2), "grid": spaces.Box(0, 1, (2, 2))}
    )

    def seen(self) -> Any:
        grid = np.array([[self.x[0] > 0, 0], [0, self.x[1] > 0]], np.float32)
        return {"place": self.x.copy(), "late": int(self.t > 5), "grid": grid}


class ManyChoices(Point):
    observation_space = spaces.Dict(
        {"at": spaces.MultiDiscrete([3, 3], start=[1, 1]), "place": spaces.Box(-10, 10, (2,))}
    )

    def seen(self) -> Any:
        return {"at": np.array([1 + (self.x[0] > 0), 3]), "place": self.x.astype(np.float32)}


class WholeArray(gymnasium.Env[Any, Any]):
    """Attributes of kinds that a range may not fit."""

    horizon = 5
    observation_space = spaces.Box(-10, 10, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self) -> None:
        self.whole, self.count, self.anew, self.copied = np.array([1, 2]), 2, np.array([1.0]), np.array([1.0])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.anew, self.copied = np.array([1.0]), self.copied.copy()
        self.x = 0.0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.x += 0.1 * float(action[0]) * self.count * self.anew[0] * self.copied[0]
        return np.array([self.x], np.float32), -abs(self.x), False, False, {}


gymnasium.register("BroughtPoint-v0", entry_point="brought:Point", max_episode_steps=10)


class OtherAxes(Point):
    """Channels last where the space has them first: as many numbers, in another order."""

    observation_space = spaces.Box(0, 255, (3, 4, 4), np.uint8)

    def seen(self) -> Any:
        return np.ones((4, 4, 3), np.uint8)


class UnknownKey(Point):
    observation_space = spaces.Dict({"place": spaces.Box(-10, 10, (2,))})

    def seen(self) -> Any:
        return {"place": self.x.astype(np.float32), "goal": self.goal}


class OnePartMore(Point):
    observation_space = spaces.Tuple([spaces.Box(-10, 10, (2,))])

    def seen(self) -> Any:
        return (self.x.astype(np.float32), self.goal)


class Complex(Point):
    def seen(self) -> Any:
        return self.x + 1j


class BeyondFloats(Point):
    observation_space = spaces.Box(0, 2**40, (2,), np.int64)

    def seen(self) -> Any:
        return np.array([0, 2**24 + 1])


class NoFlag(Point):
    def step(self, action: Any) -> Any:
        return self.seen(), 0.0, np.nan, False, {}


class SuccessInWords(Point):
    def info(self) -> Any:
        return {"success": "True"}


class SuccessOfTwo(Point):
    def info(self) -> Any:
        return {"is_success": np.array([True, True])}


class SuccessUnknownYet(Point):
    def info(self) -> Any:
        return {"success": None if self.t < 10 else True}


class TaskSetsActions(Point):
    def set_task(self, task: Any) -> None:
        super().set_task(task)
        self.action_space = spaces.Box(-3, 3, (2,), np.float32)


class EachHasItsOwn(Point):
    made = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1
        self.observation_space = spaces.Box(-10, 10, (1 + self.made,), np.float32)

    def seen(self) -> Any:
        return np.zeros(self.observation_space.shape, np.float32)


class NewSpacesThatAreEqual(Point):
    def set_task(self, task: Any) -> None:
        super().set_task(task)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)


class BoundsFollowTheTask(Point):
    def set_task(self, task: Any) -> None:
        super().set_task(task)
        self.observation_space = spaces.Box(-10 - abs(float(task[0])), 11, (2,), np.float32)


class NoObservation(Point):
    def seen(self) -> Any:
        return None


class Ragged(Point):
    def seen(self) -> Any:
        return [[1.0], [1.0, 2.0]]


class WholeBesideFractions(Point):
    """Training tasks choose from a list; held-out tasks are the same numbers as fractions."""

    goals = ((0.0, 1.0), (1.0, 0.0), (0.5, 0.5), (-1.0, 0.0))

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Any:
        return rng.integers(4, size=count)

    def held_out_tasks(self, count: int, split: str) -> Any:
        return np.arange(20) % 4 * 1.0

    def set_task(self, task: Any) -> None:
        self.goal = np.array(self.goals[task])


class NumbersBesideRows(Point):
    def sample_tasks(self, count: int, rng: np.random.Generator) -> Any:
        return rng.uniform(-1, 1, count)

    def held_out_tasks(self, count: int, split: str) -> Any:
        return np.linspace(-1, 1, count)[:, None]

    def set_task(self, task: Any) -> None:
        assert np.ndim(task) == 0, "a number, as it was drawn"
        self.goal = np.array([task, 0.0])


class HeldOutWithoutSplit(Point):
    def held_out_tasks(self, count: int) -> Any:
        return np.zeros((count, 2))


class HeldOutOfOtherWidth(Point):
    def held_out_tasks(self, count: int, split: str) -> Any:
        return np.zeros((count, 3))


class HeldOutIsAList(Point):
    held_out_tasks = ((0.0, 0.0),)


class TasksAreNaN(Point):
    def sample_tasks(self, count: int, rng: np.random.Generator) -> Any:
        return np.full((count, 2), np.nan)


class HorizonIsAFraction(Point):
    horizon = 10.0  # type: ignore[assignment]


class CannotClose(Point):
    def close(self) -> None:
        raise RuntimeError("the simulator hung up")


class Elsewhere(Point):
    """Changes the working directory, as where its meshes are named by relative paths."""

    def __init__(self) -> None:
        super().__init__()
        os.chdir(Path(__file__).parent)


class WritesIntoWhatItGets(maml_envs.TaskEnv):
    """Changes actions and tasks in place; what the policy did and was told has to stay as it was."""

    horizon = 5
    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)
    clones = False

    def sample_tasks(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(count, 1, generator=generator)

    def reset(self, tasks: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        tasks = tasks.clone() if self.clones else tasks
        tasks *= 10
        seeds = seeds.clone() if self.clones else seeds
        seeds *= 0
        self.goal, self.place = tasks / 10, torch.zeros(len(seeds), 1)
        return self.place

    def step(self, action: torch.Tensor) -> maml_envs.Step:
        action = action.clone() if self.clones else action
        action *= 2
        action -= 1
        self.place = self.place + 0.1 * action[:, :1]
        return maml_envs.Step.ongoing(self.place, -(self.place - self.goal).abs()[:, 0])


class Clones(WritesIntoWhatItGets):
    clones = True


class TakesDerivatives(WritesIntoWhatItGets):
    def step(self, action: torch.Tensor) -> maml_envs.Step:
        torch.autograd.grad(self.place.requires_grad_().square().sum(), self.place)
        return super().step(action)
