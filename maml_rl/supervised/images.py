"""Few-shot tasks from a folder of images, with one folder for each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maml_envs import InputError
from maml_rl.supervised.labelled import LabelledTasks
from maml_rl.supervised.splits import Classes

if TYPE_CHECKING:
    from PIL import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
MODES = {1: "L", 3: "RGB"}


def images(
    root: Path | str,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    side: int = 28,
    channels: int = 1,
    classes: Classes = None,
) -> LabelledTasks:
    """Make tasks from a folder: each folder in it is a class, the images in that its examples.

    Images are made grey or RGB, transparent parts white, and shrunk or stretched to a square; (channels, side, side),
    white 1 and black 0. Classes are split into training, validation and test as by ``LabelledTasks``.

    Args:
        root: The folder.
        ways: Classes in a task.
        shots: Support examples of each class.
        queries: Query examples of each class.
        side: Height and width of the images.
        channels: 1 for grey, 3 for RGB.
        classes: As for ``LabelledTasks``; the labels are the names of the folders.

    Raises:
        InputError: There is no such folder, it holds no classes, an image cannot be read, or there are too few.
    """
    if channels not in MODES:
        raise InputError(f"channels = {channels}: give 1 for grey, or 3 for RGB")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"root = {str(root)!r} is no folder: give one with a folder of images for each class")
    files = {folder: _images_in(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
    files = {folder: found for folder, found in files.items() if found}
    if not files:
        raise InputError(f"{root} has no folders with images ({' '.join(ENDINGS)}): make one for each class")
    arrays = [read_image(file, side, channels) for found in files.values() for file in found]
    labels = [folder.name for folder, found in files.items() for _ in found]
    return LabelledTasks(np.stack(arrays), labels, ways, shots, queries, classes)


def _images_in(folder: Path) -> Sequence[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())


def _of_eight_bits(image: "Image.Image") -> "Image.Image":
    """Return a grey image of 16 bits as one of 8; Pillow would cut its numbers off at 255.

    Raises:
        ValueError: Its numbers are of another kind, whose largest nobody knows.
    """
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode}: save it with 8 or 16 bits")
    return image


def read_image(file: Path | str, side: int = 28, channels: int = 1) -> NDArray[np.uint8]:
    """Return an image as ``images`` takes it, (channels, side, side), bytes.

    Raises:
        InputError: It cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            own = _of_eight_bits(ImageOps.exif_transpose(image)).convert("RGBA")
    except Exception as error:  # Pillow has one for each way that bytes can be wrong
        raise InputError(f"{file} cannot be read as an image: {error}") from error
    paper = Image.new("RGBA", own.size, "white")
    paper.alpha_composite(own)
    pixels = np.asarray(paper.convert(MODES[channels]).resize((side, side), Image.Resampling.BOX))
    return pixels.reshape(side, side, channels).transpose(2, 0, 1)
