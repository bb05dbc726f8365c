"""The run folder: who may write it, what it remembers, and how its metrics are read."""

import json
from pathlib import Path
from typing import Any

import pytest

from maml_rl.run_folder import read_metrics


def write(run: Path, content: bytes) -> Path:
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_bytes(content)
    return run


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_read_metrics_gives_the_rows(tmp_path: Path) -> None:
    rows = read_metrics(write(tmp_path / "run", lines({"iteration": 0, "ok": True}, {"iteration": 1, "kl/inner": 0.5})))
    assert rows == [{"iteration": 0.0, "ok": 1.0}, {"iteration": 1.0, "kl/inner": 0.5}]
    assert all(type(value) is float for row in rows for value in row.values())
    assert read_metrics(write(tmp_path / "run", b"")) == []
    # whole, though its newline was never written
    assert read_metrics(write(tmp_path / "run", b'{"a": 1}\n{"a": 2}')) == [{"a": 1.0}, {"a": 2.0}]


@pytest.mark.parametrize("torn", [b"{", b'{"a": 2', b'{"a', '{"é'.encode()[:-1], b"\xff"])
def test_a_torn_last_line_is_left_out(torn: bytes, tmp_path: Path) -> None:
    assert read_metrics(write(tmp_path / "run", lines({"a": 1}) + torn)) == [{"a": 1.0}]


@pytest.mark.parametrize("bad", [b'{"a": 2', b"\xff", b"[1]", b"3", b'{"a": "x"}', b'{"a": null}'])
@pytest.mark.parametrize("rest", [b"\n", b'\n{"a": 3}\n'])
def test_a_bad_line_is_named(bad: bytes, rest: bytes, tmp_path: Path) -> None:
    run = write(tmp_path / "run", lines({"a": 1}) + bad + rest)
    with pytest.raises(ValueError, match=r"run/metrics\.jsonl, line 2 is not "):
        read_metrics(run)


def test_a_missing_run_says_how_to_make_it(tmp_path: Path) -> None:
    run = tmp_path / "nothing"
    with pytest.raises(ValueError, match="does not exist") as caught:
        read_metrics(run)
    assert str(caught.value) == (f"{run}/metrics.jsonl does not exist; train first: maml-rl train CONFIG --out {run}")
