"""docs/lessons/own_environment.md does what it says: its files are written, its commands run."""

import re
import shlex
import sys
from pathlib import Path

import films
import pytest
from documents import blocks, write_files
from few_shot import tiny as few_shot_tiny
from tiny import Command, tiny

from maml_rl import meta_train, render

TEXT = (Path(__file__).parents[2] / "docs/lessons/own_environment.md").read_text()
README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS, README_BLOCKS = (blocks(text) for text in (TEXT, README))
COMMANDS = [shlex.split(line) for language, text in BLOCKS if not language for line in text.splitlines()]
SHORT = [
    "--iterations",
    "1",
    "--tasks",
    "3",
    "--episodes",
    "2",
    "--evaluation.tasks",
    "2",
    "--evaluation.episodes",
    "2",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_files(BLOCKS, tmp_path)
    return tmp_path


def test_every_command_runs(command: Command, folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == {"pendulum.toml", "swing.py", "swing.toml", "point.py"}
    assert {line[0] for line in COMMANDS} == {"maml-rl"}
    assert {line[1] for line in COMMANDS} == {"check-env", "train", "evaluate"}
    for line in COMMANDS:
        code, out, err = command(*line[1:], *(SHORT if line[1] == "train" else []))
        assert code == 0, (line, out, err)
        if line[1] == "check-env":
            assert re.findall(r"^(\w+) ", out, re.MULTILINE) == ["ok"] * 11, out
    assert (folder / "runs/swing/checkpoint.pt").is_file()
    assert (folder / "runs/pendulum/evaluation.json").is_file()


def test_what_films_need_makes_a_film(folder: Path) -> None:
    (seen,) = [text for language, text in BLOCKS if language == "python" and "class SeenPoint" in text]
    (folder / "seen.py").write_text(seen)
    run = meta_train(tiny(env="seen:SeenPoint", iterations=1), folder / "run", quiet=True)
    video, _, poster = render(run, tasks=1, steps=1)
    frames, _ = films.read(video)
    assert frames.shape[0] == 6
    assert frames.shape[2] == 2 * (320 + 16)
    assert poster.is_file()


def test_the_classes_are_short() -> None:
    for language, text in BLOCKS:
        if language == "python":
            assert len([line for line in text.partition("class ")[2].splitlines() if line.strip()]) <= 26


def test_links_and_names_lead_somewhere() -> None:
    for path in re.findall(r"`([\w/]+/\w+\.py)`", TEXT):
        assert (Path(__file__).parents[2] / path).exists()
    assert any("reach" in text for _, text in README_BLOCKS)


@pytest.mark.parametrize("kind", ["environment", "few-shot data", "few-shot model"])
def test_a_run_folder_that_names_code_says_so_before_it_runs(
    kind: str, command: Command, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run folder may be anybody's; the module lies where the command is given."""
    (folder / "probing.py").write_text(
        "import sys\nfrom few_shot import Blobs\nfrom probes import Probe\nprint('here', file=sys.stderr)\n"
        "from own_models import Plain\n"
    )
    if kind == "environment":
        meta_train(tiny(env="probing:Probe"), folder / "run", quiet=True)
    else:
        model = {"network": "probing:Plain", "hidden": (40, 40)} if kind == "few-shot model" else {"hidden": (8,)}
        data = "few_shot:Blobs" if kind == "few-shot model" else "probing:Blobs"
        config = few_shot_tiny(data=data, ways=3, shots=2, queries=3, model=model)
        meta_train(config, folder / "run", quiet=True)
    capsys.readouterr()
    del sys.modules["probing"]
    said = f"run names code that is not of this package: importing probing from {folder}/probing.py"
    for expected in ([said, "here"], []):  # what runs already is not said again
        code, _, err = command("evaluate", "run", "--steps", "1")
        assert code == 0, err
        assert err.splitlines() == expected
    del sys.modules["probing"]
