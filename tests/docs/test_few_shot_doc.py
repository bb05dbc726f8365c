"""docs/few_shot.md does what it says: its files are written, its commands for own data run."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from tiny import Command

from maml_rl.config.few_shot import FewShotConfig

TEXT = (Path(__file__).parents[2] / "docs/few_shot.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for language, text in BLOCKS if not language for line in text.splitlines() if line]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for _, text in BLOCKS:
        if named := re.match(r"# (\w+\.\w+)\n", text):
            (tmp_path / named[1]).write_text(text)
    return tmp_path


def test_own_data_is_learned_as_the_document_says(command: Command, folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == {"my_data.py", "lines.py", "gestures.toml"}
    own = [line[1:] for line in COMMANDS if any("gestures" in word for word in line)]
    assert [line[0] for line in own] == ["train", "evaluate"]
    assert command(*own[0], "--iterations", "200", "--threads", "1")[0] == 0
    code, out, _ = command(*own[1], "--tasks", "50")
    assert code == 0
    accuracy = [float(value) for value in re.findall(r"│ +\d │ +([\d.]+) %", out)]
    assert len(accuracy) == 4
    assert accuracy[0] < 40 < 60 < accuracy[3]
    assert "nearest neighbour" in out
    lines = ["--data", "lines:Lines", "--iterations", "100", "--threads", "1"]
    assert command("train", "gestures.toml", *lines, "--out", "runs/lines")[0] == 0
    code, out, _ = command("evaluate", "runs/lines", "--steps", "1", "--tasks", "20")
    assert code == 0
    assert "mean squared" in out


def test_every_key_it_names_is_there() -> None:
    for table, key in re.findall(r"`(inner|outer|model|evaluation)\.(\w+)`", TEXT):
        section = FewShotConfig.model_fields[table].annotation
        assert key in section.model_fields
