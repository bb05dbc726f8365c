"""A TaskEnv of any gymnasium environment with two more methods, stepped in this process or by workers."""

import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from maml_envs.adapters.actions import Actions
from maml_envs.adapters.async_envs import AsyncEnvs
from maml_envs.adapters.attribute_tasks import Ranges
from maml_envs.adapters.named import MakeEnv, Named
from maml_envs.adapters.spaces import space_of
from maml_envs.adapters.sync_envs import SyncEnvs
from maml_envs.errors import InputError, WorkerError
from maml_envs.task_env import SUCCESS, Step, TaskEnv

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
    worker_python: str | None = None  # the Python that runs the workers, of another virtual environment; None: this one

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
    Tasks are float64, and go back to ``set_task`` as the type that was drawn. ``success`` or ``is_success`` in an info,
    of whichever steps, is counted; other numbers and flags in the info of a first step are in ``Step.info`` by their
    names, NaN where a later one lacks them.

    Attributes:
        own_space: The environment's space of observations.
        own_actions: From the policy's actions to the environment's.

    Args:
        make: Makes one environment.
        vector: Workers, and how many environments there are at once. Its ranges of attributes are for ``make``.
        horizon: Most steps in an episode; None for the environment's own ``horizon`` or time limit.
        where: Names the environment in errors.

    Raises:
        InputError: A method is missing, a space cannot be used, or nothing says how long an episode is.
    """

    def __init__(
        self,
        make: MakeEnv | Named,
        vector: VectorOptions | None = None,
        horizon: int | None = None,
        where: str | None = None,
    ) -> None:
        vector = vector or VectorOptions()
        self._make, self._where, self._vector = make, where, vector
        self._workers = vector.workers if vector.workers is not None else int(vector.worker_python is not None)
        self.max_batch: int = vector.vector_size or 64
        if vector.worker_python and not self._workers:
            raise InputError(
                f"vector.workers = 0 with vector.worker_python = {vector.worker_python!r}: another Python is another "
                "process; give 1 or more workers, or leave workers out"
            )
        if self.max_batch < max(1, self._workers):
            raise InputError(
                f"vector.vector_size = {self.max_batch} with vector.workers = {self._workers}: some workers would have "
                "no environment; use a multiple of the workers"
            )
        self._began = self.reports_success = False
        self._batch = self._started()
        try:
            self._about = _with_traceback(self._batch.about)
            named = where or getattr(make, "__name__", "the environment")
            steps = horizon or self._about.horizon
            if steps is None:
                raise InputError(
                    f"{named}: nothing says how long an episode is, a time limit or a whole number `horizon`; give "
                    "horizon = 200, or another number"
                )
            self.horizon = steps
            self._batch.prepare(self._about)
        except BaseException:
            self._batch.close()
            raise
        self.observation_space = spaces.Box(self._about.low, self._about.high, dtype=np.float32)
        self.own_actions = Actions(*self._about.actions)
        self.own_space = self.observation_space if self._about.space is None else space_of(self._about.space)
        self.action_space = self.own_actions.policy_space()

    def _started(self) -> SyncEnvs | AsyncEnvs:
        if not self._workers:
            return SyncEnvs(self._make, self._where)
        if isinstance(self._make, Named) and self._make.render_mode:
            from maml_envs.physics.renderer import choose_backend

            with suppress(InputError):  # MuJoCo cannot draw, which others can
                choose_backend()  # workers have the variable from their start
        timeout = self._vector.worker_timeout or 60.0
        return AsyncEnvs(self._make, self._where, self._workers, timeout, self._vector.worker_python)

    def _running(self) -> SyncEnvs | AsyncEnvs:
        """Return the environments, begun anew where an error has ended the workers, or after ``close``."""
        if isinstance(self._batch, AsyncEnvs) and not self._batch.close.alive:
            self._batch = self._started()
            self._batch.prepare(self._about)
        return self._batch

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the environment's own tasks, with a numpy generator seeded from this one."""
        seed = int(torch.randint(2**62, (), generator=generator))
        return torch.from_numpy(self._running().sample_tasks(count, seed))

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """Return the environment's own ``held_out_tasks(count, split)``, or draw from a fixed seed if it has none."""
        own = self._running().held_out_tasks(count, split)
        return super().held_out_tasks(count, split) if own is None else torch.from_numpy(own)

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        """Set the tasks and reset from the seeds' lower 31 bits, all that the narrowest generators take."""
        starts = (seeds & 0x7FFFFFFF).tolist()
        batch, rows = self._running(), tasks.to(torch.float64).numpy()
        self._began = True
        return torch.from_numpy(_with_traceback(lambda: batch.reset(rows, starts)))

    def step(self, action: Tensor) -> Step:
        """Step the environments whose episode goes on."""
        if not self._began:
            raise RuntimeError("call reset(tasks, seeds) before step(action)")
        batch, actions = self._batch, self.own_actions(action.numpy())
        rows = _with_traceback(lambda: batch.step(actions))
        observation, reward, terminated, truncated, info = (torch.from_numpy(part) for part in rows)
        named = dict(zip(self._about.names, info.unbind(-1), strict=True))
        solved = named[SUCCESS]
        self.reports_success = self.reports_success or not bool(solved.isnan().all())
        named[SUCCESS] = solved.nan_to_num(0.0)  # not said is not solved: some say it in the last step alone
        return Step(observation, reward, terminated, truncated, named)

    def describe(self, task: Tensor) -> str:
        """Return the environment's own ``describe(task)`` if it has one, else its numbers."""
        own = self._running().describe(task.to(torch.float64).numpy())
        return super().describe(task) if own is None else own

    def notes(self) -> list[str]:
        """Name the versions of what simulates, where another Python does."""
        python, versions = self._vector.worker_python, self._about.versions
        found = ", ".join(f"{name} {version}" for name, version in versions.items())
        return [f"workers run {python}: {found}"] if python else []

    def warnings(self) -> list[str]:
        """Return what is odd about the ranges of its attributes."""
        return list(self._about.warnings)

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return the environment's own picture; needs render_mode "rgb_array".

        Raises:
            InputError: It draws no RGB array.
        """
        if not self._about.draws:
            raise InputError(f"{self._where} draws no picture: {PICTURE}")
        if "mujoco" in self._about.versions:
            from maml_envs.physics.renderer import choose_backend

            choose_backend()
        try:
            image = self._running().render(index)
        except gymnasium.error.DependencyNotInstalled as error:
            raise InputError(f"{self._where} cannot draw itself here: {error}") from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("mujoco", "glfw", "OpenGL", "pyglet"):
                raise
            raise InputError(f"{self._where} cannot draw itself here: {error}; unset DISPLAY and MUJOCO_GL") from error
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise InputError(f"{self._where}: render() returned {_kind(image)}, not an image: {PICTURE}")
        return image

    def close(self) -> None:
        """Close the environments and end the workers."""
        self._batch.close()
