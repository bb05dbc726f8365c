"""`maml-rl new` writes what is sound at once: it is checked, tested and trained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import Command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "name", "module"),
    [
        ("gymnasium", "PushFar", "push_far"),
        ("batch", "Weights", "weights"),
        ("robot", "CartPole2", "cart_pole2"),
        ("few_shot", "Gestures", "gestures_data"),
    ],
)
def test_it_is_sound_at_once(kind: str, name: str, module: str, command: Command, folder: Path) -> None:
    code, out, err = command("new", kind, name)
    assert code == 0, err
    assert out.splitlines()[:3] == [
        f"written: {file}" for file in (f"{module}.py", f"{module}.toml", f"test_{module}.py")
    ]
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        [f"{module}.py", f"{module}.toml", f"test_{module}.py"]
    )
    if kind != "few_shot":
        code, out, err = command("check-env", f"{module}.toml")
        assert {line.split()[0] for line in out.splitlines()} == {"ok"}, out
    short = (
        ["--iterations", "100", "--log-every", "100"] if kind == "few_shot" else ["--iterations", "1", "--tasks", "2"]
    )
    code, _, err = command("train", f"{module}.toml", "--threads", "1", *short, "--out", "runs/new")
    assert code == 0, err
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{module}.py"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout
    code, _, err = command("new", kind, name)
    assert (code, err) == (2, f"error: {module}.py is there already: give another name, or another --folder\n")


def test_a_name_that_is_none_is_refused(command: Command, folder: Path) -> None:
    code, _, err = command("new", "batch", "my-env")
    assert (code, err.startswith("error: name = 'my-env' is not a class's name")) == (2, True)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["class", "Torch"])
def test_a_name_that_would_hide_another_is_refused(name: str, command: Command, folder: Path) -> None:
    code, _, err = command("new", "batch", name)
    assert code == 2
    assert "is not a class's name" in err or "a module torch is installed already" in err
    assert not list(folder.iterdir())


def test_in_another_folder_it_says_to_go_there(command: Command, folder: Path) -> None:
    _, out, _ = command("new", "batch", "Springs", "--folder", "my work")
    assert out.splitlines()[-1].startswith("next:    cd 'my work'; maml-rl check-env springs.toml; ")
