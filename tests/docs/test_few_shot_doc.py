"""docs/lessons/few_shot.md does what it says: its files are written, its commands for own data run."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from documents import blocks, write_files
from PIL import Image, ImageDraw
from tiny import Command

import maml_rl
from maml_rl.config.few_shot import FewShotConfig

TEXT = (Path(__file__).parents[2] / "docs/lessons/few_shot.md").read_text()
BLOCKS = blocks(TEXT)
COMMANDS = [shlex.split(line) for language, text in BLOCKS if not language for line in text.splitlines() if line]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_files(BLOCKS, tmp_path)
    return tmp_path


def test_own_data_is_learned_as_the_document_says(command: Command, folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == {
        *("my_data.py", "lines.py", "my_model.py"),
        *("gestures.toml", "drawings.toml"),
    }
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


def test_a_folder_of_drawings_is_learned_as_the_document_says(command: Command, folder: Path) -> None:
    """Sixty classes of twenty drawings: a stroke at an angle of the class, at a place by chance."""
    random = np.random.default_rng(0)
    for k in range(60):
        (folder / f"drawings/class {k}").mkdir(parents=True)
        for n in range(20):
            paper = Image.new("L", (40, 40), 255)
            x, y = random.uniform(14, 26, 2)
            a, bend = np.pi * (k % 12) / 12, 6 * (k // 12) - 12
            points = [(x - 12 * np.cos(a), y - 12 * np.sin(a)), (x - bend * np.sin(a), y + bend * np.cos(a))]
            points.append((x + 12 * np.cos(a), y + 12 * np.sin(a)))
            ImageDraw.Draw(paper).line(points, fill=0, width=4)
            paper.save(folder / f"drawings/class {k}/{n}.png")
    short = [
        "--iterations",
        "200",
        "--threads",
        "1",
        "--model.hidden",
        "16",
        "16",
        "16",
        "--tasks",
        "8",
        "--outer.lr",
        "0.005",
    ]
    assert command("train", "drawings.toml", *short, "--out", "runs/drawings")[0] == 0
    code, out, _ = command("evaluate", "runs/drawings", "--tasks", "100", "--steps", "1")
    assert code == 0
    accuracy = [float(value) for value in re.findall(r"│ +\d │ +([\d.]+) %", out)]
    assert accuracy[1] > 28  # chance is 20, and the mean of 100 tasks is off by 1.5 at most
    own = ["--model.network", "my_model:Net", "--iterations", "2", "--log-every", "2", "--threads", "1"]
    text = (folder / "drawings.toml").read_text()
    (folder / "own.toml").write_text(re.sub(r"\[model\]\n(.+\n)+", "", text))
    assert command("train", "own.toml", *own, "--out", "runs/own")[0] == 0
    with maml_rl.load(folder / "runs/drawings") as agent:
        pixels = [
            [np.asarray(Image.open(folder / f"drawings/class {k}/{n}.png").resize((28, 28)))]
            for k in (0, 30)
            for n in (0, 1)
        ]
        model = agent.adapt(np.array(pixels), ["flat", "flat", "bent", "bent"])
        assert set(model.predict(np.array(pixels))) <= {"flat", "bent"}
