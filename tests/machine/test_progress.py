"""The progress line: whole lines now and then into a file, one that is redrawn in a terminal."""

import os
import pty
import re
import select
import sys
import time

import pytest

from maml_rl.machine import progress
from maml_rl.machine.progress import ProgressLine


def test_into_a_file_it_prints_the_first_and_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine("navigation", 5) as line:
        for i in range(5):
            line.advance(f"return {i}")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "navigation 1/5  return 0  left 0:00:00",
        "navigation 5/5  return 4  left 0:00:00",
    ]


def test_a_resumed_run_counts_on_and_its_time_left_is_of_what_it_did(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with ProgressLine("cheetah", 100, start=60) as line:
        for _ in range(40):
            now += 4.0
            line.advance("")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "cheetah 61/100    left 0:02:36"  # 39 times 4 s
    # after that every 10 s: at every third step of 4 s
    assert [int(re.findall(r"(\d+)/100", line)[0]) for line in lines] == [61, *range(64, 100, 3), 100]
    assert lines[-1].endswith("left 0:00:00")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine("navigation", 2, quiet=True) as line:
        line.advance("x")
        line.advance("x")
    assert capsys.readouterr() == ("", "")


def test_a_total_that_is_reached_already(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine("navigation", 3, start=3):
        pass
    assert capsys.readouterr() == ("", "")


def test_in_a_terminal_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert sys.stderr.isatty()
        with progress.ProgressLine("navigation", 2) as line:
            line.advance("return -1.0 -> 2.0")
            line.advance("return -1.0 -> 3.0")
        terminal.flush()
        shown = ""
        while select.select([ours], [], [], 0.5)[0]:  # a terminal gives what it has, in pieces
            shown += os.read(ours, 100_000).decode(errors="replace")
    os.close(ours)
    assert "navigation" in shown
    assert "2/2" in shown
    assert "return -1.0 -> 3.0" in shown
    assert "\r" in shown
    assert "left 0:00:00  " not in shown  # the whole-line form
