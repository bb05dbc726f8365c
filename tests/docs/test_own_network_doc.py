"""docs/lessons/own_network.md does what it says: its files are written and its commands run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from documents import blocks, write_files

TEXT = (Path(__file__).parents[2] / "docs/lessons/own_network.md").read_text()
SHORT = ["--iterations", "1", "--tasks", "2", "--episodes", "2", "--horizon", "5", "--threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("own_network")
    write_files(blocks(TEXT), made)
    assert {file.name for file in made.iterdir()} == {"residual.py", "pixels.py", "pixels.toml"}
    return made


COMMANDS = re.findall(r"^maml-rl (train .*)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_run(command: str, folder: Path) -> None:
    words = [word for word in shlex.split(command) if word not in ("--iterations", "20")]
    done = subprocess.run(
        [sys.executable, "-m", "maml_rl", *words, *SHORT], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (folder / words[-1] / "checkpoint.pt").is_file()


def test_there_are_two() -> None:
    assert len(COMMANDS) == 2
