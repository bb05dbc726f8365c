"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each (Lake et al. 2015)."""

import contextlib
import hashlib
import io
import os
import re
import urllib.request
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from maml_envs import InputError
from maml_rl.supervised.labelled import LabelledTasks

if TYPE_CHECKING:  # Pillow is loaded when images are read, and not by every training
    from PIL import Image

HOME = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
ZIPS = {
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}
"""The files as they are published, and their MD5."""

CONTENT = "0067d9df5570f35fd18b915a59d72f233cece8fb08944d4fc1b680456db3d3c2"
"""SHA-256 of all drawings, a bit for each pixel, in order, however they are packed."""

ENTRY = re.compile(r"images_(?:background|evaluation)/([^/]+)/(character\d+)/\d+_\d+\.png")
SIDE, SMALL, DRAWINGS = 105, 28, 20
HELD_OUT, VALIDATION = 423, 100
"""Characters for test, as in the MAML paper, and for validation, taken from the paper's 1,200 for training."""

LARGEST = 50_000
"""Bytes of a drawing's file, unpacked, that no drawing comes near: 105 x 105 pixels in 4 channels have fewer."""


def omniglot(root: Path, ways: int = 5, shots: int = 1, queries: int = 15) -> LabelledTasks:
    """N-way, K-shot tasks from a folder with the two official zips, or with what was unpacked from them.

    A class is a character turned by a multiple of 90 degrees, drawn for each task. Of the 1,623 characters, a fixed
    random 1,100 are for training, 100 for validation and 423 for test (MAML paper, section 5.2: 1,200 and 423; easier
    than holding out whole alphabets). Images are (1, 28, 28), ink 1 on 0.

    Raises:
        InputError: A file is missing, damaged, or not what it should be.
    """
    images = torch.from_numpy(load(root))
    count = len(images)
    test, validation = (max(1, part * count // 1623) for part in (HELD_OUT, VALIDATION))
    labels = torch.arange(count).repeat_interleave(DRAWINGS)
    return LabelledTasks(
        images.flatten(0, 1).unsqueeze(1),
        labels,
        ways,
        shots,
        queries,
        (count - test - validation, validation, test),
        True,
    )


def load(root: Path) -> NDArray[np.uint8]:
    """All drawings, (characters, 20, 28, 28), ink 255 on 0; characters sorted by alphabet and number.

    The first call decodes and shrinks the images and keeps them as one array, in the folder or, if that cannot be
    written, in the user's cache folder.
    """
    digest = "-".join(_checksum(_source(root, name))[:8] for name in ZIPS)
    name = f"omniglot_{SMALL}_{digest}.npy"
    folders = [root]
    with contextlib.suppress(RuntimeError):  # a user without a home
        folders.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maml_rl")
    for folder in folders:
        if (folder / name).is_file():
            with contextlib.suppress(Exception):  # not what is written below, in one of many ways: made anew
                cached = np.load(folder / name, mmap_mode="r", allow_pickle=False)
                if cached.dtype == np.uint8 and len(cached) and cached.shape[1:] == (DRAWINGS, SMALL, SMALL):
                    return np.array(cached)
    images = _read(root)
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"{name}.{os.getpid()}.tmp"
            with temporary.open("wb") as file:
                np.save(file, images)
            temporary.replace(folder / name)
            break
    return images


def _source(root: Path, name: str) -> Path:
    """Return the zip, or the folder that it was unpacked to."""
    path, unpacked = root / name, root / Path(name).stem
    if path.is_file():
        return path
    if (unpacked / unpacked.name).is_dir():  # unpacked into a folder of its own
        return unpacked / unpacked.name
    if unpacked.is_dir():
        return unpacked
    raise InputError(
        f"{path} does not exist, nor the folder {unpacked.name} beside it, with one for each alphabet; get "
        f"{HOME}{name}, or both files with `maml-rl download-omniglot {root}`"
    )


def _checksum(path: Path) -> str:
    """Return the MD5 of a zip, or of the names, sizes and times of a folder's files."""
    if path.is_dir():
        found = ((file.relative_to(path), file.stat()) for file in sorted(path.glob("*/*/*.png")))
        listing = "".join(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\n" for name, about in found)
        return hashlib.md5(listing.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _files(path: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Yield the name, size and reader of each file in a zip, or in the folder that it was unpacked to."""
    if path.is_dir():
        for file in path.glob("*/*/*.png"):
            yield file.relative_to(path.parent).as_posix(), file.stat().st_size, file.read_bytes
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            yield entry.filename, entry.file_size, partial(archive.read, entry)


def _read(root: Path) -> NDArray[np.uint8]:
    drawings: dict[tuple[str, str], dict[str, Image.Image]] = defaultdict(dict)
    for path in (_source(root, name) for name in ZIPS):
        try:
            for name, size, read in _files(path):
                if match := ENTRY.fullmatch(name):
                    drawings[match[1], match[2]][name] = _drawing(name, size, read, path)
        except InputError:
            raise
        except Exception as error:  # zipfile and Pillow have one for each way that bytes can be wrong
            raise InputError(f"{path} is damaged, or only a part of it: {error}; remove it and get it again") from error
    wrong = [f"{'/'.join(key)} has {len(found)}" for key, found in drawings.items() if len(found) != DRAWINGS]
    if wrong or not drawings:
        raise InputError(
            f"{root}: every character has {DRAWINGS} drawings, but {wrong[0] if wrong else 'there is no character'}; "
            "remove the zips and get them again"
        )
    ordered = [[found[entry] for entry in sorted(found)] for _, found in sorted(drawings.items())]
    digest = hashlib.sha256(b"".join(image.tobytes() for images in ordered for image in images)).hexdigest()
    if digest != CONTENT:
        warnings.warn(f"{root} does not hold all of Omniglot as published, but {len(ordered)} characters", stacklevel=4)
    return np.stack([np.stack([_shrink(image) for image in images]) for images in ordered])


def _drawing(name: str, size: int, read: Callable[[], bytes], path: Path) -> "Image.Image":
    from PIL import Image

    if size > LARGEST:
        raise ValueError(f"{name} has {size} bytes, and a drawing at most {LARGEST}")
    image = Image.open(io.BytesIO(read()), formats=("PNG",))
    if image.size != (SIDE, SIDE):
        width, height = image.size
        raise InputError(f"{path}: {name} is {width} x {height} pixels, not {SIDE} x {SIDE}")
    drawing = image.convert("1")
    drawing.info.clear()  # a comment in it may unpack to megabytes
    return drawing


def _shrink(image: "Image.Image") -> NDArray[np.uint8]:
    from PIL import Image

    small = image.convert("L").resize((SMALL, SMALL), Image.Resampling.BOX)
    return 255 - np.asarray(small, dtype=np.uint8)


def download(root: Path) -> list[Path]:
    """Fetch the two official zips into a folder; a file that is there already is checked and kept.

    Raises:
        InputError: A file is not the published one.
        OSError: It cannot be fetched or written.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, official in ZIPS.items():
        path = root / name
        if not path.exists():
            temporary = path.with_suffix(".part")
            urllib.request.urlretrieve(HOME + name, temporary)
            temporary.replace(path)
        if _checksum(path) != official:
            raise InputError(f"{path} is not the file as published, or only a part of it: remove it and try again")
    return [root / name for name in ZIPS]
