"""Writing files: whole or not at all, and an error that names the file and the bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal


@contextmanager
def _named(path: Path, size: int) -> Iterator[None]:
    """What the system says of a write names no file: the disk may be full, the folder read-only."""
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
