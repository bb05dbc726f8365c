"""The run folder: who may write it, what it remembers, and how its metrics are read."""

import json
import os
import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import evaluation_of, files, tiny

from maml_envs import InputError
from maml_rl.config.rl import Config
from maml_rl.config.toml import load, parse_toml, to_toml
from maml_rl.machine.files import free_name
from maml_rl.machine.files import write as write_file
from maml_rl.runs.checkpoint import Checkpoint
from maml_rl.runs.evaluation import evaluations
from maml_rl.runs.folder import RunFolder, read_config, read_metrics
from maml_rl.runs.provenance import made_with

CONFIG = tiny()
ABOUT = {"python": "3"}


def write(run: Path, content: bytes) -> Path:
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_bytes(content)
    return run


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def free(folder: Path, *suffixes: str) -> str:
    with free_name(folder, "film", *suffixes) as file:
        return file.name


def test_a_free_name_is_free_under_all_its_suffixes(tmp_path: Path) -> None:
    assert free(tmp_path / "new", ".mp4", ".gif") == "film.mp4"
    (tmp_path / "film.gif").touch()
    assert free(tmp_path, ".mp4", ".gif") == "film_2.mp4"
    assert free(tmp_path, ".mp4") == "film.mp4"
    (tmp_path / "film_2.mp4").touch()
    assert free(tmp_path, ".mp4", ".gif") == "film_3.mp4"
    assert {path.name for path in tmp_path.iterdir()} == {"new", "film.gif", "film_2.mp4"}


def test_a_free_name_is_taken_at_once(tmp_path: Path) -> None:
    def take(number: int) -> str:
        with free_name(tmp_path, "evaluation", ".json") as file:
            assert {found.which for found in evaluations(tmp_path)} <= {"checkpoint"}  # not of one on its way
            write_file(file, evaluation_of([[0.0]]).to_json())
        return file.name

    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(take, range(64)))
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    assert len(set(names)) == 64


def test_a_free_name_is_given_back_where_nothing_was_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), free_name(tmp_path, "film", ".mp4"):
        raise OSError("full")
    assert not list(tmp_path.iterdir())


def test_read_metrics_gives_the_rows(tmp_path: Path) -> None:
    rows = read_metrics(write(tmp_path / "run", lines({"iteration": 0, "ok": True}, {"iteration": 1, "kl/inner": 0.5})))
    assert rows == [{"iteration": 0.0, "ok": 1.0}, {"iteration": 1.0, "kl/inner": 0.5}]
    assert all(type(value) is float for row in rows for value in row.values())
    assert read_metrics(write(tmp_path / "run", b"")) == []
    # whole, though its newline was never written
    assert read_metrics(write(tmp_path / "run", b'{"iteration": 1}\n{"iteration": 2}')) == [
        {"iteration": 1.0},
        {"iteration": 2.0},
    ]


@pytest.mark.parametrize("torn", [b"{", b'{"iteration": 2', b'{"iter', '{"é'.encode()[:-1], b"\xff"])
def test_a_torn_last_line_is_left_out(torn: bytes, tmp_path: Path) -> None:
    assert read_metrics(write(tmp_path / "run", lines({"iteration": 1}) + torn)) == [{"iteration": 1.0}]


@pytest.mark.parametrize(
    "bad", [b'{"iteration": 2', b"\xff", b"[1]", b"3", b'{"iteration": "x"}', b'{"iteration": null}']
)
@pytest.mark.parametrize("rest", [b"\n", b'\n{"iteration": 3}\n'])
def test_a_bad_line_is_named(bad: bytes, rest: bytes, tmp_path: Path) -> None:
    run = write(tmp_path / "run", lines({"iteration": 1}) + bad + rest)
    with pytest.raises(ValueError, match=r"run/metrics\.jsonl, line 2 (is not|has no iteration)"):
        read_metrics(run)


def test_a_missing_run_says_how_to_make_it(tmp_path: Path) -> None:
    run = tmp_path / "nothing"
    with pytest.raises(ValueError, match="does not exist") as caught:
        read_metrics(run)
    assert str(caught.value) == (f"{run}/metrics.jsonl does not exist; train first: maml-rl train CONFIG --out {run}")


def state(iteration: int) -> Checkpoint:
    return Checkpoint({"w": torch.full((2,), float(iteration))}, iteration, 10 * iteration, 0.0, to_toml(CONFIG), {})


def opened(path: Path, config: Config = CONFIG, resume: bool = True) -> closing[RunFolder]:
    return closing(RunFolder(path, config, resume, ABOUT).begin())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Five rows, and a checkpoint after three iterations: what a crash leaves."""
    path = tmp_path / "run"
    with opened(path) as folder:
        for i in range(5):
            folder.log({"iteration": i, "return/0": 1.5 * i}, {})
            if i < 3:
                folder.save("checkpoint.pt", state(i + 1))
    return path


def test_a_lost_configuration_is_that_of_the_checkpoint(run: Path) -> None:
    before = read_config(run)
    (run / "config.toml").unlink()
    with pytest.raises(InputError, match="already holds a run"), opened(run, resume=False):
        pass
    with pytest.raises(InputError, match="trained with another configuration"), opened(run, tiny(seed=9)):
        pass
    with opened(run) as folder:
        assert folder.checkpoint is not None
        assert folder.checkpoint.iteration == 3
    assert read_config(run) == before
    assert len(read_metrics(run)) == 3


def test_lost_metrics_are_missed_until_the_user_does_without(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    with (
        pytest.raises(InputError, match=r"has lost its metrics\.jsonl: bring it back, or make an empty one"),
        opened(run),
    ):
        pass
    (run / "metrics.jsonl").touch()
    with opened(run) as folder:
        folder.log({"iteration": 3}, {})
    assert [row["iteration"] for row in read_metrics(run)] == [3]


def scalars(run: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_run_is_refused_without_resume(run: Path) -> None:
    before = files(run)
    with pytest.raises(InputError, match="run already holds a run: continue it with --resume, or give another --out"):
        opened(run, resume=False)
    assert files(run) == before


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_in_which_nothing_ran_takes_another_run(resume: bool, tmp_path: Path) -> None:
    with opened(tmp_path / "run", resume=False):
        pass  # killed in its first iteration
    with opened(tmp_path / "run", tiny(seed=9), resume) as folder:
        assert folder.checkpoint is None
        folder.log({"iteration": 0, "return/0": 2.0}, {})
    assert read_config(tmp_path / "run") == tiny(seed=9)
    assert scalars(tmp_path / "run", "return/0") == [(0, 2.0)]
    with pytest.raises(InputError, match="already holds a run"):
        opened(tmp_path / "run", resume=False)


def test_a_name_that_is_not_in_utf_8_is_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path / "caf") + b"\xe9"))
    with pytest.raises(InputError, match=r"caf\\udce9' is not a name in UTF-8, .* PYTHONUTF8=1"):
        opened(path)
    assert not path.exists()


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    for resume in (False, True):
        with pytest.raises(InputError, match="is not empty and not a run folder: give another --out"):
            opened(tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(InputError, match="run is a file: give the name of a folder"):
        opened(tmp_path / "run")
    with pytest.raises(InputError, match="run is a file: give the name of a folder"):
        opened(tmp_path / "run" / "deeper")


def test_a_run_folder_takes_no_other_run(run: Path) -> None:
    before = files(run)
    for inside in (run / "s4", run / "runs" / "s4", run / ".." / "run" / "s4"):
        with pytest.raises(InputError, match=r"is in the run folder .*run, which no other run goes into"):
            opened(inside)
    assert files(run) == before


def test_a_run_goes_on_from_inside_its_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    with opened(Path()) as folder:
        assert folder.checkpoint is not None


def test_a_configuration_of_ones_own_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.toml").write_text('env = "navigation"\n')
    Path("metrics.jsonl").touch()
    with opened(Path("runs/x"), resume=False):
        pass
    with pytest.raises(InputError, match="is not empty and not a run folder"):
        opened(Path(), resume=False)


def test_an_empty_folder_will_do_and_so_will_one_in_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "a" / "b"):
        with opened(path, resume=False) as folder:
            assert folder.checkpoint is None
            assert read_config(path) == CONFIG


def test_one_writer_at_a_time(run: Path) -> None:
    with opened(run), pytest.raises(InputError, match="run is in use by another process"):
        opened(run)
    with opened(run) as folder:  # let go
        assert folder.checkpoint is not None


def others() -> list[tuple[str, Config]]:
    """The configuration changed in one key at a time."""
    found = []
    changes: dict[str, Any] = {
        "env": "half-cheetah-dir", "preset": "finn2017", "horizon": 6, "tasks": 3, "episodes": 3, "seed": 2,
        "discount": 0.5, "gae_lambda": 0.5, "bootstrap_on_truncation": True, "policy.hidden": [8, 8],
        "policy.activation": "relu", "policy.init_std": 0.5, "policy.min_std": 0.1, "inner.lr": 0.2, "inner.steps": 2,
        "inner.estimator": "dice", "inner.first_order": True, "outer.max_kl": 0.02, "outer.cg_iterations": 3,
        "outer.damping": 0.01, "outer.backtracks": 3, "outer.backtrack_ratio": 0.5, "outer.fisher_subsample": 1,
        "baseline.name": "none",
    }  # fmt: skip
    for key, value in changes.items():
        table, _, name = key.rpartition(".")
        found.append((key, tiny(**({table: {name: value}} if table else {name: value}))))
    return found


@pytest.mark.parametrize(("key", "config"), others(), ids=[key for key, _ in others()])
def test_another_configuration_is_refused_and_its_key_named(key: str, config: Config, run: Path) -> None:
    before = files(run)
    with pytest.raises(InputError, match="was trained with another configuration") as caught:
        opened(run, config)
    said = str(caught.value).split("\n")
    assert len(said) == 2
    assert re.fullmatch(rf"  {re.escape(key)}: .+ there, .+ now", said[1])
    assert files(run) == before
    with opened(run):  # the lock was let go
        pass


def test_all_differing_keys_are_named(run: Path) -> None:
    with pytest.raises(InputError) as caught:
        opened(run, tiny(seed=2, outer={"max_kl": 0.02, "damping": 0.01}, iterations=9))
    assert str(caught.value).split("\n")[1:] == [
        "  seed: 1 there, 2 now",
        "  outer.max_kl: 0.1 there, 0.02 now",
        "  outer.damping: 0.1 there, 0.01 now",
    ]


def test_a_key_of_a_table_that_came_or_went_is_named(run: Path) -> None:
    ranged = tiny(vector={"task_ranges": {"g": (1.0, 2.0)}})
    with pytest.raises(InputError, match=r"vector\.task_ranges\.g: None there, \(1\.0, 2\.0\) now"):
        opened(run, ranged)
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(
        text.replace("[config.vector.task_ranges]", "[config.vector.task_ranges]\ng = [1.0, 2.0]")
    )
    with pytest.raises(InputError, match=r"vector\.task_ranges\.g: \(1\.0, 2\.0\) there, None now"):
        opened(run, tiny())


def at_the_top(text: str, table: str = "") -> str:
    """A configuration in TOML as older versions saved it: all keys of [vector], before the first table."""
    text = text.replace(f"[{table}vector.task_ranges]\n", "").replace(f"[{table}vector]\n", "")
    return text.replace("tasks = 2\n", "workers = 0\nworker_timeout = 60.0\nvector_size = 8\ntasks = 2\n", 1).replace(
        f"[{table}policy]", f"[{table}task_ranges]\ng = [1.0, 2.0]\n\n[{table}policy]"
    )


def test_a_run_from_before_the_table_of_gymnasium_environments_goes_on(run: Path) -> None:
    config = tiny(vector={"vector_size": 8, "task_ranges": {"g": (1.0, 2.0)}})
    text = at_the_top((run / "config.toml").read_text(), "config.")
    (run / "config.toml").write_text(text)
    assert read_config(run) == load(run / "config.toml") == config
    assert parse_toml(at_the_top(to_toml(CONFIG)), "checkpoint.pt") == config
    with pytest.raises(InputError, match=r"vector\.task_ranges\.g: \(1\.0, 2\.0\) there, None now"):
        opened(run, CONFIG)
    with opened(run, config):
        pass
    assert "[config.vector]\nvector_size = 8\n" in (run / "config.toml").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"iterations": 99},
        {"device": "cpu"},
        {"threads": 2},
        {"evaluation": {"tasks": 7, "every": 1}},
        {"vector": {"workers": 2, "worker_timeout": 5.0, "vector_size": 8}},
    ],
)
def test_what_may_differ_is_taken_over(changes: dict[str, Any], run: Path) -> None:
    with opened(run, tiny(**changes)) as folder:
        assert folder.checkpoint is not None
        assert folder.checkpoint.iteration == 3
    assert read_config(run) == tiny(**changes)


@pytest.mark.parametrize("torn", ["", "{", '{"iteration": 5, "ret', '{"iteration": 5}', "\0\0\0\0"])
def test_metrics_are_cut_back_to_the_checkpoint(torn: str, run: Path) -> None:
    metrics = run / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole + torn)
    with opened(run) as folder:
        assert metrics.read_text().splitlines() == whole.splitlines()[:3]
        folder.log({"iteration": 3, "return/0": -1.0}, {})
    assert [row["return/0"] for row in read_metrics(run)] == [0.0, 1.5, 3.0, -1.0]


def test_a_row_whose_newline_is_missing_is_kept_whole(run: Path) -> None:
    (run / "metrics.jsonl").write_text("\n".join((run / "metrics.jsonl").read_text().splitlines()[:3]))
    with opened(run) as folder:
        folder.log({"iteration": 3}, {})
    assert [row["iteration"] for row in read_metrics(run)] == [0, 1, 2, 3]


def test_tensorboard_shows_what_metrics_jsonl_holds(run: Path) -> None:
    assert scalars(run, "return/0") == [(i, 1.5 * i) for i in range(5)]
    with opened(run) as folder:
        folder.log({"iteration": 3, "return/0": -1.0}, {})
    assert scalars(run, "return/0") == [(0, 0.0), (1, 1.5), (2, 3.0), (3, -1.0)]


def test_a_lost_checkpoint_is_not_a_new_beginning(run: Path) -> None:
    (run / "checkpoint.pt").rename(run / "checkpoint_previous.pt")
    before = files(run)
    with pytest.raises(InputError, match=r"has lost its checkpoint\.pt: rename .*checkpoint_previous\.pt"):
        RunFolder(run, CONFIG, True, {})
    assert files(run) == before


def test_a_run_without_a_checkpoint_begins_again(run: Path) -> None:
    (run / "checkpoint.pt").unlink()
    (run / "checkpoint_previous.pt").unlink()
    before = files(run)
    with pytest.raises(InputError, match=r"run has lost its checkpoint\.pt: bring it back, or give another --out"):
        opened(run)
    assert files(run) == before
    (run / "metrics.jsonl").write_bytes(lines({"iteration": 0}))  # killed before its first save
    with opened(run) as folder:
        assert folder.checkpoint is None
        folder.log({"iteration": 0, "return/0": 9.0}, {})
    assert read_metrics(run) == [{"iteration": 0.0, "return/0": 9.0}]
    assert scalars(run, "return/0") == [(0, 9.0)]


@pytest.mark.parametrize("name", ["checkpoint.pt", "config.toml", "metrics.jsonl"])
def test_a_damaged_run_is_refused_and_stays_as_it_is(name: str, run: Path) -> None:
    content = (run / name).read_bytes()
    (run / name).write_bytes(b"\xff" + content[1:])
    before = files(run)
    with pytest.raises(InputError, match=re.escape(str(run / name))):
        opened(run)
    assert files(run) == before
    (run / name).write_bytes(content)
    with opened(run):
        pass


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is not a run folder: it has no config.toml"),
        ("[config", "is damaged"),
        ("config = 3", "has no [config] table: it is not from this package"),
        ("[config]\nenv = 'navigation'\nouter.max_k = 1", "outer.max_k: there is no such key"),
    ],
)
def test_read_config_names_the_problem(content: str | None, problem: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.toml").write_text(content)
    with pytest.raises(InputError, match=re.escape(problem)) as caught:
        read_config(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_the_folder_says_what_it_was_made_with(tmp_path: Path) -> None:
    with closing(RunFolder(tmp_path, CONFIG, False, made_with(3, torch.device("cpu"))).begin()):
        pass
    about = tomllib.loads((tmp_path / "config.toml").read_text())["made_with"]
    assert about["packages"]["torch"] == version("torch")
    assert about["machine"]["threads"] == 3
    assert about["machine"]["cores"] >= 1
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", about["git_commit"])


def test_a_folder_of_run_folders_says_so(tmp_path: Path) -> None:
    with opened(tmp_path / "s1"):
        pass
    said = f"{tmp_path} is not a run folder: it has no config.toml; it holds run folders: give {tmp_path}/* for all of"
    with pytest.raises(InputError, match=re.escape(said)):
        read_config(tmp_path)
