"""Loggers of a run: which are opened, what refuses them, and a run that goes on without one that fails."""

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import few_shot
import pytest
from tiny import files, rows, tiny

from maml_envs import InputError
from maml_rl import meta_train
from maml_rl.config.toml import AnyConfig
from maml_rl.runs.folder import RunFolder, read_config, read_made_with, read_metrics
from maml_rl.runs.loggers.logger import LoggedRun, Row
from maml_rl.runs.loggers.opened import Loggers, makers


@pytest.mark.parametrize("config", [tiny(logger=[]), few_shot.tiny(logger=[])])
def test_without_a_logger_there_are_the_metrics_alone(config: AnyConfig, tmp_path: Path) -> None:
    run = meta_train(config, tmp_path / "run", quiet=True)
    assert len(read_metrics(run)) == 2
    assert {path.suffix for path in run.iterdir()} == {".toml", ".jsonl", ".pt", ""}
    assert read_config(run).logger == ()


def test_a_resumed_run_may_have_other_loggers_and_has_its_name_for_them(tmp_path: Path) -> None:
    run = meta_train(tiny(logger=["csv"]), tmp_path / "run", quiet=True)
    name = read_made_with(run)["run_id"]
    meta_train(tiny(iterations=3), run, resume=True, quiet=True)
    assert read_made_with(run)["run_id"] == name
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    assert list(run.glob("events*"))
    other = meta_train(tiny(logger=[]), tmp_path / "other", quiet=True)
    assert read_made_with(other)["run_id"] != name


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_library_that_is_missing_is_named_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    said = rf"logger = '{name}': {name} is not installed: pip install 'maml_rl\[{name}\]'"
    with pytest.raises(InputError, match=said):
        meta_train(tiny(logger=["csv", name]), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_folder_of_its_name_is_no_library(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in [each for each in sys.modules if each.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, known)
    (tmp_path / name).mkdir()  # such as the library makes where it is run
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(InputError, match=f"{name} is not installed"):
        makers([name])


def test_a_run_in_use_starts_no_logger(tmp_path: Path) -> None:
    config = tiny(logger=["csv"])
    with closing(RunFolder(tmp_path / "run", config, False, {}).begin()):
        before = files(tmp_path)
        with pytest.raises(InputError, match="is in use"):
            RunFolder(tmp_path / "run", config, True, {})
        assert files(tmp_path) == before


class Breaks:
    """A logger that takes one row."""

    def __init__(self, run: LoggedRun) -> None:
        self._rows: list[Row] = []

    def log(self, row: Row, pictures: Mapping[str, bytes]) -> None:
        if self._rows:
            raise ConnectionError("the network is gone\nand more of it")
        self._rows.append(row)

    def close(self) -> None:
        raise TimeoutError("still gone")


class Collects:
    """A logger that keeps what it gets."""

    def __init__(self, run: LoggedRun) -> None:
        self.rows: list[Row] = []

    def log(self, row: Row, pictures: Mapping[str, bytes]) -> None:
        self.rows.append(row)

    def close(self) -> None:
        pass


def of(tmp_path: Path, **kinds: Any) -> Loggers:
    return Loggers(kinds, LoggedRun(tmp_path, "id", tiny(), 0, []))


def test_a_logger_that_fails_is_said_once_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Collects(LoggedRun(tmp_path, "id", tiny(), 0, []))
    with closing(of(tmp_path, remote=Breaks, other=lambda run: other)) as loggers:
        for iteration in range(4):
            loggers.log({"iteration": iteration}, {})
    assert [row["iteration"] for row in other.rows] == [0, 1, 2, 3]
    said = f"logger remote has failed, and gets no more of {tmp_path}: ConnectionError: the network is gone"
    assert capsys.readouterr().err == f"{said}; metrics.jsonl goes on\n"


def test_a_logger_that_fails_is_closed_for_what_it_has(tmp_path: Path) -> None:
    closed = []

    class Closes(Breaks):
        def close(self) -> None:
            closed.append(self)
            super().close()

    with closing(of(tmp_path, remote=Closes)) as loggers:
        for iteration in range(3):
            loggers.log({"iteration": iteration}, {})
        assert len(closed) == 1
    assert len(closed) == 1


def test_a_logger_that_fails_to_close_is_said_and_the_others_are_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = []

    class Closes(Collects):
        def close(self) -> None:
            closed.append(self)

    of(tmp_path, remote=Breaks, other=Closes).close()
    assert len(closed) == 1
    assert "TimeoutError: still gone" in capsys.readouterr().err


def test_a_logger_that_does_not_start_refuses_the_run_and_the_others_are_closed(tmp_path: Path) -> None:
    closed = []

    class Closes(Collects):
        def close(self) -> None:
            closed.append(self)

    def broken(run: LoggedRun) -> Any:
        raise RuntimeError("no answer\nin 90 seconds")

    with pytest.raises(InputError) as caught:
        of(tmp_path, other=Closes, remote=broken)
    assert str(caught.value) == "logger = 'remote' does not start, mend it or leave it out: RuntimeError: no answer"
    assert len(closed) == 1


def test_the_metrics_are_whole_where_a_logger_loses_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(logger=["csv"])
    with closing(RunFolder(tmp_path / "run", config, False, {}).begin()) as folder:
        folder.log({"iteration": 0, "return/0": 1.0}, {})
        (tmp_path / "run/metrics.csv").unlink()
        (tmp_path / "run/metrics.csv").mkdir()
        for iteration in (1, 2):
            folder.log({"iteration": iteration, "return/0": 1.0}, {})
    assert [row["iteration"] for row in rows(tmp_path / "run")] == [0, 1, 2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("logger csv has failed, and gets no more of ")
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])["return/0"] == 1.0
