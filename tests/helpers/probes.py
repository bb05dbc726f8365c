"""Environments with a known answer, or a known fault: ``env = "probes:Target"`` in a configuration."""

import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
import torch
from torch import Tensor

from maml_envs import Step, TaskEnv
from maml_envs.navigation import Navigation
from maml_envs.robots.half_cheetah import HalfCheetahDirection


class Probe(TaskEnv):
    """A task is one number; every observation is 1; the reward is -(action - task)^2."""

    horizon = 3

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.resets, self.now, self.task = 0, 0, torch.zeros(0)

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, 1, generator=generator)

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        self.resets, self.now, self.task = self.resets + 1, 0, tasks[:, 0]
        return torch.ones(len(seeds), 1)

    def reward(self, action: Tensor) -> Tensor:
        return -(action[:, 0] - self.task).square()

    def step(self, action: Tensor) -> Step:
        self.now += 1
        return Step.ongoing(torch.ones(len(action), 1), self.reward(action))


class Finer(Navigation):
    """Observes positions in quarters."""

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        return super().reset(tasks, seeds) / 0.25

    def step(self, action: Tensor) -> Step:
        after = super().step(action)
        return after._replace(observation=after.observation / 0.25)


class Target(Probe):
    """One step, tasks -1 and 1 in turn. The best return is 0; without adaptation -1, at action 0 without noise."""

    horizon = 1

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        return (torch.arange(count) % 2 * 2.0 - 1).unsqueeze(-1)


class Constant(Probe):
    """The reward is the task, whatever the action: a return is horizon * task."""

    def reward(self, action: Tensor) -> Tensor:
        return self.task.clone()


class Short(Probe):
    """Ends after its second step, and gives NaN from then on."""

    def step(self, action: Tensor) -> Step:
        self.now += 1
        ended = torch.full((len(action),), self.now >= 2)
        nothing = torch.full((len(action),), float("nan"))
        reward = nothing if self.now > 2 else torch.ones(len(action))
        return Step(torch.ones(len(action), 1), reward, ended, torch.zeros_like(ended), {})


class BadHeldOut(Probe):
    """Held-out tasks give NaN; training tasks do not."""

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        return torch.full((count, 1), float("nan"))


class Signals(Probe):
    """Sends itself the signals in ``plan`` at the reset of that number (the contract's check is reset 1)."""

    plan: ClassVar[dict[int, tuple[signal.Signals, ...]]] = {}

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        observation = super().reset(tasks, seeds)
        for number in self.plan.get(self.resets, ()):
            os.kill(os.getpid(), number)
        return observation


class Numbered(Probe):
    """Tasks are 0, 1, 2 ...: a rank's own are told from others'."""

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.arange(count, dtype=torch.float32).unsqueeze(-1)


class SolvedByTask(Numbered):
    """It reports success where all tasks of a batch are the first two, so on rank 0 of two with three tasks alone."""

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        return step._replace(info={"success": torch.ones(len(action))} if self.task.max() < 1 else {})


class SolvedInABatch(SolvedByTask):
    """The same, and it takes three environments at once."""

    max_batch = 3


class SolvedLate(Probe):
    """It reports success from its third step on."""

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        return step._replace(info={"success": torch.ones(len(action))} if self.now > 2 else {})


class Raises(Probe):
    """Raises an error of its own in the second iteration (the contract's check is reset 1)."""

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        if self.resets == 3:
            raise ValueError("the robot is out of battery")
        return super().reset(tasks, seeds)


class Diverging(Numbered):
    """Task 2 gives NaN from the second iteration on (the contract's check is reset 1)."""

    def reward(self, action: Tensor) -> Tensor:
        return torch.where((self.task == 2) & (self.resets >= 4), float("nan"), super().reward(action))


class Struck(Probe):
    """With STRIKE = "KILL 6 1" in the environment, rank 1 kills itself at its sixth reset, before any restart.

    With TERM it and torchrun, its parent, are asked to end, and it waits until torchrun has passed that on.
    """

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        observation = super().reset(tasks, seeds)
        name, *where = os.environ.get("STRIKE", "no").split()
        ranks = [os.environ.get(key) for key in ("RANK", "TORCHELASTIC_RESTART_COUNT")]
        if where != [str(self.resets), ranks[0]] or ranks[1] != "0":
            return observation
        if name == "KILL":
            os.kill(os.getpid(), signal.SIGKILL)
        passed_on: list[int] = []
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        signal.signal(signal.SIGTERM, lambda number, frame: (passed_on.append(number), handler(number, frame)))
        for asked in (os.getpid(), os.getppid()):
            os.kill(asked, signal.SIGTERM)
        while len(passed_on) < 2:
            time.sleep(0.01)
        signal.signal(signal.SIGTERM, handler)
        return observation


class Falls(HalfCheetahDirection):
    """MuJoCo's own half-cheetah: of task 1, forward, a world loses its state in the third step of iteration 1."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.resets, self.now = 0, 0

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        return (torch.arange(count) % 2 * 2.0 - 1).unsqueeze(-1)

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        self.resets, self.now, self.forward = self.resets + 1, 0, (tasks[:, 0] == 1).nonzero()
        return super().reset(tasks, seeds)

    def step(self, action: Tensor) -> Step:
        if self.now == 2 and self.resets >= 4 and len(self.forward):
            self.state.qvel[self.forward[0], 3] = float("inf")
        self.now += 1
        return super().step(action)


class Huge(Numbered):
    """Rewards of task 1 are so large that no gradient holds them."""

    def reward(self, action: Tensor) -> Tensor:
        return torch.where(self.task == 1, 1e38, super().reward(action)) * action[:, 0]


class Metered(Probe):
    """Counts what its process holds at every reset, into METER: bytes in memory, threads, open files, sockets."""

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files = []
        for path in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # closed in the meantime, as the folder's own is
                files.append(os.readlink(path))
        sockets = sum(name.startswith("socket:") for name in files)
        held = (pages * resource.getpagesize(), len(os.listdir("/proc/self/task")), len(files), sockets)
        with Path(os.environ["METER"]).open("a") as file:
            file.write(f"{' '.join(map(str, held))}\n")
        return super().reset(tasks, seeds)


class Good(TaskEnv):
    """Three numbers seen, two done; the task is one row of a (2, 2) matrix."""

    def __init__(self) -> None:
        self.horizon = 5
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, 2, 2, generator=generator)

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        assert tasks.shape[0] == seeds.shape[0]
        assert seeds.dtype == torch.int64
        self.count = 0
        return torch.zeros(len(seeds), 3)

    def step(self, action: Tensor) -> Step:
        self.count += 1
        return Step.ongoing(torch.zeros(len(action), 3, dtype=torch.float64), action.sum(-1))
