"""Trackio, the library itself with its database on this machine: `make full` has it, in a folder of its own."""

import importlib.util
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from logged import KILLED, python
from tiny import rows, tiny

from maml_rl import meta_train
from maml_rl.runs.folder import RunFolder, read_config, read_made_with
from maml_rl.train import meta_train_seeds

pytestmark = pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is not installed")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its databases, which it looks up once, when it is imported."""
    folder = tmp_path_factory.mktemp("trackio")
    with pytest.MonkeyPatch.context() as variables:
        for name, value in {"TRACKIO_DIR": folder, "HF_HOME": folder, "HF_HUB_OFFLINE": 1}.items():
            variables.setenv(name, str(value))
        for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "HF_TOKEN"):
            variables.delenv(name, raising=False)
        yield folder


@pytest.fixture
def project(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """The database of a project of the test's own."""
    name = re.sub(r"\W", "_", request.node.name)[:60]
    monkeypatch.setenv("TRACKIO_PROJECT", name)
    return home / f"{name}.db"


def logged(project: Path, run: Path) -> list[dict[str, Any]]:
    """Rows in the database of a run, with their steps, in the order in which they were logged."""
    name = f"{run.name}-{read_made_with(run)['run_id']}"
    with closing(sqlite3.connect(project)) as database:
        found = database.execute("select step, metrics from metrics where run_name = ? order by id", [name])
        return [{"iteration": step} | json.loads(metrics) for step, metrics in found]


def configs(project: Path) -> dict[str, dict[str, Any]]:
    with closing(sqlite3.connect(project)) as database:
        return {name: json.loads(text) for name, text in database.execute("select run_name, config from configs")}


def test_seeds_are_runs_of_a_group_with_all_that_there_is(
    project: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(evaluation={"every": 1, "film": True}, logger=["trackio"])
    runs = meta_train_seeds(config, {seed: tmp_path / f"sweep/s{seed}" for seed in (1, 2)}, quiet=True)
    out, err = capsys.readouterr()
    assert (out, err.count("* Run finished")) == ("", 2)  # the second did not end the first
    known = configs(project)
    assert len(known) == 2
    for run in runs:
        about = known[f"{run.name}-{read_made_with(run)['run_id']}"]
        assert about["_Group"] == "sweep"
        keys = read_config(run).model_dump(mode="json", exclude_none=True)
        assert {key: value for key, value in about.items() if not key.startswith("_")} == keys
        found = logged(project, run)
        for row in found:
            still, film = row.pop("evaluation/adaptation"), row.pop("evaluation/film")
            assert (still["_type"], film["_type"]) == ("trackio.image", "trackio.video")
            assert (home / "media" / still["file_path"]).read_bytes().startswith(b"\x89PNG")
            assert (home / "media" / film["file_path"]).read_bytes().startswith(b"GIF")
        assert [{name: x for name, x in row.items() if not name.startswith("seconds/")} for row in found] == rows(run)


def test_a_run_goes_on_and_one_that_joins_has_the_rows_before(project: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for iterations, logger in ((1, []), (2, ["trackio"]), (3, []), (4, ["trackio"])):
        meta_train(tiny(iterations=iterations, logger=logger), run, resume=True, quiet=True)
    assert [row["iteration"] for row in logged(project, run)] == [0, 1, 2, 3]
    assert len(configs(project)) == 1


@pytest.mark.parametrize("seconds", [0, 2])  # nothing is written yet, or all of it
def test_a_run_that_was_killed_goes_on(seconds: float, project: Path, tmp_path: Path) -> None:
    code, _, err = python(KILLED, tmp_path / "run", "trackio", seconds)
    assert code == -9, err
    with closing(RunFolder(tmp_path / "run", tiny(logger=["trackio"]), True, {}).begin()) as folder:
        for iteration in (3, 4):
            folder.log({"iteration": iteration, "return/0": -1.0}, {})
    assert [row["iteration"] for row in logged(project, tmp_path / "run")] == [0, 1, 2, 3, 4]


def test_runs_of_one_name_are_not_mixed_up(project: Path, tmp_path: Path) -> None:
    for sweep in ("a", "b"):
        meta_train(tiny(logger=["trackio"]), tmp_path / sweep / "s1", quiet=True)
    meta_train(tiny(iterations=3, logger=["trackio"]), tmp_path / "a/s1", resume=True, quiet=True)
    assert [len(logged(project, tmp_path / sweep / "s1")) for sweep in ("a", "b")] == [3, 2]
