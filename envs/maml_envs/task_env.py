"""TaskEnv, the interface of every environment: a batch of environments of one task distribution."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_envs.conventions import HELD_OUT_SEED as HELD_OUT_SEED
from maml_envs.conventions import SUCCESS as SUCCESS
from maml_envs.errors import InputError

SHOWN = 6
"""Numbers of a task that ``describe`` shows where the family has no words for it."""


def goal_in_words(goal: Tensor) -> str:
    """Name a goal position: "goal (0.31, -0.20)"."""
    return f"goal ({', '.join(f'{value:.2f}' for value in goal.tolist())})"


class GraphKey:
    """Key of what a GPU has recorded of ``step``; see ``TaskEnv.graph_key``."""


class Step(NamedTuple):
    """Results of one control step of every environment in the batch."""

    observation: Tensor  # (batch, obs)
    reward: Tensor  # (batch,)
    terminated: Tensor  # (batch,) bool: the task itself has ended; no value after it
    truncated: Tensor  # (batch,) bool: cut short from outside, such as by a time limit
    info: dict[str, Tensor]  # name -> (batch,), the same names at every step: reward terms, SUCCESS where there is one

    @classmethod
    def ongoing(cls, observation: Tensor, reward: Tensor, info: dict[str, Tensor] | None = None) -> "Step":
        """Make a step in which no environment ends."""
        never = torch.zeros_like(reward, dtype=torch.bool)
        return cls(observation, reward, never, never, info or {})


class TaskEnv(ABC):
    """A batch of environments of one task distribution, on one device.

    A task is one row of an array, so that tasks stack, shard, log and checkpoint like any other tensor. An
    environment that ends stays ended until the next reset: nothing resets by itself, and callers mask what
    comes after the end.

    Attributes:
        observation_space: Space of one environment's observation, a one-dimensional Box.
        action_space: Space of one policy action. A one-dimensional Box: actions outside it may come; clip them in
            ``step``. Or Discrete(n): actions come as one-hot rows of width n, ``argmax(-1)`` is the action.
        horizon: Most control steps in an episode.
        max_batch: Most environments that ``step`` takes at once; None for no limit.
        copies: How many copies, stepped side by side in threads, use the machine best. Above 1 only where
            ``step`` spends its time outside Python.
        map_only: Whether a map of ``positions`` shows all there is to see: videos draw the paths of several episodes
            there, and no pictures.
        action_scale: The unit of a Gaussian policy by default, which is no part of the task: its actions are divided by
            this before ``step`` gets them.
        reports_success: Whether ``SUCCESS`` in an info says something; False while no info has had it.
        task_name: What the numbers of a task are, with their unit, for the axes of pictures: "goal velocity (m/s)".
        device: Where the tensors live.
        presets: Definitions of the family that a configuration chooses from, the first by default; () for none.
    """

    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.spaces.Box | gymnasium.spaces.Discrete
    horizon: int
    max_batch: int | None = None
    copies: int = 1
    map_only: bool = False
    action_scale: float = 1.0
    reports_success: bool = True
    device: torch.device = torch.device("cpu")
    presets: tuple[str, ...] = ()
    task_name: str = "task"

    @classmethod
    def lacks(cls, device: torch.device) -> str:
        """Return what the family misses to be on a device, and what to do about it; empty where nothing is missing."""
        return ""

    @property
    def discrete(self) -> bool:
        """True if actions are one-hot rows."""
        return isinstance(self.action_space, gymnasium.spaces.Discrete)

    @property
    def action_width(self) -> int:
        """Width of the rows that ``step`` takes."""
        space = self.action_space
        return int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else int(np.prod(space.shape))

    @abstractmethod
    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``count`` training tasks: (count, *task_shape)."""

    @abstractmethod
    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        """Start an episode in every environment.

        Args:
            tasks: One task an environment, (batch, *task_shape).
            seeds: One seed an environment, (batch,) int64. The start state of a row depends on its seed and
                task alone: ``maml_envs.random`` turns seeds into numbers.

        Returns:
            First observations, (batch, obs).
        """

    @abstractmethod
    def step(self, action: Tensor) -> Step:
        """Apply one policy action to each environment, (batch, act)."""

    @property
    def graph_key(self) -> GraphKey | None:
        """Key under which a GPU may record a step and replay it; None, as here, where it may not.

        For as long as this is the same object, every ``step`` does the same operations on the same memory of the
        device, whatever the numbers in it: it looks at none, counts nothing in Python, and makes no tensor from numbers
        of the host; and ``reset`` writes into that memory. A new object says that something lies elsewhere, such as
        after a reset to another number of environments.
        """
        return None

    def raise_deferred(self) -> None:  # noqa: B027  an environment that looks at every step need not define it
        """Raise what ``step`` put off; called after the last step of a batch of episodes.

        On a GPU, looking means waiting: a step only notes what was wrong with it.
        """

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """Return the fixed evaluation tasks, the same for every training seed.

        Args:
            count: How many.
            split: "in" for the training distribution, "out" for tasks beyond it.

        Raises:
            InputError: The family has no such split.
        """
        if split != "in":
            raise InputError(f"{type(self).__name__} has no held-out tasks with split={split!r}: use split='in'")
        return self.sample_tasks(count, torch.Generator().manual_seed(HELD_OUT_SEED))

    def best_return(self, tasks: Tensor) -> Tensor | None:
        """Return the expected return of the best policy that knows the task, (count,); None where it is not known."""
        return None

    def notes(self) -> list[str]:
        """Return what a user of the environment should know of it and may not expect, for ``maml-rl check-env``."""
        return []

    def warnings(self) -> list[str]:
        """Return what is odd about how the environment was asked for, for ``maml-rl check-env``."""
        return []

    def describe(self, task: Tensor) -> str:
        """Describe a task (task_shape) in a few words, such as "forward" or "goal (0.31, -0.20)", for pictures."""
        numbers = [f"{value:.3g}" for value in task.flatten().tolist()]
        return f"task ({', '.join(numbers[:SHOWN] + ['...'] * (len(numbers) > SHOWN))})"

    def positions(self) -> Tensor | None:
        """Return the agents' positions now, (batch, 1) along a line or (batch, 2) in a plane, for pictures of paths.

        In any unit of length. None where the family has no positions. A copy, which the next step leaves alone.
        """
        return None

    def goal_positions(self, tasks: Tensor) -> Tensor | None:
        """Return the positions that tasks (count, *task_shape) ask for, like ``positions``; None for none."""
        return None

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Draw an RGB image (height, width, 3) of one environment of the batch, where the family can.

        Raises:
            InputError: It cannot, or not on this machine.
        """
        raise InputError(
            f"{type(self).__name__} cannot draw itself: define render(index) to return an RGB array, or positions() "
            "with map_only = True for a map"
        )

    def close(self) -> None:  # noqa: B027  an environment with nothing to release need not define it
        """Release threads, processes and windows."""
