"""Fuzz a reader of files, guided by coverage, from valid ones: it may refuse them in words, and nothing else.

Needs atheris, which no other part of the package does: `pip install atheris`.
"""

import io
import json
import os
import random
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from torch._weights_only_unpickler import Unpickler

try:
    import atheris
except ImportError:
    sys.exit("error: fuzzing needs atheris: pip install atheris")

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/helpers"))
READ_BY = ["maml_rl", "tomllib", "pickletools", "PIL"]
with atheris.instrument_imports(include=READ_BY):
    import foreign
for owner, name in ((Unpickler, "load"), (zipfile.ZipFile, "_RealGetContents"), (zipfile.ZipFile, "open")):
    setattr(owner, name, atheris.instrument_func(getattr(owner, name)))  # of modules that are loaded already

NAMES = {
    "config": ("configuration", "configuration of a run"),
    "checkpoint": ("checkpoint",),
    "metrics": ("metrics", "evaluation"),
    "omniglot": ("drawings",),
}
LONGEST = 2**15
"""Bytes of an input."""


@dataclass(frozen=True)
class Arguments:
    """What to fuzz, and how long."""

    reader: tyro.conf.Positional[Literal["config", "checkpoint", "metrics", "omniglot"]]
    seconds: float = 60.0
    timeout: int = 20
    """Seconds for one input."""
    rss_limit_mb: int = 1500
    """Memory of the process, torch included."""
    seed: int = 1


def changed_inside(name: str, data: bytes, pick: random.Random) -> bytes:
    """An input that is still whole where it would be refused at once: under its checksum, or in an entry of its zip."""

    def one(entry: str, content: bytes) -> bytes:
        return atheris.Mutate(content, LONGEST) if entry == chosen else content

    _, _, payload = data.partition(b"\n")
    archive = payload if name == "checkpoint" else data
    if name == "checkpoint" and pick.random() < 0.5:
        return foreign.sealed(atheris.Mutate(payload, LONGEST))
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            names = opened.namelist()
        chosen = pick.choice([entry for entry in names if entry.endswith("data.pkl")] or names)
        archive = foreign.repacked(archive, one)
    except Exception:  # no longer a zip
        return atheris.Mutate(data, LONGEST)
    return foreign.sealed(archive) if name == "checkpoint" else archive


def main() -> None:
    """Fuzz until the time is over, or to the first input that is neither read nor refused in words, which is kept."""
    chosen = tyro.cli(Arguments, description=__doc__)
    readers = [foreign.READERS[name] for name in NAMES[chosen.reader]]
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{chosen.reader}-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, valid in enumerate(sorted({each for _, seeds in readers for each in seeds})):
        (corpus / str(number)).write_bytes(valid)
    ends, tried, refused = time.monotonic() + chosen.seconds, 0, 0

    def try_one(data: bytes) -> None:
        nonlocal tried, refused
        if time.monotonic() > ends:
            print(json.dumps({"reader": chosen.reader, "tried": tried, "refused": refused}), flush=True)
            os._exit(0)  # libFuzzer would end the process itself, and say nothing of this
        tried += 1
        refused += bool(min([read(folder, data) for read, _ in readers]))  # by every one of them

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        pick = random.Random(seed)
        if chosen.reader in ("checkpoint", "omniglot") and pick.random() < 0.5:
            return changed_inside(chosen.reader, data, pick)[:max_size]
        if pick.random() < 0.3:
            return foreign.mutated(data, pick.choice(readers[0][1]), pick)[:max_size]
        return atheris.Mutate(data, max_size)

    flags = {
        "max_len": LONGEST,
        "timeout": chosen.timeout,
        "rss_limit_mb": chosen.rss_limit_mb,
        "seed": chosen.seed,
        "artifact_prefix": f"{folder}/",
        "verbosity": 0,
    }
    command = [sys.argv[0], *(f"-{name}={value}" for name, value in flags.items()), str(corpus)]
    print(f"what is found goes to {folder}", flush=True)
    atheris.Setup(command, try_one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
