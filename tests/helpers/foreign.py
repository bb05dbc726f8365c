"""The readers of files, and bytes that nobody meant for them: valid ones cut, flipped and spliced with odd tokens."""

import hashlib
import importlib
import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from few_shot import BACKGROUND, EVALUATION, entries, write_zip

from maml_envs import InputError
from maml_rl.config import toml
from maml_rl.config.toml import to_toml
from maml_rl.runs import checkpoint, folder
from maml_rl.runs.checkpoint import Checkpoint
from maml_rl.runs.evaluation import evaluations

OMNIGLOT: Any = importlib.import_module("maml_rl.supervised.omniglot")

DIGITS = b"9" * 5000
"""More than Python makes an integer of."""

TOKENS = (
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xb2",
        b"\n",
        b"\r",
        b'"',
        b"'",
        b"'''",
        b"\\",
        b"\\ud800",
        b".",
        b"=",
        b"#",
        b",",
        b"../",
    ),
    *(b"[", b"]", b"{", b"}", b"[[", b'{"a":', b"[" * 3000, b'{"a":' * 3000, b"{a=" * 3000, b"a." * 3000),
    *(b"-", b"0", b"-1", b"1e400", b"-1e400", b"nan", b"NaN", b"inf", b"Infinity", b"true", b"null", DIGITS),
    *(b"9" * 20, b"9" * 400, b"0x" + b"f" * 5000, b"1979-05-27", b"[made_with]\n", b"[config]\n", b"data=", b"env="),
    *(struct.pack("<I", 2**32 - 1), struct.pack(">I", 2**31 - 1), struct.pack("<Q", 2**63), bytes(64)),
    *(b"PK\5\6", b"PK\1\2", b"PK\3\4", b"IHDR", b"IDAT", b"zTXt", b"c__builtin__\nbytearray\n", b"R", b"."),
)


def mutated(content: bytes, other: bytes, pick: random.Random) -> bytes:
    """A few changes to valid bytes, some of them with a piece of other valid ones."""
    for _ in range(pick.randint(1, 3)):
        at, to = sorted(pick.randrange(len(content) + 1) for _ in range(2))
        near = min(to, at + pick.randint(0, 8))
        piece = pick.choice(TOKENS)
        start = pick.randrange(len(other) + 1)
        content = pick.choice(
            (
                content[:at],
                content[:at] + piece + content[at:],
                content[:at] + piece + content[near:],
                content[:at] + content[near:],
                content[:at] + other[start : start + pick.randint(0, 200)] + content[at:],
                content[:at] + bytes([pick.randrange(256)]) + content[at + 1 :],
                content[:to] + content[at:],
            )
        )
    return content


def sealed(payload: bytes, version: bytes = b"2") -> bytes:
    """A checkpoint file whose checksum is right, whatever it holds."""
    return b"maml_rl checkpoint %s %s\n" % (version, hashlib.sha256(payload).hexdigest().encode()) + payload


def saved(content: object) -> bytes:
    """The bytes of ``torch.save``."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def checkpoint_bytes(**fields: Any) -> bytes:
    """A checkpoint file, valid but for fields that are given."""
    theta, outer = {"w": torch.ones(2, 3)}, {"step.w": torch.tensor(1.0)}
    valid = Checkpoint(theta, 7, 70, -1.5, 'env = "navigation"\n', outer)
    return sealed(saved(valid._asdict() | fields))


def repacked(archive: bytes, change: Callable[[str, bytes], bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with its entries changed, each by its name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


def with_pickle(change: Callable[[bytes], bytes]) -> bytes:
    """A checkpoint file with a changed pickle and the right checksum."""
    payload = checkpoint_bytes().partition(b"\n")[2]
    return sealed(repacked(payload, lambda name, data: change(data) if name.endswith("data.pkl") else data))


def drawings_zip() -> bytes:
    """The twenty drawings of one character."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries({"Greek": 1}, EVALUATION).items():
            archive.writestr(name, data)
    return buffer.getvalue()


def png_of_size(png: bytes, width: int, height: int) -> bytes:
    """A PNG whose header says another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


CONFIG = b"""[made_with]
command = "maml-rl train navigation"
[made_with.packages]
torch = "2.6"
[made_with.machine]
cores = 2
[config]
env = "navigation"
tasks = 3
vector.task_ranges = {gravity = [-10.0, -9]}
[config.policy]
hidden = [8, 8]
[config.inner]
lr = 1e-1
"""
FEW_SHOT = b'data = "sinusoid"\nshots = 4\niterations = 200\n[model]\nhidden = [8]\nbatch_norm = true\n'
METRICS = b"".join(
    json.dumps({"iteration": i, "return/0": -1.5e300, "kl/inner": float("nan"), "ok": True}).encode() + b"\n"
    for i in range(3)
)
OLD_EVALUATION = (
    b'{"returns": [[[1.0, -2e3], [3, NaN]]], "tasks": [[0.5]], "split": "in", "which": "best", "best": null, "lr": [1]}'
)
EVALUATION_JSON = (
    b'{"version": 2, "values": {"error": [[1.0, -2e3], [3, Infinity]]}, "which": "best", "iteration": 3, '
    b'"split": "in", "lr": [0.1], "tuned": true, "shots": 5, "references": {"predicting 0": 3.5}}'
)


def said_of(read: Callable[[], object], file: Path) -> str:
    """What a reader says of a file that it refuses, by its name; nothing where it takes it. Other errors pass."""
    try:
        read()
    except InputError as error:
        said = str(error)
    else:
        return ""
    assert str(file) in said
    return said


def reading(file: Path, content: bytes, read: Callable[[], object]) -> str:
    """What a reader says of a file of these bytes."""
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return said_of(read, file)


def read_config(tmp: Path, content: bytes) -> str:
    file = tmp / "my.toml"
    return reading(file, content, lambda: toml.parse_toml(to_toml(toml.load(file)), "its own TOML"))


def read_run_config(tmp: Path, content: bytes) -> str:
    file = tmp / "run/config.toml"
    return reading(file, content, lambda: (folder.read_config(tmp / "run"), folder.read_made_with(tmp / "run")))


def read_metrics(tmp: Path, content: bytes) -> str:
    return reading(tmp / "run/metrics.jsonl", content, lambda: folder.read_metrics(tmp / "run"))


def read_evaluation(tmp: Path, content: bytes) -> str:
    return reading(tmp / "run/evaluation.json", content, lambda: evaluations(tmp / "run"))


def read_checkpoint(tmp: Path, content: bytes) -> str:
    return reading(tmp / "checkpoint.pt", content, lambda: checkpoint.load(tmp / "checkpoint.pt"))


def read_drawings(tmp: Path, content: bytes) -> str:
    root = tmp / "omniglot"
    root.mkdir(exist_ok=True)
    write_zip(root / f"{BACKGROUND}.zip", {})
    (root / f"{EVALUATION}.zip").write_bytes(content)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* does not hold all of Omniglot as published")
        return said_of(lambda: OMNIGLOT._read(root), root)


DRAWINGS = drawings_zip()
CHECKPOINT = checkpoint_bytes()
READERS: dict[str, tuple[Callable[[Path, bytes], str], tuple[bytes, ...]]] = {
    "configuration": (read_config, (CONFIG, FEW_SHOT)),
    "configuration of a run": (read_run_config, (CONFIG, FEW_SHOT)),
    "metrics": (read_metrics, (METRICS, EVALUATION_JSON)),
    "evaluation": (read_evaluation, (EVALUATION_JSON, OLD_EVALUATION, METRICS)),
    "checkpoint": (read_checkpoint, (CHECKPOINT, checkpoint_bytes(theta={"w": torch.zeros(3)}))),
    "drawings": (read_drawings, (DRAWINGS, CHECKPOINT)),
}
