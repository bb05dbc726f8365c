"""Environments with a known answer, or a known fault: ``env = "probes:Target"`` in a configuration."""

import os
import signal
from typing import ClassVar

import gymnasium
import numpy as np
import torch
from torch import Tensor

from envs import Step, TaskEnv


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
