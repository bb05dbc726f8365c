"""Checkpoints: tensors and numbers in a file that is whole or not there, and runs no code when it is read."""

import hashlib
import io
import pickletools
import re
import reprlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_envs import InputError
from maml_rl.core import adam
from maml_rl.core.tree import Params, of_one_seed
from maml_rl.machine.files import write

HEADER = re.compile(rb"maml_rl checkpoint (\d{1,9}) (\S+)")
VERSION = 2

PLAIN = re.compile(r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch \w+Storage")
"""What dense tensors, numbers and strings name in a pickle. ``torch.load`` allows more, such as bytearray(2**40)."""


class Checkpoint(NamedTuple):
    """A run's state after an iteration; random numbers follow from the config's seed and ``iteration``."""

    theta: Params
    iteration: int  # iterations done
    env_steps: int  # environment steps taken
    best_return: float  # score of the best parameters so far, the higher the better, such as a training return
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
    content = buffer.getvalue()
    header = f"maml_rl checkpoint {VERSION} {hashlib.sha256(content).hexdigest()}\n".encode()
    if keep_previous and path.exists():
        write(path.with_stem(path.stem + "_previous"), path.read_bytes())
    write(path, header + content)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_params(value: object) -> bool:
    """Tell whether it is tensors by name, each with bytes for all of its numbers; an expanded one has fewer."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.nbytes <= tensor.untyped_storage().nbytes()
        for name, tensor in value.items()
    )


def safe_load(payload: bytes) -> dict[str, Any]:
    """Load a ``torch.save`` archive onto the CPU, without running code or using more memory than it has bytes.

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


FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "theta": (_is_params, "tensors by name"),
    "iteration": (_is_count, "a count"),
    "env_steps": (_is_count, "a count"),
    "best_return": (lambda value: isinstance(value, float), "a float"),
    "config": (lambda value: isinstance(value, str), "a string"),
    "outer": (_is_params, "tensors by name"),
}
"""What is right for each field of a checkpoint."""


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; only dense tensors, numbers and strings are accepted, each where it belongs.

    Raises:
        InputError: It is missing, not one of ours, of a newer version, truncated or changed.
    """
    if not path.is_file() and path.name == "best.pt" and path.with_name("checkpoint.pt").is_file():
        raise InputError(
            f"there is no {path}: parameters are the best once they have been judged, in few-shot learning with "
            "evaluation.every by the first evaluation in training; take the last: --which checkpoint"
        )
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}: train first, with `maml-rl train CONFIG --out {path.parent}`")
    previous = path.with_stem(path.stem + "_previous")
    offer = f"; the one before is {previous}: rename it to {path.name} to go on" if previous.is_file() else ""
    header, _, content = path.read_bytes().partition(b"\n")
    found = HEADER.fullmatch(header)
    if not found:
        raise InputError(f"{path} is not a checkpoint of this package{offer}")
    version, checksum = int(found[1]), found[2]
    if version > VERSION:
        raise InputError(f"{path} has format version {version}, newer than this package's {VERSION}: update maml_rl")
    if hashlib.sha256(content).hexdigest().encode() != checksum:
        raise InputError(f"{path} is damaged: its content does not match its checksum{offer}")
    refusal = f"{path} does not hold the tensors, numbers and strings of a checkpoint"
    try:
        checkpoint = Checkpoint(**({"outer": {}} | safe_load(content)))  # version 1 had no state of the outer step
    except Exception as error:  # there is one for each way that bytes can be wrong
        raise InputError(f"{refusal}{offer}") from error
    for name, (is_right, kind) in FIELDS.items():
        value = getattr(checkpoint, name)
        if not is_right(value):
            raise InputError(f"{refusal}: {name} is not {kind} but {reprlib.repr(value)}{offer}")
    return checkpoint


def refuse_another_model(path: Path, checkpoint: Checkpoint, model: Params) -> None:
    """Refuse a checkpoint that does not fit a model.

    Args:
        path: Where it was read.
        checkpoint: What was read.
        model: Parameters of the model, whose names, shapes and types count.

    Raises:
        InputError: A parameter, or a moment that Adam has of it, is missing or of another shape or type.
    """
    moments = {name: value[0] for name, value in adam.initial_state(of_one_seed(model)).items()}
    outer = checkpoint.outer
    of_adam = {name: outer[name] for name in moments if name in outer}
    differ = [*_differences(checkpoint.theta, model), *(_differences(of_adam, moments) if outer else ())]
    if differ:
        raise InputError(
            f"{path} is of another model than its configuration makes now: bring back the environment or the data that "
            "it was trained on, or train anew with another --out\n  " + "\n  ".join(differ)
        )


def select_parameters(path: Path, checkpoint: Checkpoint, which: str, initial: Params) -> tuple[Params, int]:
    """Select parameters by ``which``; return them on the initial ones' device, and the iterations behind them.

    Args:
        path: Where it was read.
        checkpoint: What was read.
        which: "initial" for those before training; for anything else those that were read.
        initial: Those before training.

    Raises:
        InputError: What was read does not fit the model.
    """
    if which == "initial":
        return initial, 0
    refuse_another_model(path, checkpoint, initial)
    return {name: value.to(initial[name].device) for name, value in checkpoint.theta.items()}, checkpoint.iteration


def _differences(before: Params, now: Params) -> Iterator[str]:
    for name in before | now:
        there, here = (
            f"{tuple(params[name].shape)} {params[name].dtype}" if name in params else "none"
            for params in (before, now)
        )
        if there != here:
            yield f"{name}: {there} there, {here} now"
