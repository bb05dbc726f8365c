"""docs/how_to/simulators.md does what it says, with the virtual environment that it makes: `make full` has one."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from documents import blocks, write_files
from tiny import Command

TEXT = (Path(__file__).parents[2] / "docs/how_to/simulators.md").read_text()
BLOCKS = blocks(TEXT)
COMMANDS = [shlex.split(line) for kind, text in BLOCKS if not kind for line in text.splitlines() if "maml-rl" in line]
SHORT = ["--iterations", "1", "--tasks", "2", "--episodes", "2", "--horizon", "20", "--evaluation.tasks", "2"]
HERE = os.environ.get("SIMULATORS")  # the virtual environment


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_files(BLOCKS, tmp_path)
    return tmp_path


@pytest.mark.skipif(not HERE, reason="SIMULATORS is not set")
@pytest.mark.parametrize("name", ["cartpole", "fetch"])
def test_every_command_runs(name: str, command: Command, folder: Path) -> None:
    (folder / ".venv-simulators").symlink_to(str(HERE))
    ran = [line for line in COMMANDS if name in " ".join(line)]
    for line in ran:
        short = {"train": SHORT, "evaluate": ["--tasks", "2"], "render": ["--steps", "1"]}.get(line[1], [])
        code, out, err = command(*line[1:], *short)
        assert code == 0, (line, out, err)
    if name == "fetch":
        assert (folder / "runs/fetch/videos/adaptation.mp4").stat().st_size > 1000
    assert ran
