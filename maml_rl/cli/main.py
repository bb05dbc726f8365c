"""The command line: the commands by name, and the exit codes."""

import io
import os
import signal
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from maml_envs import InputError, WorkerError
from maml_rl.cli import checks, new, policies, results, train
from maml_rl.cli.parse import COMPLETION, Command, complete, is_command, name_of, summary_of, usage_of
from maml_rl.config import toml

GROUPS = (train, results, policies, checks, new)
"""The modules of commands; each class there that derives from Command is one."""

_FORMATTED = warnings.formatwarning
EXIT_BAD_INPUT = 2
FOLLOWS_AFTER_S = 5
WIDTH = 80


def commands() -> dict[str, type[Command]]:
    """Return the commands by name."""
    return {name_of(kind): kind for group in GROUPS for kind in vars(group).values() if is_command(kind)}


def overview() -> str:
    """Return the list of commands, a line for each: its arguments, and the start of its docstring."""
    summaries = {usage_of(kind): summary_of(kind) for kind in commands().values()}
    width = max(map(len, summaries))
    lines = [f"  {usage:<{width}}  {summary}" for usage, summary in summaries.items()]
    names = textwrap.fill(f"CONFIG is a TOML file or one of: {', '.join(toml.experiments())}", WIDTH)
    ending = [
        "`maml-rl COMMAND --help` lists a command's options.",
        f"`maml-rl {COMPLETION} bash` prints tab completion; also zsh, fish.",
    ]
    return "\n".join(["usage: maml-rl COMMAND ...", "", *lines, "", names, "", *ending])


def _fail(error: Exception, code: int = EXIT_BAD_INPUT, speaks: bool = True) -> NoReturn:
    if speaks:
        print("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
    sys.exit(code)


def _follow(code: int) -> NoReturn:
    """Fail after rank 0: torchrun takes the first failure for the cause, and ends the other ranks of the machine.

    Its agents on other machines do not hear of it, and would take a rank that exits with 0 for one that is done.
    """
    time.sleep(FOLLOWS_AFTER_S)
    sys.exit(code)


def _plain(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """Return a warning as users read it; those of libraries for programmers, with their place."""
    return f"warning: {message}\n" if category is UserWarning else _FORMATTED(message, category, filename, lineno, line)


@contextmanager
def _read_enough() -> Iterator[None]:
    """Exit without a word where whoever reads the output has read enough, as in `maml-rl ... | head`."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def main() -> None:
    """Run a command; exit with 0, 2 for bad input, or 128 + the signal that stopped it.

    Of torchrun's ranks, 0 says what all have to say and exits with its code; the others fail after it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 has no ±
    warnings.formatwarning = _plain
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        with _read_enough():
            print(overview(), flush=True)
        return
    command = commands().get(name)
    if command is None and name != COMPLETION:
        _fail(InputError(f"there is no command {name!r}\n{overview()}"))
    from maml_rl.machine.ranks import Echo, is_main
    from maml_rl.runs.loop import Stopped

    try:
        with _read_enough():
            if command is None:
                complete(commands().values(), arguments)
            else:
                command.start(arguments)
            sys.stdout.flush()
    except (InputError, FloatingPointError, OSError) as error:
        _fail(error)
    except WorkerError as error:  # every rank may miss one that is gone
        _fail(error, 1, is_main())
    except Echo:
        _follow(1)
    except Stopped as stopped:
        if not is_main():
            _follow(128 + stopped.signum)
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt as interrupt:  # training says by which signal
        sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))
