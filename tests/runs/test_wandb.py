"""Weights & Biases, the library itself without its server: what it keeps on the disk, and what it says without one."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from logged import KILLED, history, python, records
from tiny import rows, tiny

from maml_envs import InputError
from maml_rl import meta_train
from maml_rl.config.toml import dotted
from maml_rl.runs.folder import RunFolder, read_config, read_made_with
from maml_rl.train import meta_train_seeds

wandb = pytest.importorskip("wandb")


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Variables of the library, which it reads when it is first used; none of the user's own, nor a login."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home/netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()
    yield monkeypatch
    wandb.teardown()


@pytest.fixture
def offline(variables: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    variables.setenv("WANDB_MODE", "offline")
    return variables


def logs(folder: Path) -> list[Path]:
    """Files that the library left below a folder, the oldest first, once its process has ended and they are whole."""
    wandb.teardown()
    return sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)


def begun(file: Path) -> Any:
    return next(record.run for record in records(file) if record.WhichOneof("record_type") == "run")


def test_seeds_are_runs_of_a_group_with_all_that_there_is(offline: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tiny(evaluation={"every": 1, "film": True}, logger=["wandb"])
    runs = meta_train_seeds(config, {seed: tmp_path / f"sweep/s{seed}" for seed in (1, 2)}, quiet=True)
    for run in runs:
        (file,) = logs(run)
        about = begun(file)
        assert about.run_id == read_made_with(run)["run_id"]
        assert (about.project, about.run_group, about.display_name) == ("maml_rl", "sweep", run.name)
        said = {item.key: item.value_json for item in about.config.update}
        keys = read_config(run).model_dump(mode="json", exclude_none=True)
        assert said.keys() - {"_wandb"} == keys.keys()
        assert (said["seed"], said["inner"]) == (run.name[1:], wandb.util.json_dumps_safer(keys["inner"]))
        assert len(list(dotted(keys))) > 40
        logged = history(file)
        for row in logged:
            pictures = [row.pop(f"evaluation/{name}") for name in ("adaptation", "film")]
            kinds = {picture["_type"]: file.parent / "files" / picture["path"] for picture in pictures}
            assert kinds["image-file"].read_bytes().startswith(b"\x89PNG")
            assert kinds["video-file"].read_bytes().startswith(b"GIF")
        assert [{name: x for name, x in row.items() if not name.startswith("seconds/")} for row in logged] == rows(run)
    assert wandb.run is None


def test_a_run_goes_on_with_its_id_and_the_projects_are_the_librarys(
    offline: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offline.setenv("WANDB_PROJECT", "mine")
    offline.setenv("WANDB_RUN_GROUP", "ours")
    run = tmp_path / "run"
    for iterations in (1, 3):
        meta_train(tiny(iterations=iterations, logger=["wandb"]), run, resume=True, quiet=True)
    first, second = logs(run)
    for file, iterations in ((first, [0]), (second, [1, 2])):
        about = begun(file)
        assert (about.run_id, about.project, about.run_group) == (read_made_with(run)["run_id"], "mine", "ours")
        assert [row["iteration"] for row in history(file)] == iterations


def test_a_logger_that_joins_has_the_rows_before(offline: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offline.setenv("WANDB_DIR", str(tmp_path))
    run = meta_train(tiny(logger=[]), tmp_path / "run", quiet=True)
    for iterations in (3, 4):
        meta_train(tiny(iterations=iterations, logger=["wandb"]), run, resume=True, quiet=True)
    assert not (run / "wandb").exists()
    assert [[row["iteration"] for row in history(file)] for file in logs(tmp_path)] == [[0, 1, 2], [3]]


def test_a_run_that_was_killed_goes_on(offline: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, _, err = python(KILLED, tmp_path / "run", "wandb", 1)
    assert code == -9, err
    with closing(RunFolder(tmp_path / "run", tiny(logger=["wandb"]), True, {}).begin()) as folder:
        folder.log({"iteration": 3, "return/0": -1.0}, {})
    first, second = logs(tmp_path / "run")
    assert begun(first).run_id == begun(second).run_id
    assert [row["return/0"] for row in history(first)] == [0.0, 1.5, 3.0, 9.0]
    assert [(row["iteration"], row["return/0"]) for row in history(second)] == [(3, -1.0)]


KILLED_CORE = """
import sys
from contextlib import closing
from pathlib import Path
import psutil
from tiny import tiny
from maml_rl.runs.folder import RunFolder

with closing(RunFolder(Path(sys.argv[1]), tiny(logger=["wandb", "csv"]), False, {}).begin()) as folder:
    for i in range(50):
        folder.log({"iteration": i}, {})
        if i == 3:
            (core,) = [child for child in psutil.Process().children() if child.name() == "wandb-core"]
            core.kill()
print("trained")
"""


def test_training_goes_on_where_the_librarys_process_is_killed(offline: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, out, err = python(KILLED_CORE, tmp_path / "run")
    assert (code, out) == (0, "trained\n"), err
    assert err.count("logger wandb has failed, and gets no more of ") == 1
    assert [row["iteration"] for row in rows(tmp_path / "run")] == list(range(50))
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) == 51


def test_a_missing_login_is_refused_before_anything_is_written(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = "logger = 'wandb' without a login: run `wandb login`, or set the variable WANDB_MODE=offline and upload"
    with pytest.raises(InputError, match=said):
        meta_train(tiny(logger=["wandb"]), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_server_that_does_not_answer_is_refused_before_training(
    variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    variables.setenv("WANDB_API_KEY", "0" * 40)
    variables.setenv("WANDB_INIT_TIMEOUT", "1")
    began = time.monotonic()
    with pytest.raises(InputError, match=r"logger = 'wandb' does not start, mend it or leave it out: \w+: "):
        meta_train(tiny(logger=["wandb"]), tmp_path / "run", quiet=True)
    assert time.monotonic() - began < 20
    assert not rows(tmp_path / "run")
    meta_train(tiny(logger=["csv"]), tmp_path / "run", quiet=True)  # the folder takes a run
