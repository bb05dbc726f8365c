"""The README's code runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import write_files

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plug_in_example_trains(tmp_path: Path) -> None:
    write_files(BLOCKS, tmp_path, r"# (reach\.\w+)\n")
    assert {file.name for file in tmp_path.iterdir()} == {"reach.py", "reach.toml"}
    short = ["--iterations", "1", "--tasks", "2", "--episodes", "2"]
    run(["-m", "maml_rl", "train", "reach.toml", "--out", "runs/reach", *short], tmp_path)
    assert (tmp_path / "runs/reach/checkpoint.pt").is_file()


def test_the_python_calls_run(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how_to/python.md").read_text()
    for blocks in (BLOCKS, re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)):
        (code,) = [text for language, text in blocks if language == "python" and "import maml_rl\n" in text]
        (tmp_path / str(len(blocks))).mkdir()
        printed = run(["-c", code], tmp_path / str(len(blocks)))
        assert len(printed.splitlines()) == 2


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 150


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(path: str) -> None:
    assert (Path(__file__).parents[2] / path).exists()


def test_the_environments_are_listed() -> None:
    import maml_envs

    for name in maml_envs.names():
        assert f"`{name}`" in README
