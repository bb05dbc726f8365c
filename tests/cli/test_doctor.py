"""`maml-rl doctor` says what works here, and fails where something that is needed does not."""

import re
from pathlib import Path

import pytest
import torch
from tiny import Command

from maml_rl.machine import doctor


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_a_page_with_a_line_for_each_subject(command: Command, folder: Path) -> None:
    code, out, err = command("doctor")
    assert (code, err) == (0, "")
    assert re.findall(r"^(?:ok|missing|wrong) +(\w+): ", out, re.MULTILINE) == list(doctor.LOOKS)
    assert f"torch {torch.__version__}" in out
    assert not list(folder.iterdir())


@pytest.mark.skipif("torch.cuda.is_available()", reason="there is a GPU")
def test_what_is_needed_and_missing_fails(command: Command, folder: Path) -> None:
    assert command("doctor", "--need", "gpu")[0] == 1
    assert command("doctor", "--need", "disk", "versions")[0] == 0
    code, _, err = command("doctor", "--need", "luck")
    assert (code, err) == (2, f"error: --need luck: give some of {', '.join(doctor.LOOKS)}\n")


def test_a_look_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch, command: Command, folder: Path) -> None:
    def fails(out: Path) -> tuple[doctor.Level, str]:
        raise OSError("no such thing")

    monkeypatch.setitem(doctor.LOOKS, "cores", fails)
    code, out, _ = command("doctor")
    assert code == 1
    assert "wrong    cores: OSError: no such thing\n" in out
    assert "ok       disk: " in out


def test_a_full_disk_and_a_broken_gl_are_told(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE", 1 << 60)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "no such platform")
    monkeypatch.setenv("EGL_PLATFORM", "nowhere")
    found = {finding.subject: finding for finding in doctor.examine(folder / "runs/new")}
    assert found["disk"].level == "wrong"
    assert "too little for a long run" in found["disk"].said
    assert found["films"].level in ("ok", "missing")
