"""A batch of gymnasium environments over worker processes, several in each.

Why not gymnasium's AsyncVectorEnv (1.4): it runs one environment in a process and steps those that have ended; a worker
that is killed shows as an EOFError without a name, the traceback of one that raises goes to a log, and close() waits
without end for one that does not heed SIGTERM. Nor multiprocessing's processes: they import the main program again,
which needs a guard in scripts and brings torch.
"""

import pickle
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

import cloudpickle
import numpy as np

from maml_envs.adapters.facts import About, Array, StepRows
from maml_envs.adapters.messages import PROTOCOL, packed, unpacked
from maml_envs.adapters.named import MakeEnv, Named
from maml_envs.adapters.processes import GRACE_S, Worker, sources, stop
from maml_envs.adapters.worker import FAILED, REFUSED
from maml_envs.errors import InputError, WorkerError

START_S = 60.0
"""Time to start an interpreter, if the timeout is not longer: on a busy machine that takes longer than a step."""


class AsyncEnvs:
    """``SyncEnvs`` whose environments are dealt to processes; the methods do the same.

    Whatever goes wrong ends all workers: the next step needs them all.

    Args:
        make: Makes one environment; pickled by cloudpickle, so a class of a script or a notebook will do. Or its name.
        where: See ``SyncEnvs``.
        count: Processes.
        timeout: Seconds that a process may take for an answer.
        python: The interpreter that runs them, which keeps its own path; None for this one and its path.

    Raises:
        InputError: The interpreter is not there, too old or lacks a package, or the environment cannot be used.
    """

    def __init__(
        self, make: MakeEnv | Named, where: str | None, count: int, timeout: float, python: str | None = None
    ) -> None:
        if sys.platform == "win32":
            raise InputError(f"workers = {count}: worker processes need Linux or macOS; use workers = 0")
        if python is not None and not isinstance(make, Named):
            raise InputError(
                f"vector.worker_python = {python!r}: {where or make!r} is a class of a script or notebook, which goes "
                "as bytecode that another Python cannot read: put it into a module, and name it 'module:Class'"
            )
        self._timeout, self._parts, self._python = timeout, [slice(0)], python
        self._workers: list[Worker] = []
        self.close = weakref.finalize(self, stop, self._workers)  # also at exit, and when collected
        try:
            given = ("named", tuple(make)) if isinstance(make, Named) else ("pickled", cloudpickle.dumps(make))
            start = pickle.dumps((None if python else sys.path, sources()), PROTOCOL)
            for number in range(count):
                self._workers.append(self._begun(number))
            for each in self._workers:
                each.connection.send_bytes(start)
                each.connection.send_bytes(packed((*given, where)))
            self._answers(self._workers, "start")
        except BaseException:
            self.close()
            raise

    def _begun(self, number: int) -> Worker:
        try:
            return Worker(number, self._timeout, self._python or sys.executable)
        except OSError as error:
            if self._python is None:
                raise
            raise InputError(
                f"vector.worker_python = {self._python!r} cannot be started: {error.strerror}; give the path of a "
                "Python, such as /path/to/venv/bin/python"
            ) from error

    def about(self) -> About:
        """Have the first worker make an environment, and return what is to be known of it."""
        return About(*self._call("about", [()])[0])

    def prepare(self, about: About) -> None:
        """Tell every worker."""
        self._call("prepare", [(about,)] * len(self._workers))

    def sample_tasks(self, count: int, seed: int) -> Array:
        """Have the first worker draw tasks."""
        tasks: Array = self._call("sample_tasks", [(count, seed)])[0]
        return tasks

    def held_out_tasks(self, count: int, split: str) -> Array | None:
        """Ask the first worker for held-out tasks."""
        tasks: Array | None = self._call("held_out_tasks", [(count, split)])[0]
        return tasks

    def describe(self, task: Array) -> str | None:
        """Ask the first worker for words for a task."""
        words: str | None = self._call("describe", [(task,)])[0]
        return words

    def render(self, i: int) -> Any:  # noqa: ANN401  whatever the environment returns
        """Have an environment drawn."""
        number = next(k for k, part in enumerate(self._parts) if part.start <= i < part.stop)
        calls: list[tuple[Any, ...] | None] = [None] * number + [(i - self._parts[number].start,)]
        return self._call("render", calls)[0]

    @property
    def pids(self) -> list[int]:
        """Process ids."""
        return [worker.process.pid for worker in self._workers]

    def reset(self, tasks: Array, seeds: Sequence[int]) -> Array:
        """Start an episode in every environment; each process gets consecutive rows."""
        size = -(-len(tasks) // len(self._workers))
        self._parts = [slice(start, start + size) for start in range(0, len(tasks), size)]
        arguments = [(tasks[part], seeds[part], part.start) for part in self._parts]
        return np.concatenate(self._call("reset", arguments))

    def step(self, actions: Array) -> StepRows:
        """Step the environments that live."""
        answers = self._call("step", [(actions[part],) for part in self._parts])
        return StepRows(*(np.concatenate(parts) for parts in zip(*answers, strict=True)))

    def _call(self, method: str, arguments: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        """Call a method in the first workers, but for those whose arguments are None."""
        chosen = [(each, values) for each, values in zip(self._workers, arguments, strict=False) if values is not None]
        asked = [each for each, _ in chosen]
        try:
            for each, values in chosen:
                try:
                    each.connection.send_bytes(packed((method, values)))
                except BlockingIOError:
                    raise self._stalled(each, method) from None
                except ConnectionError:
                    raise self._died(each, method) from None
            return self._answers(asked, method)
        except BaseException:  # an answer is missing: what comes next would be out of step
            stop(self._workers, GRACE_S / 5)
            self.close()
            raise

    def _answers(self, asked: Sequence[Worker], method: str) -> list[Any]:
        timeout = max(self._timeout, START_S) if method == "start" else self._timeout
        deadline = time.monotonic() + timeout
        answers: dict[int, Any] = {}
        pending = {worker.connection: worker for worker in asked}
        while pending:
            ready = wait(list(pending), max(0.0, min(1.0, deadline - time.monotonic())))
            for connection in ready:
                worker = pending.pop(connection)  # type: ignore[call-overload]
                answers[worker.number] = self._receive(worker, method)
            for worker in pending.values() if not ready else ():
                if worker.process.poll() is not None:  # without an end of file, where a child of its own holds that
                    raise self._died(worker, method)
                if time.monotonic() >= deadline:
                    raise self._stalled(worker, method, timeout)
        return [answers[worker.number] for worker in asked]

    def _receive(self, worker: Worker, method: str) -> Any:  # noqa: ANN401  what the method of SyncEnvs returns
        try:
            outcome, result = unpacked(worker.connection.recv_bytes())
        except BlockingIOError:
            raise self._stalled(worker, method) from None
        except (EOFError, ConnectionError):
            raise self._died(worker, method) from None
        if outcome == REFUSED:
            started = f"vector.worker_python = {self._python!r}: " if self._python and method == "start" else ""
            raise InputError(f"{started}{result}")
        if outcome == FAILED:
            raise WorkerError(f"{self._name(worker)} raised an error. Its own traceback:\n{result}")
        return result

    def _name(self, worker: Worker) -> str:
        part = self._parts[min(worker.number, len(self._parts) - 1)]
        which = f", environments {part.start} to {part.stop - 1} of the batch" if part.start is not None else ""
        return f"worker {worker.number} (process {worker.process.pid}{which})"

    def _died(self, worker: Worker, method: str) -> WorkerError:
        try:
            code = worker.process.wait(GRACE_S)
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"it exited with {code}"
        except subprocess.TimeoutExpired:
            how = "it closed its connection"
        memory = "; out of memory? Use fewer workers, or a smaller vector_size" if how.endswith("SIGKILL") else ""
        return WorkerError(f"{self._name(worker)} died in {method}: {how}{memory}. {worker.stack()}".rstrip())

    def _stalled(self, worker: Worker, method: str, seconds: float | None = None) -> WorkerError:
        worker.show_stack()
        worker.process.kill()
        return WorkerError(
            f"{self._name(worker)} did not answer {method} within {seconds or self._timeout:g} seconds and was killed: "
            f"raise worker_timeout if it only needs longer. {worker.stack()}".rstrip()
        )
