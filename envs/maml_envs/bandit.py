"""k-armed bandits: which arm pays is the task (Duan et al. 2016, section 3.1)."""

import gymnasium
import numpy as np
import torch
from torch import Tensor

from maml_envs import random
from maml_envs.task_env import Step, TaskEnv


class Bandit(TaskEnv):
    """k arms; an episode is a few pulls.

    | quantity    | value                                                                 | unit   |
    |-------------|-----------------------------------------------------------------------|--------|
    | observation | 1                                                                     |        |
    | action      | an arm, as a one-hot row (k,)                                         |        |
    | reward      | bernoulli: 1 with the arm's probability, else 0; gaussian: N(mean, 1) | reward |
    | ends        | never                                                                 |        |
    | task        | the arms' mean rewards (k,): bernoulli uniform in (0, 1), gaussian N(0, 1) | reward |
    | horizon     | 10                                                                    | pulls  |

    ``Step.info`` has the mean reward of the arm that was pulled.

    Source: Duan et al. 2016 (RL^2), section 3.1, whose policy remembers; here a gradient step must.
    """

    presets = ("bernoulli", "gaussian")

    def __init__(
        self, preset: str = "bernoulli", arms: int = 5, horizon: int = 10, device: torch.device | str = "cpu"
    ) -> None:
        self.preset = preset
        self.horizon = horizon
        self.device = torch.device(device)
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(arms)
        self._means, self._seeds, self._pulls = torch.zeros(0), torch.zeros(0), 0

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw mean rewards (count, k)."""
        draw = torch.rand if self.preset == "bernoulli" else torch.randn
        return draw(count, self.action_width, generator=generator)

    def best_return(self, tasks: Tensor) -> Tensor:
        """Return the return of always pulling the best arm."""
        return self.horizon * tasks.amax(-1)

    def describe(self, task: Tensor) -> str:
        """Name the arm that pays most, counted from 0 like actions, and its mean reward."""
        return f"arm {int(task.argmax())} pays most, {float(task.max()):.2f}"

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        """Start episodes; the observation is always 1."""
        self._means, self._seeds, self._pulls = tasks.to(self.device, torch.float32), seeds, 0
        return torch.ones(len(seeds), 1, device=self.device)

    def step(self, action: Tensor) -> Step:
        """Pull one arm."""
        mean = (self._means * action).sum(-1)
        seeds = random.fold_in(self._seeds, self._pulls)
        self._pulls += 1
        if self.preset == "bernoulli":
            reward = (random.uniform(seeds, (1,))[:, 0] < mean).float()
        else:
            reward = mean + random.normal(seeds, (1,))[:, 0].float()
        return Step.ongoing(torch.ones(len(mean), 1, device=self.device), reward, {"mean_reward": mean})
