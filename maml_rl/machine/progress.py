"""One line that says how far long work is: redrawn in a terminal, printed now and then elsewhere."""

import sys
import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PRINT_EVERY_S = 10.0


class ProgressLine:
    """Counts from ``start`` to ``total``.

    Args:
        label: What is counted.
        total: How many there are.
        start: How many are done already.
        quiet: Show nothing.
    """

    def __init__(self, label: str, total: int, start: int = 0, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._label, self._total, self._start, self._done = label, total, start, start
        self._began = self._printed = time.monotonic()
        self._plain = not quiet and not console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[message]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or self._plain,
        )
        self._task = self._bar.add_task(label, total=total, completed=start, message="")

    def __enter__(self) -> "ProgressLine":
        """Show it."""
        self._bar.start()
        return self

    def advance(self, message: str, count: int = 1) -> None:
        """So many more are done; the message is shown beside the count."""
        self._done += count
        self._bar.update(self._task, completed=self._done, message=message)
        now = time.monotonic()
        if self._plain and (now - self._printed >= PRINT_EVERY_S or self._done in (self._start + count, self._total)):
            self._printed = now
            left = (now - self._began) / (self._done - self._start) * (self._total - self._done)
            remaining = timedelta(seconds=round(left))
            print(
                f"{self._label} {self._done}/{self._total}  {message}  left {remaining}",
                file=sys.stderr,
                flush=True,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        self._bar.stop()
