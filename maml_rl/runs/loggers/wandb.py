"""Weights & Biases: https://docs.wandb.ai, online or, with WANDB_MODE=offline, in the run folder alone."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import wandb

from maml_envs import InputError
from maml_rl.runs.loggers.logger import PROJECT, LoggedRun, Row, is_film

FINISH_S = 120.0
"""Longest wait at the end of a run for what is not uploaded yet; `wandb sync` uploads the rest."""

FLUSH_S = 0.1
"""Time after which a row is in the local file, for a run that is killed; the library's own is 15 seconds."""


def refuse_without_login() -> None:
    """Refuse to log online without a key, which the library would ask for.

    Raises:
        InputError: There is none.
    """
    online = wandb.setup().settings.mode in ("online", "run", "shared")
    if online and wandb.run is None and not wandb.login(prompt=False, verify=False):
        raise InputError(
            "logger = 'wandb' without a login: run `wandb login`, or set the variable WANDB_MODE=offline and upload "
            "later with `wandb sync`"
        )


class Wandb:
    """A run of the library, beside others in this process; resumed, it goes on with the same id.

    Its own step counts rows: charts are over the metric ``iteration``.
    """

    def __init__(self, run: LoggedRun) -> None:
        settings = wandb.setup().settings
        folder = Path(os.environ.get("WANDB_DIR") or run.path)
        before = any((folder / "wandb").glob(f"offline-run-*-{run.id}*"))
        self._run = wandb.init(
            id=run.id,
            resume="allow",
            name=run.name,
            group=settings.run_group or run.group,
            project=settings.project or PROJECT,
            dir=folder,
            config=run.config.model_dump(mode="json", exclude_none=True),
            reinit="create_new",
            settings=wandb.Settings(
                console="off",  # it would wrap the progress line
                finish_timeout=settings.finish_timeout or FINISH_S,
                x_transaction_log_flush_interval=FLUSH_S,
            ),
        )
        self._run.define_metric("*", step_metric="iteration")
        # A run that was killed may have kept rows to itself; offline, the library does not know of earlier ones.
        for row in run.rows[len(run.rows) if self._run.offline and before else self._run.starting_step :]:
            self.log(row, {})

    def log(self, row: Row, pictures: Mapping[str, bytes]) -> None:
        """Log a row with its pictures at once; the library uploads in a process of its own."""
        self._run.log({**row, **{name: _media(encoded) for name, encoded in pictures.items()}})

    def close(self) -> None:
        """Finish it, and wait a while for what is not uploaded yet."""
        self._run.finish()


def _media(encoded: bytes) -> wandb.Image | wandb.Video:
    if is_film(encoded):
        return wandb.Video(io.BytesIO(encoded), format="gif")
    from PIL import Image  # only runs that show pictures need it

    return wandb.Image(Image.open(io.BytesIO(encoded)))
