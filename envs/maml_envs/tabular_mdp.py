"""Random Markov decision processes with a few states: transitions and rewards are the task (Duan et al. 2016)."""

import gymnasium
import numpy as np
import torch
from torch import Tensor

from maml_envs import random
from maml_envs.task_env import Step, TaskEnv


class TabularMDP(TaskEnv):
    """S states, A actions.

    | quantity    | value                                                                              | unit   |
    |-------------|------------------------------------------------------------------------------------|--------|
    | observation | the state, as a one-hot row (S,)                                                   |        |
    | action      | one of A, as a one-hot row (A,)                                                    |        |
    | reward      | N(mean of state and action, 1)                                                     | reward |
    | start       | state 0                                                                            |        |
    | ends        | never                                                                              |        |
    | task        | (S, A, S + 1): transition probabilities, Dirichlet(1), and mean reward, N(1, 1)    |        |
    | horizon     | 10                                                                                 | steps  |

    ``Step.info`` has the mean reward of what was done.

    Source: Duan et al. 2016 (RL^2), section 3.1: 10 states, 5 actions, horizon 10.
    """

    presets = ("duan2016",)

    def __init__(
        self,
        preset: str = "duan2016",
        states: int = 10,
        actions: int = 5,
        horizon: int = 10,
        device: torch.device | str = "cpu",
    ) -> None:
        self.preset = preset
        self.horizon = horizon
        self.device = torch.device(device)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (states,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(actions)
        self._tasks, self._state, self._seeds, self._steps = torch.zeros(0), torch.zeros(0), torch.zeros(0), 0

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw tasks (count, S, A, S + 1): probabilities of the next state, then the mean reward."""
        states, actions = self.observation_space.shape[0], self.action_width
        # Exponential variables divided by their sum have the Dirichlet(1) distribution.
        draws = -torch.rand(count, states, actions, states, generator=generator).clamp(min=1e-12).log()
        reward = 1 + torch.randn(count, states, actions, 1, generator=generator)
        return torch.cat([draws / draws.sum(-1, keepdim=True), reward], -1)

    def best_return(self, tasks: Tensor) -> Tensor:
        """Compute it by backward induction: Q(s, a) = r(s, a) + sum_x P(x | s, a) max_b Q(x, b), horizon times."""
        best = tasks.new_zeros(tasks.shape[:2])
        for _ in range(self.horizon):
            best = (tasks[..., -1] + torch.einsum("ksax,kx->ksa", tasks[..., :-1], best)).amax(-1)
        return best[:, 0]

    def describe(self, task: Tensor) -> str:
        """Name the best possible return: the numbers themselves say nothing at a glance."""
        return f"best possible return {float(self.best_return(task[None])):.1f}"

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        """Start every episode in state 0."""
        self._tasks, self._seeds, self._steps = tasks.to(self.device), seeds, 0
        self._state = torch.zeros(len(seeds), dtype=torch.int64, device=self.device)
        return self._one_hot()

    def _one_hot(self) -> Tensor:
        return torch.nn.functional.one_hot(self._state, self.observation_space.shape[0]).float()

    def step(self, action: Tensor) -> Step:
        """Draw a reward and the next state."""
        row = self._tasks[torch.arange(len(action), device=self.device), self._state, action.argmax(-1)]
        seeds = random.fold_in(self._seeds, self._steps)
        self._steps += 1
        mean = row[:, -1].float()
        reward = mean + random.normal(random.fold_in(seeds, 0), (1,))[:, 0].float()
        cumulated = row[:, :-1].double().cumsum(-1)
        below = cumulated <= cumulated[:, -1:] * random.uniform(random.fold_in(seeds, 1), (1,))
        self._state = below.sum(-1)
        return Step.ongoing(self._one_hot(), reward, {"mean_reward": mean})
