"""What ``torch.save`` wrote, read so that it runs no code and takes no more memory than it has bytes."""

import io
import pickletools
import re
import zipfile
from typing import Any

import torch

PLAIN = re.compile(r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch \w+Storage")
"""What dense tensors, numbers and strings name in a pickle. ``torch.load`` allows more, such as bytearray(2**40)."""


def read(payload: bytes) -> dict[str, Any]:
    """The tensors, numbers and strings in the bytes of ``torch.save``, on the CPU whichever device they were on.

    Raises:
        Exception: The bytes are not that; zipfile, pickletools and torch have one for each way to be wrong.
    """
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > len(payload):
            raise ValueError("an entry is larger than the file: torch.save compresses nothing")
        pickles = [archive.read(entry) for entry in entries if entry.filename.lower().endswith("data.pkl")]
    for pickled in pickles:
        for code, name, _ in pickletools.genops(pickled):
            if code.name == "GLOBAL" and not PLAIN.fullmatch(str(name)):
                raise ValueError(f"it names {name}, which no tensor, number or string does")
    return dict(torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))
