"""Several gymnasium environments stepped in turn, in this process or in a worker's.

Nothing here imports torch: a worker then starts in half a second and not in several, with a quarter of the memory.
"""

import faulthandler
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import flatten
from numpy.typing import NDArray

from maml_envs.physics.warnings import log_warnings

Array = NDArray[Any]
MakeEnv = Callable[[], gymnasium.Env[Any, Any]]


def as_number(value: object) -> float:
    """Return a number or flag of an environment's info as a float; NaN for anything else."""
    return float(value) if isinstance(value, int | float | np.number | np.bool_) else np.nan


def checked_step(step: object) -> tuple[Any, Any, Any, Any, Any]:
    """Return the five values of an environment's step.

    Raises:
        TypeError: It returned anything else.
    """
    if not isinstance(step, tuple) or len(step) != 5:
        what = f"{len(step)} values" if isinstance(step, tuple) else f"a {type(step).__name__}"
        raise TypeError(f"step returned {what}: return (observation, reward, terminated, truncated, info)")
    return step


class StepRows(NamedTuple):
    """The results of a step, a row for each environment."""

    observation: Array  # (batch, obs) float32
    reward: Array  # (batch,) float32
    terminated: Array  # (batch,) bool
    truncated: Array  # (batch,) bool
    info: Array  # (batch, names) float32; NaN where the environment did not give it


class SyncEnvs:
    """Environments stepped in turn, made when a batch first needs them, each with a task of its own.

    An environment that has ended is not stepped again before the next reset: its row keeps its last observation and
    flags, with reward 0.

    Args:
        make: Makes one environment, which has the method ``set_task``.
        width: Numbers in a flattened observation.
        names: Numbers of the environment's info to report.
        mujoco: Whether it is an environment of MuJoCo, which has warnings to log.
    """

    def __init__(self, make: MakeEnv, width: int, names: Sequence[str], mujoco: bool) -> None:
        if mujoco:
            log_warnings()
        self._make, self._width, self._names = make, width, names
        self._envs: list[gymnasium.Env[Any, Any]] = []
        self._space: gymnasium.Space[Any] = gymnasium.spaces.Discrete(1)
        self._tasks: Array = np.zeros(0)
        self._live: list[int] = []
        self._first, self._step = 0, 0
        self._rows = self._blank(0)

    def _blank(self, batch: int) -> StepRows:
        terminated, truncated = np.zeros((2, batch), np.bool_)
        info = np.full((batch, len(self._names)), np.nan, np.float32)
        return StepRows(
            np.zeros((batch, self._width), np.float32), np.zeros(batch, np.float32), terminated, truncated, info
        )

    def _observe(self, i: int, observation: Any) -> None:  # noqa: ANN401  whatever the environment returns
        wrong = ValueError(
            f"the observation {observation!r:.200} is not of observation_space {self._space}: return one that is"
        )
        try:
            flat = flatten(self._space, observation)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise wrong from error
        if not isinstance(flat, np.ndarray) or flat.shape != (self._width,):
            raise wrong
        self._rows.observation[i] = flat

    def _locate(self, error: BaseException, i: int) -> None:
        error.add_note(
            f"in environment {self._first + i} of the batch, with task {self._tasks[i].tolist()}, "
            + (f"step {self._step - 1} (counted from 0)" if self._step else "at its reset")
        )

    def reset(self, tasks: Array, seeds: Sequence[int], first: int = 0) -> Array:
        """Set each environment's task, then reset it from its seed: first observations (batch, obs).

        Args:
            tasks: A row for each environment.
            seeds: One for each environment.
            first: Number of the first environment in the whole batch, for errors.
        """
        self._first, self._step, self._tasks = first, 0, tasks
        self._live, self._rows = list(range(len(tasks))), self._blank(len(tasks))
        for i in self._live:
            try:
                if i == len(self._envs):
                    self._envs.append(self._make())
                    self._space = self._envs[0].observation_space
                self._envs[i].get_wrapper_attr("set_task")(tasks[i].copy() if tasks[i].ndim else tasks[i])
                self._observe(i, self._envs[i].reset(seed=seeds[i])[0])
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
                if isinstance(reward, np.ndarray) and reward.ndim:
                    raise TypeError(f"the reward {reward!r:.200} is an array: return one number")
                rows.reward[i], rows.terminated[i], rows.truncated[i] = reward, bool(terminated), bool(truncated)
                for column, name in enumerate(self._names):
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
        while self._envs:
            self._envs.pop().close()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def serve(connection: Connection, parent: int, stack: int) -> None:
    """Run a worker: answer calls ``(method, arguments)`` of ``SyncEnvs`` until the parent closes the connection.

    It answers ``(True, result)``, or ``(False, traceback)`` once and ends. It ends as well where the parent is gone,
    even inside a step that never returns.

    Args:
        connection: To the parent. Its first message is a pickled tuple of the arguments of ``SyncEnvs``.
        parent: The parent's process id.
        stack: A file descriptor: the Python stack goes there on SIGUSR1, and where a crash ends the process.
    """
    for descriptor in (connection.fileno(), stack):
        os.set_inheritable(descriptor, False)  # a program that the environment starts must not keep them open
    faulthandler.enable(stack)
    faulthandler.register(signal.SIGUSR1, stack)
    # Both go to whole groups of processes; the parent finishes its iteration first, which takes its workers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    envs = None
    try:
        arguments = connection.recv_bytes()
        answer, envs = _answer(lambda: SyncEnvs(*pickle.loads(arguments)))
        connection.send((answer[0], None) if answer[0] else answer)
        while envs is not None:
            method, values = connection.recv()
            answer, _ = _answer(partial(getattr(envs, method), *values))
            connection.send(answer)
            if not answer[0]:
                break
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent has gone or has closed its end
        pass
    finally:
        if envs is not None:
            envs.close()


def _answer(call: Callable[[], Any]) -> tuple[tuple[bool, Any], Any]:
    """Call into the environments; return the message for the parent, with a traceback if it fails, and the result."""
    try:
        result = call()
    except (Exception, SystemExit):
        return (False, traceback.format_exc()), None
    return (True, tuple(result) if isinstance(result, tuple) else result), result
