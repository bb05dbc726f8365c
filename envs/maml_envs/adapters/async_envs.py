"""A batch of gymnasium environments over worker processes, several in each.

Why not gymnasium's AsyncVectorEnv (1.4): it runs one environment in a process and steps those that have ended; a worker
that is killed shows as an EOFError without a name, the traceback of one that raises goes to a log, and close() waits
without end for one that does not heed SIGTERM. Nor multiprocessing's processes: they import the main program again,
which needs a guard in scripts and brings torch.

A worker is a fresh interpreter with one socket pair to its parent: nothing listens, and there is no shared memory
that could be left behind (a step of 32 half-cheetahs is 3 kB, which takes the socket some microseconds).
"""

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle
import numpy as np

from maml_envs import errors
from maml_envs.adapters import attribute_tasks, metaworld, sync_envs
from maml_envs.adapters.sync_envs import Array, MakeEnv, StepRows
from maml_envs.errors import InputError, WorkerError
from maml_envs.physics import warnings

GRACE_S = 5.0
"""Time to close environments before a worker is killed; a fifth of it where something went wrong."""

START_S = 60.0
"""Time to start an interpreter, if the timeout is not longer: on a busy machine that takes longer than a step."""

_START = """
import pickle, sys
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
sys.path[:] = connection.recv()
pickle.loads(connection.recv_bytes())(connection, int(sys.argv[2]), int(sys.argv[3]))
"""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""For workers: they share the cores, and each steps one environment at a time."""

_BY_VALUE = (errors, warnings, metaworld, sync_envs, attribute_tasks)
"""What a worker needs of this package, sent as it is: importing it there would import torch."""


def _dumps(value: object) -> bytes:
    for module in _BY_VALUE:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(value))
    finally:
        for module in _BY_VALUE:
            cloudpickle.unregister_pickle_by_value(module)


class _Worker:
    """A worker process, the connection to it, and the pipe that its Python stack comes from."""

    def __init__(self, number: int, timeout: float) -> None:
        self.number = number
        ours, theirs = socket.socketpair()
        # A worker can stop in the middle of a message: then neither end may wait for the rest of it for ever.
        limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, limit)
        self._stack, write = os.pipe()
        os.set_blocking(self._stack, False)
        with theirs:
            arguments = [str(number) for number in (theirs.fileno(), os.getpid(), write)]
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, *arguments],
                stdin=subprocess.DEVNULL,
                env=os.environ | _ONE_THREAD,
                pass_fds=(theirs.fileno(), write),
                process_group=0,  # Ctrl-C in a terminal is for the parent
            )
        os.close(write)
        self.connection = Connection(ours.detach())

    def stack(self) -> str:
        """Return the Python stack that it wrote when it crashed or was asked for it."""
        try:
            return os.read(self._stack, 1 << 16).decode(errors="replace")
        except BlockingIOError:
            return ""

    def show_stack(self) -> None:
        """Ask a worker that does not answer for its Python stack."""
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(0.2)

    def close(self, deadline: float) -> None:
        """Wait for it to end, once its connection is closed; kill it after the deadline."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._stack)


def _stop(workers: list[_Worker], grace: float = GRACE_S) -> None:
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + grace
    while workers:
        workers.pop().close(deadline)


class AsyncEnvs:
    """``SyncEnvs`` whose environments are dealt to processes; the methods do the same.

    Whatever goes wrong ends all workers: the next step needs them all.

    Args:
        make: Makes one environment; pickled by cloudpickle, so a class of a script or a notebook will do.
        width: Numbers in a flattened observation.
        names: Numbers of the environment's info to report.
        mujoco: See ``SyncEnvs``.
        count: Processes.
        timeout: Seconds that a process may take for an answer.
    """

    def __init__(
        self, make: MakeEnv, width: int, names: Sequence[str], mujoco: bool, count: int, timeout: float
    ) -> None:
        if sys.platform == "win32":
            raise InputError(f"workers = {count}: worker processes need Linux or macOS; use workers = 0")
        self._timeout, self._parts = timeout, [slice(0)]
        self._workers: list[_Worker] = []
        self.close = weakref.finalize(self, _stop, self._workers)  # also at exit, and when collected
        try:
            arguments = _dumps((make, width, tuple(names), mujoco))
            start = _dumps(sync_envs.serve)
            for number in range(count):
                self._workers.append(_Worker(number, timeout))
            for worker in self._workers:
                worker.connection.send(sys.path)
                worker.connection.send_bytes(start)
                worker.connection.send_bytes(arguments)
            self._answers(self._workers, "start")
        except BaseException:
            self.close()
            raise

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

    def _call(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        asked = self._workers[: len(arguments)]
        try:
            for worker, values in zip(asked, arguments, strict=True):
                try:
                    worker.connection.send((method, values))
                except BlockingIOError:
                    raise self._stalled(worker, method) from None
                except ConnectionError:
                    raise self._died(worker, method) from None
            return self._answers(asked, method)
        except BaseException:  # an answer is missing: what comes next would be out of step
            _stop(self._workers, GRACE_S / 5)
            self.close()
            raise

    def _answers(self, asked: Sequence[_Worker], method: str) -> list[Any]:
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

    def _receive(self, worker: _Worker, method: str) -> Any:  # noqa: ANN401  what the method of SyncEnvs returns
        try:
            succeeded, result = pickle.loads(worker.connection.recv_bytes())
        except BlockingIOError:
            raise self._stalled(worker, method) from None
        except (EOFError, ConnectionError):
            raise self._died(worker, method) from None
        if not succeeded:
            raise WorkerError(f"{self._name(worker)} raised an error. Its own traceback:\n{result}")
        return result

    def _name(self, worker: _Worker) -> str:
        part = self._parts[min(worker.number, len(self._parts) - 1)]
        which = f", environments {part.start} to {part.stop - 1} of the batch" if part.start is not None else ""
        return f"worker {worker.number} (process {worker.process.pid}{which})"

    def _died(self, worker: _Worker, method: str) -> WorkerError:
        try:
            code = worker.process.wait(GRACE_S)
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"it exited with {code}"
        except subprocess.TimeoutExpired:
            how = "it closed its connection"
        memory = "; out of memory? Use fewer workers, or a smaller vector_size" if how.endswith("SIGKILL") else ""
        return WorkerError(f"{self._name(worker)} died in {method}: {how}{memory}. {worker.stack()}".rstrip())

    def _stalled(self, worker: _Worker, method: str, seconds: float | None = None) -> WorkerError:
        worker.show_stack()
        worker.process.kill()
        return WorkerError(
            f"{self._name(worker)} did not answer {method} within {seconds or self._timeout:g} seconds and was killed: "
            f"raise worker_timeout if it only needs longer. {worker.stack()}".rstrip()
        )
