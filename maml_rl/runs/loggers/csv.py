"""metrics.csv in the run folder: the rows of metrics.jsonl as one table, for spreadsheets and pandas."""

import csv
import io
from collections.abc import Iterable, Mapping

from maml_rl.machine.files import append, write
from maml_rl.runs.loggers.logger import LoggedRun, Row


class Csv:
    """A table whose first line names every column: it is written anew where one appears that the rows before lack."""

    def __init__(self, run: LoggedRun) -> None:
        self._file = run.path / "metrics.csv"
        self._columns = list(dict.fromkeys(["iteration", *(name for row in run.rows for name in row)]))
        self._write(run.rows)

    def _write(self, rows: Iterable[Mapping[str, object]]) -> None:
        header = dict(zip(self._columns, self._columns, strict=True))
        write(self._file, self._lines([header, *rows]))

    def _lines(self, rows: Iterable[Mapping[str, object]]) -> str:
        stream = io.StringIO()
        csv.DictWriter(stream, self._columns, lineterminator="\n").writerows(rows)
        return stream.getvalue()

    def log(self, row: Row, pictures: Mapping[str, bytes]) -> None:
        """Add a row; what it has nothing for stays empty."""
        new = [name for name in row if name not in self._columns]
        if not new:
            return append(self._file, self._lines([row]))
        with self._file.open(newline="") as file:
            before = list(csv.DictReader(file))
        self._columns += new
        return self._write([*before, row])

    def close(self) -> None:
        """Hold nothing back: every row is in the file."""
