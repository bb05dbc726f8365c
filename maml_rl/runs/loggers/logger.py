"""The interface of a logger, and what it is told of the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from maml_rl.config.toml import AnyConfig

PROJECT = "maml_rl"
"""Project of runs whose library is told no other."""

Row = Mapping[str, float]
"""Metrics by name, the iteration among them."""


class LoggedRun(NamedTuple):
    """A run that is logged: new, or resumed."""

    path: Path  # its folder
    id: str  # the same whenever it is resumed, and no other run's
    config: AnyConfig
    start: int  # iterations done
    rows: Sequence[Row]  # of those

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.path.resolve().name

    @property
    def group(self) -> str:
        """Name of the folder around that, which seeds share."""
        return self.path.resolve().parent.name

    def rows_from(self, iteration: int) -> list[Row]:
        """Return the rows of an iteration and those after it."""
        return [row for row in self.rows if row["iteration"] >= iteration]


class Logger(Protocol):
    """An open logger of a run, made of a ``LoggedRun``; it may raise anything, which ends its use and not the run."""

    def log(self, row: Row, pictures: Mapping[str, bytes]) -> None:
        """Take an iteration's metrics, and its pictures by name, each a png or a gif."""

    def close(self) -> None:
        """Write what is held back."""


def is_film(picture: bytes) -> bool:
    """Tell a gif from a png."""
    return picture.startswith(b"GIF")
