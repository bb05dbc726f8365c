"""TensorBoard: a run's scalars, hyper-parameters, pictures and films."""

import io
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from maml_rl.config.toml import AnyConfig, dotted

SCORES = ("return/", "success/", "loss", "evaluation/", "validation/")
"""Beginnings of the names of metrics that runs are compared by."""


class Events:
    """An open file of events; several runs below one --logdir compare, also by their hyper-parameters.

    Args:
        folder: Where the file goes.
        purge_step: Hide what an earlier file of the folder has from this iteration on; None: nothing.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def hyper_parameters(self, config: AnyConfig, row: Mapping[str, float]) -> None:
        """Every key of the configuration, for the HPARAMS tab, beside those scalars of a row that are ``SCORES``."""
        scores = {name: value for name, value in row.items() if name.startswith(SCORES)}
        keys = dotted(config.model_dump(mode="json", exclude_none=True))
        simple = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in keys}
        for summary in hparams(simple, scores):
            self._writer._get_file_writer().add_summary(summary)

    def scalars(self, row: Mapping[str, float], iteration: int) -> None:
        """A row of metrics."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, iteration)

    def picture(self, name: str, encoded: bytes, iteration: int) -> None:
        """A png, or a gif, which TensorBoard plays."""
        from PIL import Image  # only runs that show pictures need it

        width, height = Image.open(io.BytesIO(encoded)).size
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=encoded)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._writer._get_file_writer().add_summary(summary, iteration)

    def close(self) -> None:
        """Flush it."""
        self._writer.close()
