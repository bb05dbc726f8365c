"""docs/how_to/loggers.md does what it says."""

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
from documents import blocks
from tiny import Command

from maml_rl.config.rl import Config
from maml_rl.config.toml import parse
from maml_rl.runs.loggers.opened import KINDS

TEXT = (Path(__file__).parents[2] / "docs/how_to/loggers.md").read_text()
BLOCKS = blocks(TEXT)
COMPARE = next(
    line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines() if "--logger tensorboard csv" in line
)
SHORT = ["--iterations", "2", "--tasks", "2", "--episodes", "2", "--horizon", "5", "--threads", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_logger_is_in_the_table_the_key_and_what_is_said_of_resuming() -> None:
    assert "\n| | " + " | ".join(f"`{name}`" for name in KINDS) + " |\n" in TEXT
    assert set(re.findall(r"^- `(\w+)`", TEXT.split("## Resuming")[1], re.MULTILINE)) == set(KINDS)
    literal = get_args(Config.model_fields["logger"].annotation)[0]
    assert set(get_args(literal)) == set(KINDS)
    (key,) = [text for kind, text in BLOCKS if kind == "toml"]
    names = re.findall(r'"(\w+)"', key.split("#")[0])
    assert parse({"env": "navigation", "logger": names}, "").logger == tuple(KINDS)


def test_seeds_are_compared_in_a_table(command: Command, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas")
    code, _, err = command(*shlex.split(COMPARE)[1:], *SHORT)
    assert code == 0, err
    (snippet,) = [text for kind, text in BLOCKS if kind == "python"]
    exec(snippet, {})
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["mean", "std"]
    assert [line.split()[0] for line in shown[-2:]] == ["0", "1"]
