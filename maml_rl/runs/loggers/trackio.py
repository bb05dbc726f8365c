"""Trackio: https://huggingface.co/docs/trackio, a dashboard on this machine, or in a Hugging Face Space."""

import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from contextvars import Context
from pathlib import Path
from tempfile import TemporaryDirectory

import trackio

from maml_rl.runs.loggers.logger import PROJECT, LoggedRun, Row, is_film


class Trackio:
    """A run of the library, beside others in this process. It goes by its name, which therefore holds the run's id."""

    def __init__(self, run: LoggedRun) -> None:
        # A context of its own: the library finishes the run before in the same one. Its words are not our output.
        with redirect_stdout(sys.stderr):
            self._run = Context().run(
                trackio.init,
                project=os.environ.get("TRACKIO_PROJECT") or PROJECT,
                name=f"{run.name}-{run.id}",
                group=run.group,
                config=run.config.model_dump(mode="json", exclude_none=True),
                resume="allow",
            )
        self._first = self._run._next_step  # rows before are there; one that was killed may lack some of the last
        for row in run.rows_from(self._first):
            self.log(row, {})

    def log(self, row: Row, pictures: Mapping[str, bytes]) -> None:
        """Log a row with its pictures, unless it is there: the library appends, and writes in a thread of its own."""
        iteration = int(row["iteration"])
        if iteration < self._first:
            return
        with TemporaryDirectory() as folder:
            media = {}
            for number, (name, encoded) in enumerate(pictures.items()):
                file = Path(folder) / f"{number}.{'gif' if is_film(encoded) else 'png'}"
                file.write_bytes(encoded)
                media[name] = trackio.Video(file) if is_film(encoded) else trackio.Image(file)
            self._run.log({name: value for name, value in row.items() if name != "iteration"} | media, step=iteration)

    def close(self) -> None:
        """Write what is held back; with a Space, wait up to half a minute for the network."""
        with redirect_stdout(sys.stderr):
            self._run.finish()
