"""Runs that are logged for the tests of loggers, and what Weights & Biases keeps of one on the disk."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiny import finish

KILLED = """
import os, signal, sys, time
from pathlib import Path
import torch
from tiny import tiny
from maml_rl.config.toml import to_toml
from maml_rl.runs.checkpoint import Checkpoint
from maml_rl.runs.folder import RunFolder

config = tiny(logger=[sys.argv[2]])
folder = RunFolder(Path(sys.argv[1]), config, True, {}).begin()
for i in range(3):
    state = Checkpoint({"w": torch.zeros(2)}, i + 1, 0, 0.0, to_toml(config), {})
    folder.record({"iteration": i, "return/0": 1.5 * i, "linesearch/accepted": 1}, {}, state, None)
folder.log({"iteration": 3, "return/0": 9.0, "linesearch/accepted": 0}, {})
time.sleep(float(sys.argv[3]))
os.kill(os.getpid(), signal.SIGKILL)
"""
"""Three rows and their checkpoint, then a row more, a while and a kill: of a folder, with a logger, in seconds."""


def python(code: str, *arguments: str | float | Path) -> tuple[int, str, str]:
    """Run code in a process of its own, in which a warning is an error; exit code, stdout and stderr."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return finish(subprocess.Popen(command, env=environment, **pipes))


def records(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: blocks of 32 KiB, in them parts with a header of 7 bytes, as LevelDB's logs are."""
    proto = importlib.import_module("wandb.proto.wandb_internal_pb2")
    content, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            yield proto.Record.FromString(whole)
            whole = b""


def history(file: Path) -> list[dict[str, Any]]:
    """The rows of a .wandb file; of a picture, its type and where it lies, such as {"type": ..., "path": ...}."""
    found = []
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                names = list(item.nested_key) or [item.key]
                if len(names) == 1:
                    row[names[0]] = json.loads(item.value_json)
                else:
                    row.setdefault(names[0], {})[names[1]] = json.loads(item.value_json)
            found.append({name: value for name, value in row.items() if not name.startswith("_")})
    return found
