"""A TaskEnv of any gymnasium environment with two more methods, stepped in this process or by workers."""

import traceback
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple, TypeVar

import gymnasium
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maml_envs.adapters.async_envs import AsyncEnvs
from maml_envs.adapters.attribute_tasks import Ranges, mujoco_model
from maml_envs.adapters.spaces import Actions, observation_box
from maml_envs.adapters.sync_envs import MakeEnv, SyncEnvs, as_number, checked_step
from maml_envs.errors import InputError, WorkerError
from maml_envs.task_env import Step, TaskEnv

METHODS = """\
    def sample_tasks(self, count, rng):  # rng: a numpy Generator; returns one row for each task
        return rng.uniform(-1, 1, (count, 1))

    def set_task(self, task):            # one row; reset(seed=...) comes after it
        self.goal = task[0]"""
"""The two methods, as an example for those who have to write them."""

PICTURE = """\
an environment that can be drawn has metadata = {"render_modes": ["rgb_array"]}, an argument render_mode of __init__
that it keeps as self.render_mode, and
    def render(self):
        return image  # (height, width, 3), uint8"""
"""What an environment needs to be drawn."""

T = TypeVar("T")


def _kind(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def _with_traceback(call: Callable[[], T]) -> T:
    """Call the environment; turn an error of its own code into a WorkerError with the traceback, as from a worker."""
    try:
        return call()
    except (InputError, WorkerError):
        raise
    except (Exception, SystemExit) as error:
        raise WorkerError(f"the environment raised an error. Its own traceback:\n{traceback.format_exc()}") from error


class VectorOptions(NamedTuple):
    """Options for gymnasium environments: how they are stepped, and attributes that make the task; None: not given.

    Samples do not depend on how environments are stepped, except for the policy's rounding.
    """

    workers: int | None = None  # processes that step them; None or 0: this one
    worker_timeout: float | None = None  # seconds for a worker's answer; None: 60
    vector_size: int | None = None  # most environments at once; None: 64
    task_ranges: Ranges | None = None  # (low, high) by attribute; none: the environment draws its own tasks

    def refuse(self, name: str) -> None:
        """Refuse these options for an environment that steps its whole batch at once.

        Raises:
            InputError: One of them was given.
        """
        if self.task_ranges:
            raise InputError(
                f"vector.task_ranges does nothing for env = {name!r}, which draws its own tasks: leave it out, or use "
                "env = 'gymnasium:ID'"
            )
        for key, value in self._replace(task_ranges=None)._asdict().items():
            if value is not None:
                raise InputError(
                    f"vector.{key} = {value} does nothing for env = {name!r}, which steps its whole batch at once: "
                    "leave it out"
                )


class GymnasiumTaskEnv(TaskEnv):
    """A batch of copies of a gymnasium environment.

    The environment has ``sample_tasks(count, rng)``, ``set_task(task)`` and, if it likes, ``held_out_tasks(count,
    split)``. Every episode is ``set_task(row)``, ``reset(seed=...)`` and then steps until it ends: nothing else may
    decide what happens, so that it does not matter which copy plays it. An environment that has ended is not stepped
    again, and nothing resets by itself.

    Observations are flattened to rows of float32 (``gymnasium.spaces.flatten``); actions are those of ``Actions``.
    Numbers and flags in the info of a first step are in ``Step.info`` by their names, NaN where a later one lacks them.

    Args:
        make: Makes one environment.
        vector: Workers, and how many environments there are at once. Its ranges of attributes are for ``make``.
        horizon: Most steps in an episode; None for the environment's own ``horizon`` or time limit.
        where: Names the environment in errors.

    Raises:
        InputError: A method is missing, a space cannot be used, or nothing says how long an episode is.
    """

    def __init__(
        self, make: MakeEnv, vector: VectorOptions | None = None, horizon: int | None = None, where: str | None = None
    ) -> None:
        vector = vector or VectorOptions()
        self._workers, self._timeout = vector.workers or 0, vector.worker_timeout or 60.0
        self.max_batch: int = vector.vector_size or 64
        self._env = make()
        where = where or type(self._env.unwrapped).__name__
        missing = [name for name in ("sample_tasks", "set_task") if not callable(self._reach(name))]
        if missing:
            raise InputError(
                f"{where}: the environment has no {' and no '.join(missing)}. Give ranges of its attributes in "
                f"[vector.task_ranges], or write methods like\n{METHODS}"
            )
        if self.max_batch < max(1, self._workers):
            raise InputError(
                f"vector.vector_size = {self.max_batch} with vector.workers = {self._workers}: some workers would have "
                "no environment; use a multiple of the workers"
            )
        limit = self._env.spec.max_episode_steps if self._env.spec is not None else None
        horizon_of_env = self._reach("horizon")
        steps = horizon or (int(horizon_of_env) if isinstance(horizon_of_env, Integral) else limit)
        if steps is None:
            raise InputError(f"{where}: nothing says how long an episode is; give horizon = 200, or another number")
        self.horizon = steps
        self.observation_space = observation_box(self._env.observation_space, where)
        self._actions = Actions.of(self._env.action_space, where)
        self.action_space = self._actions.policy_space()
        self._where, self._make = where, make
        self._flat = True  # a task is one number, and not a row
        self._names = self._info_names()
        self._batch: SyncEnvs | AsyncEnvs | None = None

    def _reach(self, name: str) -> Any:  # noqa: ANN401  an attribute of the environment or of one inside its wrappers
        return self._env.get_wrapper_attr(name) if self._env.has_wrapper_attr(name) else None

    def _info_names(self) -> list[str]:
        """Return the names of the numbers in the info of a first step."""
        (task,) = self._rows(self._reach("sample_tasks")(1, np.random.default_rng(0)), 1)
        self._reach("set_task")(self._own(task[None])[0])
        self._env.reset(seed=0)
        middle = self._actions(np.zeros((1, self.action_width)))[0]
        info = checked_step(self._env.step(middle))[4]
        return [name for name, value in info.items() if not np.isnan(as_number(value))]

    def _rows(self, tasks: ArrayLike, count: int) -> NDArray[np.float32]:
        try:
            rows = np.asarray(tasks, np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self._where}: the tasks are not numbers, a row for each: {error}") from None
        if rows.ndim == 0 or len(rows) != count:
            raise InputError(
                f"{self._where}: asked for {count} tasks, got an array of shape {rows.shape}: one row each"
            )
        self._flat = rows.ndim == 1
        return rows[:, None] if self._flat else rows

    def _own(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return tasks in the form the environment gave them: numbers, or rows."""
        return rows[:, 0] if self._flat else rows

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the environment's own tasks, with a numpy generator seeded from this one."""
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        return torch.from_numpy(self._rows(self._reach("sample_tasks")(count, rng), count))

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """Return the environment's own ``held_out_tasks(count, split)``, or draw from a fixed seed if it has none."""
        held_out_tasks = self._reach("held_out_tasks")
        if held_out_tasks is None:
            return super().held_out_tasks(count, split)
        return torch.from_numpy(self._rows(held_out_tasks(count, split), count))

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        """Set the tasks and reset from the seeds' lower 31 bits, all that the narrowest generators take."""
        if self._batch is None or (isinstance(self._batch, AsyncEnvs) and not self._batch.close.alive):
            mujoco = mujoco_model(self._env) is not None
            arguments = (self._make, self.observation_space.shape[0], self._names, mujoco)
            workers = self._workers
            self._batch = AsyncEnvs(*arguments, workers, self._timeout) if workers else SyncEnvs(*arguments)
        starts = (seeds & 0x7FFFFFFF).tolist()
        batch, rows = self._batch, self._own(tasks.to(torch.float32).numpy())
        return torch.from_numpy(_with_traceback(lambda: batch.reset(rows, starts)))

    def step(self, action: Tensor) -> Step:
        """Step the environments whose episode goes on."""
        if self._batch is None:
            raise RuntimeError("call reset(tasks, seeds) before step(action)")
        batch, actions = self._batch, self._actions(action.numpy())
        rows = _with_traceback(lambda: batch.step(actions))
        observation, reward, terminated, truncated, info = (torch.from_numpy(part) for part in rows)
        return Step(observation, reward, terminated, truncated, dict(zip(self._names, info.unbind(-1), strict=True)))

    def describe(self, task: Tensor) -> str:
        """Return the environment's own ``describe(task)`` if it has one, else its numbers."""
        describe = self._reach("describe")
        return super().describe(task) if describe is None else str(describe(self._own(task[None].numpy())[0]))

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return the environment's own picture; needs render_mode "rgb_array" and no workers.

        Raises:
            InputError: It draws no RGB array.
        """
        if not isinstance(self._batch, SyncEnvs) or self._env.render_mode != "rgb_array":
            raise InputError(f"{self._where} draws no picture: {PICTURE}")
        if mujoco_model(self._env) is not None:
            from maml_envs.physics.renderer import choose_backend

            choose_backend()
        try:
            image = self._batch.render(index)
        except gymnasium.error.DependencyNotInstalled as error:
            raise InputError(f"{self._where} cannot draw itself here: {error}") from error
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise InputError(f"{self._where}: render() returned {_kind(image)}, not an image: {PICTURE}")
        return image

    def close(self) -> None:
        """Close the environments and end the workers."""
        if self._batch is not None:
            self._batch.close()
            self._batch = None
        self._env.close()
