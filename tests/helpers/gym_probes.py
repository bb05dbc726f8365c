"""Gymnasium environments with a known answer, or a known fault; no torch, as in a user's own file."""

import ctypes
import os
import signal
import sys
import time
from typing import Any

import gymnasium
import numpy as np


class Counted(gymnasium.Env):
    """Observes (task, steps taken, a number drawn at reset, the last action); the reward is task * steps + action.

    A task g > 0 terminates after g steps, g < 0 is truncated after -g steps. A step after the end is an error.
    """

    horizon = 6
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gymnasium.spaces.Box(-2.0, 6.0, (1,), np.float32)

    def sample_tasks(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return rng.choice([-5.0, -3.0, 2.0, 4.0, 9.0], (count, 1))

    def set_task(self, task: np.ndarray) -> None:
        (self.goal,) = task.tolist()

    def see(self, action: float) -> np.ndarray:
        return np.array([self.goal, self.count, self.drawn, action], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.drawn, self.ended = 0, self.np_random.random(), False
        return self.see(0.0), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert not self.ended, "stepped after its end"
        self.count += 1
        terminated, truncated = self.count == self.goal, self.count == -self.goal
        self.ended = terminated or truncated
        info = {"success": terminated, "counted": self.count, "text": "left out"}
        return self.see(action[0]), self.goal * self.count + action[0], terminated, truncated, info


def die_halfway() -> None:
    """Send the header of a message of 1000 bytes, and nothing more."""
    for number in os.listdir("/proc/self/fd"):
        if os.path.islink(f"/proc/self/fd/{number}") and "socket" in os.readlink(f"/proc/self/fd/{number}"):
            os.write(int(number), (1000).to_bytes(4))
    time.sleep(1000)


def refuse(error: BaseException) -> None:
    """What the client of a simulator in another process raises."""
    raise error


FAULTS = {
    1: lambda: 1 / 0,
    2: lambda: os.kill(os.getpid(), signal.SIGKILL),
    3: lambda: time.sleep(1000),
    4: die_halfway,
    5: lambda: ctypes.string_at(0),
    6: lambda: os._exit(3),
    7: lambda: refuse(ConnectionResetError("my simulator hung up")),
    8: lambda: refuse(EOFError("my simulator hung up")),
    9: lambda: refuse(SystemExit("my simulator hung up")),
}


class Faulty(Counted):
    """A row (goal, fault): the fault happens in the third step. FAULT in the environment puts it into iteration 1."""

    def __init__(self) -> None:
        self.draws = 0

    def sample_tasks(self, count: int, rng: np.random.Generator) -> np.ndarray:
        self.draws += 1
        tasks = np.column_stack((rng.choice([4.0, 9.0], count), np.zeros(count)))
        if self.draws == 7:  # one when made, four in the contract's check, one an iteration
            tasks[-1, 1] = float(os.environ.get("FAULT", 0))
        return tasks

    def set_task(self, task: np.ndarray) -> None:
        self.goal, self.fault = task.tolist()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.fault and self.count == 2:
            FAULTS[int(self.fault)]()
        return super().step(action)


class Tells(Counted):
    """Tells about the process that it runs in."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        told = {
            "torch": "torch" in sys.modules,
            "maml_envs": "maml_envs" in sys.modules,
            "threads": threads,
            "pid": os.getpid(),
        }
        return *super().step(action)[:4], told


class Coin(Counted):
    """A task is one number and not a row; actions 5 and 6; observations a Dict."""

    observation_space = gymnasium.spaces.Dict(
        {"side": gymnasium.spaces.Discrete(2), "place": gymnasium.spaces.Box(-9, 9, (1, 2), np.float64)}
    )
    action_space = gymnasium.spaces.Discrete(2, start=5)

    def sample_tasks(self, count: int, rng: np.random.Generator) -> list[float]:
        return rng.uniform(1, 2, count).tolist()

    def held_out_tasks(self, count: int, split: str) -> list[float]:
        return [3.0 if split == "in" else 4.0] * count

    def set_task(self, task: float) -> None:
        self.goal = float(task) if task.ndim == 0 else 1 / 0

    def see(self, action: float) -> dict[str, Any]:
        return {"side": int(self.count % 2), "place": np.array([[self.goal, action]])}

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self.see(float(action)), 1.0, False, False, {}


class NoMethods(gymnasium.Env):
    observation_space = Counted.observation_space
    action_space = Counted.action_space
    spring = 1.0
    horizon = 5


class Keeps(Counted):
    """Rewards the change of the action, which it keeps as it was given."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.last = np.zeros(1, np.float32)
        return super().reset(seed=seed)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, _, *rest = super().step(action)
        reward, self.last = float(action[0] - self.last[0]), action
        return observation, reward, *rest


# --- Faults that check-env finds.


class Unseeded(Counted):
    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return super().reset(seed=None)


class Remembers(Counted):
    total = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = super().reset(seed=seed)
        self.total += 1
        return observation + self.total, info


class Shared(Counted):
    def set_task(self, task: np.ndarray) -> None:
        (Shared.goal,) = task.tolist()


class Deaf(Counted):
    def set_task(self, task: np.ndarray) -> None:
        self.goal = 20.0


class TimeLimit(Counted):
    def set_task(self, task: np.ndarray) -> None:
        self.goal = 5.0

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, _, *rest = super().step(action)
        return observation, float(action[0]), *rest


class Bounded(Counted):
    observation_space = gymnasium.spaces.Box(-9, 3, (4,), np.float32)


class Explodes(Counted):
    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, *rest = super().step(action)
        return observation, reward if self.count < 4 else np.nan, *rest
