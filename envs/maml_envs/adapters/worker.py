"""A worker process: answers calls of ``SyncEnvs`` over a connection. Nothing here imports torch."""

import faulthandler
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from maml_envs.adapters.messages import packed, unpacked
from maml_envs.adapters.named import Named
from maml_envs.adapters.sync_envs import SyncEnvs
from maml_envs.errors import InputError

DONE, REFUSED, FAILED = "done", "refused", "failed"


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def serve(connection: Connection, parent: int, stack: int) -> None:
    """Run a worker: answer calls ``(method, arguments)`` of ``SyncEnvs`` until the parent closes the connection.

    It answers ``(DONE, result)``, or once ``(REFUSED, message)`` of an InputError or ``(FAILED, traceback)``, and ends.
    It ends as well where the parent is gone, even inside a step that never returns.

    Args:
        connection: To the parent. Its first message has the arguments of ``SyncEnvs``.
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
        kind, make, where = unpacked(connection.recv_bytes())
        answer, envs = _answer(lambda: SyncEnvs(Named(*make) if kind == "named" else pickle.loads(make), where))
        connection.send_bytes(packed((answer[0], None if envs else answer[1])))
        while envs is not None:
            method, values = unpacked(connection.recv_bytes())
            answer, _ = _answer(partial(getattr(envs, method), *values))
            connection.send_bytes(packed(answer))
            if answer[0] != DONE:
                break
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent has gone or has closed its end
        pass
    finally:
        if envs is not None:
            envs.close()


def _answer(call: Callable[[], Any]) -> tuple[tuple[str, Any], Any]:
    """Call into the environments; return the message for the parent, with a traceback if it fails, and the result."""
    try:
        result = call()
    except InputError as error:
        return (REFUSED, str(error)), None
    except (Exception, SystemExit) as error:
        notes: Sequence[str] = getattr(error, "__notes__", ()) if sys.version_info < (3, 11) else ()
        return (FAILED, "\n".join((traceback.format_exc().rstrip(), *notes)) + "\n"), None
    return (DONE, result), result
