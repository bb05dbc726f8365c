"""Checkpoints: tensors and numbers in a file that is whole or not there, and runs no code when it is read."""

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import torch

from envs import InputError
from maml_rl.files import write
from maml_rl.types import Params

MAGIC = b"maml_rl checkpoint"
VERSION = 2


class Checkpoint(NamedTuple):
    """A run's state after an iteration; random numbers follow from the config's seed and ``iteration``."""

    theta: Params
    iteration: int  # iterations done
    env_steps: int  # environment steps taken
    best_return: float  # best training return after adaptation so far
    config: str  # the run's configuration as TOML
    outer: Params  # state of the outer optimiser, such as Adam's moments; empty for trpo


def save(path: Path, checkpoint: Checkpoint, keep_previous: bool = False) -> None:
    """Write it whole or not at all.

    Layout: a line "maml_rl checkpoint <version> <sha256>", then the bytes of ``torch.save``.

    Args:
        path: The file.
        checkpoint: What to save.
        keep_previous: Keep the file that is replaced as ``<stem>_previous<suffix>``.

    Raises:
        OSError: The disk is full or the folder cannot be written; the message names the file and the bytes. An
            earlier checkpoint is intact.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint._asdict(), buffer)
    payload = buffer.getvalue()
    header = b"%s %d %s\n" % (MAGIC, VERSION, hashlib.sha256(payload).hexdigest().encode())
    if keep_previous and path.exists():
        write(path.with_stem(path.stem + "_previous"), path.read_bytes())
    write(path, header + payload)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; only tensors, numbers and strings are accepted.

    Raises:
        InputError: It is missing, not one of ours, of a newer version, truncated or changed.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}: train first, with `maml-rl train CONFIG --out {path.parent}`")
    previous = path.with_stem(path.stem + "_previous")
    offer = f"; the one before is {previous}: rename it to {path.name} to go on" if previous.is_file() else ""
    header, _, payload = path.read_bytes().partition(b"\n")
    words = header.rsplit(b" ", 2)
    if len(words) != 3 or words[0] != MAGIC or not words[1].isdigit():
        raise InputError(f"{path} is not a checkpoint of this package{offer}")
    if int(words[1]) > VERSION:
        raise InputError(
            f"{path} has format version {int(words[1])}, newer than this package's {VERSION}: update maml_rl"
        )
    if hashlib.sha256(payload).hexdigest().encode() != words[2]:
        raise InputError(f"{path} is damaged: its content does not match its checksum{offer}")
    try:
        fields = torch.load(io.BytesIO(payload), weights_only=True)
        return Checkpoint(**({"outer": {}} | fields))  # version 1 had no outer optimiser with a state
    except Exception as error:  # torch.load has one for each way that bytes can be wrong
        raise InputError(f"{path} does not hold the tensors, numbers and strings of a checkpoint{offer}") from error
