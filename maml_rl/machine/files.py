"""Writing files: whole or not at all, and an error that names the file and the bytes."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal


@contextmanager
def _named(path: Path, size: int) -> Iterator[None]:
    """Name the file in an error of the system's, which names none: the disk may be full, the folder read-only."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot write {size} bytes: {error.strerror}", str(path)) from error


def _put(path: Path, mode: Literal["wb", "ab"], data: bytes) -> None:
    with path.open(mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write(path: Path, content: bytes | str) -> None:
    """Write a temporary file beside it, sync it, and rename it into place.

    Args:
        path: The file; its folder is there.
        content: All of it; text as UTF-8, with a ? for what has none, as in a path.

    Raises:
        OSError: It cannot be written; the message names it and the bytes. What was there before is intact.
    """
    data = content.encode(errors="replace") if isinstance(content, str) else content
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with _named(path, len(data)):
            _put(temporary, "wb", data)
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # a file system that is read-only
            temporary.unlink(missing_ok=True)
        raise


def append(path: Path, line: str) -> None:
    """Add a line to a file, and sync it.

    Raises:
        OSError: It cannot be written whole; the message names the file and the bytes.
    """
    data = line.encode()
    with _named(path, len(data)):
        _put(path, "ab", data)


@contextmanager
def free_name(folder: Path, stem: str, *suffixes: str) -> Iterator[Path]:
    """A file to write that was not there yet, under any of the suffixes: <stem><suffix>, <stem>_2<suffix>, ...

    An empty file takes the name from other processes at once; it is removed if it is still empty at the end.

    Args:
        folder: Made if missing.
        stem: Of its name.
        suffixes: Of the file, and of others that will lie beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        name = f"{stem}_{number}" if number > 1 else stem
        file, *others = (folder / f"{name}{suffix}" for suffix in suffixes)
        if any(other.exists() for other in others):
            continue
        with suppress(FileExistsError):
            file.touch(exist_ok=False)
            break
    try:
        yield file
    finally:
        if file.exists() and not file.stat().st_size:
            file.unlink()
