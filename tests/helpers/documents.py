"""The documents' blocks of code, and the files that they stand for."""

import re
from collections.abc import Iterable
from pathlib import Path

NAMED = r"# (\w+\.\w+)\n"
"""First line of a block that is a file: its name."""

Block = tuple[str, str]
"""A block's language, empty for commands, and its text."""


def blocks(text: str) -> list[Block]:
    """Return a document's blocks of code."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def write_files(found: Iterable[Block], folder: Path, named: str = NAMED) -> None:
    """Write the blocks that name a file into a folder."""
    for _, text in found:
        if name := re.match(named, text):
            (folder / name[1]).write_text(text)
