"""Opens the loggers that a configuration names; training goes on without one that fails."""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from maml_envs import InputError
from maml_rl.machine.device import first_line
from maml_rl.runs.loggers.logger import LoggedRun, Logger, Row

Maker = Callable[[LoggedRun], Logger]


def _tensorboard() -> Maker:
    from maml_rl.runs.loggers.tensorboard import TensorBoard

    return TensorBoard


def _csv() -> Maker:
    from maml_rl.runs.loggers.csv import Csv

    return Csv


def _wandb() -> Maker:
    from maml_rl.runs.loggers.wandb import Wandb, refuse_without_login  # of the extra wandb

    refuse_without_login()
    return Wandb


def _trackio() -> Maker:
    from maml_rl.runs.loggers.trackio import Trackio  # of the extra trackio

    return Trackio


KINDS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio, "csv": _csv}
"""Import of what makes each logger, by the names of the key ``logger``."""

EXTRAS = ("wandb", "trackio")
"""Libraries that are extras of this package of the same name."""


def makers(names: Sequence[str]) -> dict[str, Maker]:
    """Import what makes each logger; nothing is written yet.

    Raises:
        InputError: A library is not installed, cannot be imported, or lacks a login.
    """
    found = {}
    for name in names:
        spec = importlib.util.find_spec(name) if name in EXTRAS else None
        if name in EXTRAS and (spec is None or spec.origin is None):  # it has no origin where it is any folder
            raise InputError(f"logger = {name!r}: {name} is not installed: pip install 'maml_rl[{name}]'")
        with _explained(name):
            found[name] = KINDS[name]()
    return found


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say whose error it is that keeps a run from starting."""
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        raise InputError(f"logger = {name!r} does not start, mend it or leave it out: {first_line(error)}") from error


class Loggers:
    """Open loggers of a run. What one raises is said once, on one line; it is left out from then on.

    Args:
        kinds: Makers by name.
        run: What they log.

    Raises:
        InputError: One does not start.
    """

    def __init__(self, kinds: Mapping[str, Maker], run: LoggedRun) -> None:
        self._folder = run.path
        self._opened: dict[str, Logger] = {}
        try:
            for name, make in kinds.items():
                with _explained(name):
                    self._opened[name] = make(run)
        except BaseException:
            self.close()
            raise

    def log(self, row: Row, pictures: Mapping[str, bytes]) -> None:
        """Give all of them an iteration's metrics, and its pictures by name."""
        for name, logger in list(self._opened.items()):
            with self._left_out_if_it_fails(name):
                logger.log(row, pictures)

    @contextmanager
    def _left_out_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if failed := self._opened.pop(name, None):
                with suppress(Exception):  # it keeps what it has got, if it can
                    failed.close()
            said = f"logger {name} has failed, and gets no more of {self._folder}: {first_line(error)}"
            print(f"{said}; metrics.jsonl goes on", file=sys.stderr)

    def close(self) -> None:
        """Flush them."""
        for name, logger in list(self._opened.items()):
            del self._opened[name]
            with self._left_out_if_it_fails(name):
                logger.close()
