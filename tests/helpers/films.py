"""Videos as arrays."""

import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np


def read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Frames (count, height, width, 3), and what the file says of itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # imageio_ffmpeg leaves the pipes of its process open
        with closing(imageio.get_reader(path)) as reader:
            return np.stack([np.asarray(frame) for frame in reader]), reader.get_meta_data()
