"""Worker processes, seen from the parent: how one is started, asked for its Python stack and ended.

A worker is a fresh interpreter with one socket pair to its parent: nothing listens, and there is no shared memory
that could be left behind (a step of 32 half-cheetahs is 3 kB, which takes the socket some microseconds).
"""

import inspect
import os
import signal
import socket
import struct
import subprocess
import time
from functools import cache
from multiprocessing.connection import Connection

from maml_envs import conventions, errors
from maml_envs.adapters import actions, attribute_tasks, facts, messages, metaworld, named, returned, spaces, sync_envs
from maml_envs.adapters import worker as serving
from maml_envs.physics import warnings

GRACE_S = 5.0
"""Time to close environments before a worker is killed; a fifth of it where something went wrong."""

OLDEST = (3, 10)
"""The oldest Python that runs a worker."""

_START = f"""
import sys
sys.path[:] = [entry for entry in sys.path if entry]  # a file of the current folder must not stand for a module here
import pickle, types
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
path, sources = pickle.loads(connection.recv_bytes())
def refuse(message):
    connection.send_bytes(pickle.dumps(("refused", message), 4))
    connection.close()
    sys.exit()
if sys.version_info < {OLDEST}:
    refuse("it is Python %d.%d, and a worker needs {".".join(map(str, OLDEST))} or newer" % sys.version_info[:2])
if path is not None:
    sys.path[:] = path
try:
    import gymnasium
    if not hasattr(gymnasium.Env, "has_wrapper_attr"):
        refuse("its gymnasium is " + gymnasium.__version__ + ", and a worker needs 1.0 or newer")
    for name, text in sources:
        module = sys.modules[name] = types.ModuleType(name)
        module.__file__ = name
        if text is None:
            module.__path__ = []
        else:
            exec(compile(text, name, "exec"), module.__dict__)
except ModuleNotFoundError as error:
    refuse("it has no " + str(error.name) + ": install it there, with pip install " + str(error.name))
sys.modules["{{package}}.adapters.worker"].serve(connection, int(sys.argv[2]), int(sys.argv[3]))
"""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""For workers: they share the cores, and each steps one environment at a time."""

_PACKAGE = "maml_envs_worker"
"""The name of this package in a worker, where an environment may import the whole of it beside."""

_MODULES = (
    conventions, errors, messages, warnings, actions, spaces, attribute_tasks, metaworld, named, returned,
    facts, sync_envs, serving,
)  # fmt: skip
"""What a worker needs of this package, in the order of their imports; sent as source, for any version of Python."""


@cache
def sources() -> list[tuple[str, str | None]]:
    """Return modules by name with their source, packages with None, in the order to load them."""
    own: list[tuple[str, str | None]] = [(f"{_PACKAGE}{part}", None) for part in ("", ".adapters", ".physics")]
    for module in _MODULES:
        name = module.__name__.replace("maml_envs", _PACKAGE, 1)
        own.append((name, inspect.getsource(module).replace("from maml_envs", f"from {_PACKAGE}")))
    return own


class Worker:
    """A worker process, the connection to it, and the pipe that its Python stack comes from."""

    def __init__(self, number: int, timeout: float, python: str) -> None:
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
            try:
                self.process = subprocess.Popen(
                    [python, "-c", _START.format(package=_PACKAGE), *arguments],
                    stdin=subprocess.DEVNULL,
                    env=os.environ | _ONE_THREAD,
                    pass_fds=(theirs.fileno(), write),
                    process_group=0,  # Ctrl-C in a terminal is for the parent
                )
            except OSError:
                ours.close()
                os.close(self._stack)
                raise
            finally:
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


def stop(workers: list[Worker], grace: float = GRACE_S) -> None:
    """Close the connections, which ends the workers; kill those that do not end in time."""
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + grace
    while workers:
        workers.pop().close(deadline)
