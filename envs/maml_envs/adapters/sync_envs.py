"""Several gymnasium environments stepped in turn, in this process or in a worker's.

Nothing here imports torch, as a worker loads this file: it then starts in half a second and not in several, with a
quarter of the memory, and in another Python, which may have another gymnasium and MuJoCo.
"""

import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import flatten

from maml_envs.adapters.actions import Actions
from maml_envs.adapters.attribute_tasks import RangedEnv, mujoco_model
from maml_envs.adapters.facts import About, Array, StepRows
from maml_envs.adapters.named import MakeEnv, Named
from maml_envs.adapters.returned import (
    SUCCESS_NAMES,
    as_number,
    checked_reset,
    checked_step,
    note,
    odd_success,
    one_number,
    refuse_missing,
    refuse_other_spaces,
    refuse_signatures,
    success_of,
    task_rows,
)
from maml_envs.adapters.spaces import described, in_brief, observation_box, refuse_misfit
from maml_envs.conventions import SUCCESS
from maml_envs.errors import InputError
from maml_envs.physics.warnings import log_warnings

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class SyncEnvs:
    """Environments stepped in turn, made when a batch first needs them, each with a task of its own.

    An environment that has ended is not stepped again before the next reset: its row keeps its last observation and
    flags, with reward 0.

    Args:
        make: Makes one environment, which has the methods ``sample_tasks`` and ``set_task``; or its name.
        where: Names the environment in errors; None for its class.
    """

    def __init__(self, make: MakeEnv | Named, where: str | None = None) -> None:
        self._make = make.maker() if isinstance(make, Named) else make
        self._where = where or ""
        self._width, self._flat, self._whole = 0, True, ""
        self._names: Sequence[str] = ()
        self._envs: list[gymnasium.Env[Any, Any]] = []
        self._space: gymnasium.Space[Any] = gymnasium.spaces.Discrete(1)
        self._plain = False  # observations are arrays of floating-point numbers
        self._spaces: list[tuple[gymnasium.Space[Any], gymnasium.Space[Any]]] = []  # of each, when it was made
        self._tasks: Array = np.zeros(0)
        self._live: list[int] = []
        self._first, self._step = 0, 0
        self._rows = self._blank(0)

    def _env(self, i: int = 0) -> gymnasium.Env[Any, Any]:
        """Return an environment of the batch; the next one is made here."""
        if i == len(self._envs):
            if "mujoco" in sys.modules:
                log_warnings()
            with self._noting("while it was made"):
                self._envs.append(self._make())
            if mujoco_model(self._envs[0]) is not None:
                log_warnings()
            self._where = self._where or type(self._envs[0].unwrapped).__name__
            self._space = self._envs[0].observation_space
            self._plain = isinstance(self._space, gymnasium.spaces.Box) and self._space.dtype in FLOATS
            self._spaces.append((self._envs[i].observation_space, self._envs[i].action_space))
            refuse_other_spaces(self._spaces[i], self._spaces[0])
        return self._envs[i]

    def _refuse_changed(self, i: int) -> None:
        """Refuse spaces that are others than when the environment was made, as a task may have set them."""
        spaces = self._envs[i].observation_space, self._envs[i].action_space
        if any(now is not before for now, before in zip(spaces, self._spaces[i], strict=True)):
            refuse_other_spaces(spaces, self._spaces[0])

    def _reach(self, name: str) -> Any:  # noqa: ANN401  an attribute of the environment or of one inside its wrappers
        env = self._env()
        return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None

    def about(self) -> About:
        """Make the first environment, take a step in it, and return what is to be known of it.

        Raises:
            InputError: A method is missing, or a space cannot be used.
        """
        env = self._env()
        refuse_missing(self._reach, self._where)
        refuse_signatures(self._reach, self._where)
        seen, actions = observation_box(env.observation_space, self._where), Actions.of(env.action_space, self._where)
        own, limit = self._reach("horizon"), env.spec.max_episode_steps if env.spec is not None else None
        task = self._own(self.sample_tasks(1, 0)[0])
        with self._noting(f"with task {task.tolist()}, in the first set_task, reset or step"):
            self._reach("set_task")(task)
            checked_reset(env.reset(seed=0))
            width = actions.choices or actions.low.size
            info = checked_step(env.step(actions(np.zeros((1, width)))[0]))[4]
        self._refuse_another_width(task)
        others = (name for name, value in info.items() if name not in SUCCESS_NAMES and not np.isnan(as_number(value)))
        names = (SUCCESS, *others)
        versions = {"Python": platform.python_version(), "gymnasium": gymnasium.__version__}
        if "mujoco" in sys.modules:
            versions["mujoco"] = sys.modules["mujoco"].__version__
        steps = int(own) if isinstance(own, Integral) else limit
        draws = env.render_mode == "rgb_array"
        odd = (*(env.warnings() if isinstance(env, RangedEnv) else ()), *odd_success(info))
        return About(
            seen.low,
            seen.high,
            tuple(actions),
            described(env.observation_space),
            steps,
            names,
            self._flat,
            self._whole,
            draws,
            odd,
            versions,
        )

    def _refuse_another_width(self, task: Any) -> None:  # noqa: ANN401  a number or a row
        held_out, width = self.held_out_tasks(1, "in"), np.size(task)
        if held_out is not None and held_out.shape[1] != width:
            raise InputError(
                f"{self._where}: held_out_tasks returned rows of {held_out.shape[1]} numbers, and sample_tasks of "
                f"{width}: return rows of the same numbers"
            )

    def prepare(self, about: About) -> None:
        """Take what ``about`` returned, here or in another process, as the form of tasks, observations and info."""
        about = About(*about)
        self._width, self._names, self._flat, self._whole = len(about.low), about.names, about.flat, about.whole

    def sample_tasks(self, count: int, seed: int) -> Array:
        """Draw the environment's own tasks, with a generator of numpy."""
        drawn = self._reach("sample_tasks")(count, np.random.default_rng(seed))
        rows, self._flat, self._whole = task_rows(drawn, count, self._where)
        return rows

    def held_out_tasks(self, count: int, split: str) -> Array | None:
        """Return the environment's own held-out tasks; None where it has none of its own."""
        own = self._reach("held_out_tasks")
        # Of a fixed list, the first; set_task gets them in the form of those of training.
        return None if own is None else task_rows(own(count, split)[:count], count, self._where)[0]

    def describe(self, task: Array) -> str | None:
        """Return the environment's own words for a task (numbers,); None where it has none."""
        own = self._reach("describe")
        return None if own is None else str(own(self._own(task)))

    def _own(self, task: Array) -> Any:  # noqa: ANN401  a number or a row
        """Return a task (numbers,) as the environment drew it: a number or a row, of its own type."""
        whole = self._whole and bool((task == np.round(task)).all())
        row = task.astype(self._whole) if whole else task.copy()
        return row[0] if self._flat else row

    def _blank(self, batch: int) -> StepRows:
        terminated, truncated = np.zeros((2, batch), np.bool_)
        info = np.full((batch, len(self._names)), np.nan, np.float32)
        return StepRows(
            np.zeros((batch, self._width), np.float32), np.zeros(batch, np.float32), terminated, truncated, info
        )

    def _observe(self, i: int, observation: Any) -> None:  # noqa: ANN401  whatever the environment returns
        fits = self._plain and isinstance(observation, np.ndarray) and observation.shape == self._space.shape
        if fits and observation.dtype.kind in "fiub":
            self._rows.observation[i] = observation.ravel()
            return
        cause, flat = None, None
        refuse_misfit(self._space, observation)
        try:
            flat = flatten(self._space, observation)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            cause = error
        if not isinstance(flat, np.ndarray) or flat.shape != (self._width,):
            raise ValueError(
                f"the observation {observation!r:.200} is not of observation_space "
                f"{in_brief(self._space)}: return one that is"
            ) from cause
        self._rows.observation[i] = flat

    def _locate(self, error: BaseException, i: int) -> None:
        place = f"in environment {self._first + i} of the batch, with task {self._own(self._tasks[i]).tolist()}, "
        place += f"step {self._step - 1} (counted from 0)" if self._step else "at its reset"
        note(error, place)

    @contextmanager
    def _noting(self, when: str) -> Iterator[None]:
        """Add to an error of the environment's own code when it came."""
        try:
            yield
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            note(error, f"in {self._where or 'the environment'}, {when}")
            raise

    def reset(self, tasks: Array, seeds: Sequence[int], first: int = 0) -> Array:
        """Set each environment's task, then reset it from its seed: first observations (batch, obs).

        Args:
            tasks: (batch, numbers of a task).
            seeds: One for each environment.
            first: Number of the first environment in the whole batch, for errors.
        """
        self._first, self._step, self._tasks = first, 0, tasks
        self._live, self._rows = list(range(len(tasks))), self._blank(len(tasks))
        for i in self._live:
            try:
                env = self._env(i)
                env.get_wrapper_attr("set_task")(self._own(tasks[i]))
                first_seen = checked_reset(env.reset(seed=seeds[i]))
                self._refuse_changed(i)
                self._observe(i, first_seen)
            except (Exception, SystemExit) as error:
                self._locate(error, i)
                raise
        return self._rows.observation.copy()

    def step(self, actions: Array) -> StepRows:
        """Step the environments whose episode goes on; they may keep the actions (batch, *action shape)."""
        self._step += 1
        rows = self._rows
        rows.reward.fill(0)
        for i in tuple(self._live):
            try:
                observation, reward, terminated, truncated, info = checked_step(self._envs[i].step(actions[i]))
                self._observe(i, observation)
                rows.reward[i] = one_number("reward", reward)
                rows.terminated[i] = one_number("terminated", terminated) != 0
                rows.truncated[i] = one_number("truncated", truncated) != 0
                rows.info[i, 0] = success_of(info)
                for column, name in enumerate(self._names[1:], 1):
                    rows.info[i, column] = as_number(info.get(name))
                if terminated or truncated:
                    self._live.remove(i)
            except (Exception, SystemExit) as error:
                self._locate(error, i)
                raise
        return StepRows(*(part.copy() for part in rows))

    def render(self, i: int) -> Any:  # noqa: ANN401  whatever the environment returns
        """Return what an environment draws."""
        return self._envs[i].render()

    def close(self) -> None:
        """Close the environments."""
        self._spaces.clear()
        while self._envs:
            env = self._envs.pop()
            try:
                env.close()
            except Exception as error:
                warnings.warn(f"close() of {self._where} raised {error!r}", stacklevel=2)
