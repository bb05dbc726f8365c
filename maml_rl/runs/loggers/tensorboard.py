"""TensorBoard: several runs below one --logdir compare, also by their hyper-parameters."""

import io
from collections.abc import Mapping

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from maml_rl.config.toml import dotted
from maml_rl.runs.loggers.logger import LoggedRun, Row

SCORES = ("return/", "success/", "loss", "evaluation/", "validation/")
"""Beginnings of the names of metrics that runs are compared by."""


class TensorBoard:
    """An open file of events in the run folder, which hides what earlier ones have of iterations that come again."""

    def __init__(self, run: LoggedRun) -> None:
        joins = not any(run.path.glob("events.out.tfevents*"))
        self._config = run.config
        self._writer = SummaryWriter(str(run.path), purge_step=run.start)
        for row in run.rows if joins else ():
            self.log(row, {})

    def log(self, row: Row, pictures: Mapping[str, bytes]) -> None:
        """Write scalars and pictures, which TensorBoard plays if they are films; hyper-parameters with the first."""
        iteration = int(row["iteration"])
        scalars = {name: value for name, value in row.items() if name != "iteration"}
        if iteration == 0:
            self._hyper_parameters(scalars)
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, iteration)
        for name, encoded in pictures.items():
            self._picture(name, encoded, iteration)

    def _hyper_parameters(self, scalars: Row) -> None:
        """Every key of the configuration, for the HPARAMS tab, beside those scalars that are ``SCORES``."""
        scores = {name: value for name, value in scalars.items() if name.startswith(SCORES)}
        keys = dotted(self._config.model_dump(mode="json", exclude_none=True))
        simple = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in keys}
        for summary in hparams(simple, scores):
            self._writer._get_file_writer().add_summary(summary)

    def _picture(self, name: str, encoded: bytes, iteration: int) -> None:
        from PIL import Image  # only runs that show pictures need it

        width, height = Image.open(io.BytesIO(encoded)).size
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=encoded)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._writer._get_file_writer().add_summary(summary, iteration)

    def close(self) -> None:
        """Flush it."""
        self._writer.close()
