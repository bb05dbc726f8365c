"""Run folders as they are read to compare and to draw: written here file by file, as training and evaluation do."""

import os
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from tiny import evaluation_of

from maml_envs import InputError
from maml_rl.results.runs import Run, read_runs, refuse_untrained


def folder(at: Path, metrics: str = '{"iteration": 0, "return/0": 1.5}\n', **config: Any) -> Path:
    at.mkdir()
    made_with = {"machine": {"cores": 2}}
    content = {"made_with": made_with, "config": config if "data" in config else {"env": "navigation"} | config}
    (at / "config.toml").write_text(tomli_w.dumps(content))
    (at / "metrics.jsonl").write_text(metrics)
    return at


def evaluation(run: Path, name: str, age: int, text: str | None = None, **fields: Any) -> None:
    """An evaluation file, so many seconds older than the others."""
    file = run / f"evaluation{name}.json"
    file.write_text(evaluation_of([[0.0]], **fields).to_json() if text is None else text)
    os.utime(file, (10_000 - age, 10_000 - age))


def test_everything_that_a_folder_holds(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", seed=3)
    evaluation(run, "", 0, env_steps=2)
    (found,) = read_runs([str(run)])
    assert (found.name, found.config.seed, found.config.env) == (str(run), 3, "navigation")
    assert found.metrics == [{"iteration": 0.0, "return/0": 1.5}]
    (only,) = found.evaluations
    assert (only, only.env_steps, only.file) == (found.evaluation(), 2, run / "evaluation.json")
    assert found.made_with == {"machine": {"cores": 2}}


def test_each_folder_once_in_their_order(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "b"), folder(tmp_path / "a")
    found = read_runs([one, two, str(one)])
    assert [run.name for run in found] == [str(one), str(two)]
    assert [run.evaluation() for run in found] == [None, None]


def test_the_newest_evaluation_counts_not_the_highest_number(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    evaluation(run, "_2", 5, iteration=2)
    evaluation(run, "_10", 9, iteration=10)
    evaluation(run, "", 3, iteration=1)
    (found,) = read_runs([run])
    assert [each.iteration for each in found.evaluations] == [1, 2, 10]
    assert found.evaluation() is found.evaluations[0]


def test_evaluations_of_other_parameters_and_tasks_are_passed_over(tmp_path: Path) -> None:
    run, random = folder(tmp_path / "run"), folder(tmp_path / "random", metrics="", method="random")
    for each in (run, random):
        evaluation(each, "", 9, iteration=1, which="checkpoint", split="in")
        evaluation(each, "_2", 5, iteration=2, which="best", split="in")
        evaluation(each, "_3", 1, iteration=3, which="checkpoint", split="out")

    runs = read_runs([run, random])

    def read(*kind: str) -> list[int | None]:
        found = [each.evaluation(*kind) for each in runs]
        return [each and each.iteration for each in found]

    assert read() == [1, 1]
    assert read("best") == [2, 1]  # a policy that is not trained has no best
    assert read("checkpoint", "out") == [3, 3]
    assert read("initial", "out") == [None, 3]


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    evaluation(run, "_2", 0, text='{"returns": [1.0')
    with pytest.raises(InputError, match=r"run/evaluation_2\.json is damaged: .*; evaluate the run again"):
        read_runs([run])
    evaluation(run, "_2", 0, text="[1.0]")
    with pytest.raises(InputError, match=r"run/evaluation_2\.json is not an evaluation of this package"):
        read_runs([run])


def test_what_is_no_run_of_this_kind_is_refused(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    with pytest.raises(InputError, match="nothing to plot: give one or more run folders"):
        read_runs([])
    few = folder(tmp_path / "few", data="sinusoid")
    with pytest.raises(InputError, match=r"run is of meta-reinforcement learning; this is for few-shot learning"):
        read_runs([few, run])
    with pytest.raises(InputError, match=r"few is of few-shot learning; this is for meta-reinforcement learning"):
        read_runs([run, few])
    with pytest.raises(InputError, match=r"there is no run folder .*nowhere: train first"):
        read_runs([run, tmp_path / "nowhere"])


def test_a_run_without_a_row_is_named_with_the_command(tmp_path: Path) -> None:
    done, begun = folder(tmp_path / "done"), folder(tmp_path / "begun", metrics="")
    runs: list[Run] = read_runs([done, begun])
    refuse_untrained(runs[:1], "iteration")
    with pytest.raises(InputError, match=r"begun has no finished iteration yet: train on with --resume --out .*begun$"):
        refuse_untrained(runs, "iteration")
