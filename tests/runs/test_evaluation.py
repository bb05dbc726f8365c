"""The file of an evaluation: what earlier versions wrote is read, and what is none is refused in words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import evaluation_of

from maml_envs import InputError
from maml_rl import Evaluation
from maml_rl.runs.evaluation import evaluations, latest, read_evaluation
from maml_rl.runs.measures import MEASURES

OLD_RETURNS: dict[str, Any] = {
    "tasks": [[0.5, 0.0], [1.5, 0.0]], "returns": [[[1.0, 3.0], [5.0, 7.0]], [[0.0, 0.0], [1.0, 1.0]]],
    "mean": [1.0, 3.5], "ci95": [1.96, 4.9], "split": "out", "steps": 1, "which": "best", "iteration": 7, "lr": [0.1],
    "env_steps": 80, "best": 9.5, "success": [[0.0, 1.0], [0.5, 0.5]], "tuned": True,
}  # fmt: skip
OLD_ERRORS: dict[str, Any] = {
    "values": {"error": [[4.0, 2.0, 1.0], [2.0, 1.0, 50.0]]}, "mean": {"error": [3.0, 1.5, 25.5]},
    "ci95": {"error": [1.96, 0.98, 48.02]}, "median": {"error": [3.0, 1.5, 25.5]},
    "trimmed_mean": {"error": [3.0, 1.5, 25.5]}, "diverged": 0.5, "references": {"predicting 0": 4.25}, "lr": 0.02,
    "shots": 5, "which": "initial", "iteration": 0,
}  # fmt: skip


def read(content: Any, tmp_path: Path) -> Evaluation:
    file = tmp_path / "evaluation.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_evaluation(file)


def test_returns_of_version_1(tmp_path: Path) -> None:
    found = read(OLD_RETURNS, tmp_path)
    for name in ("tasks", "returns", "mean", "lr", "success"):
        np.testing.assert_array_equal(getattr(found, name), OLD_RETURNS[name])
    assert found.ci95 == pytest.approx([1.96, 4.9])
    for name in ("split", "steps", "which", "iteration", "env_steps", "best", "tuned"):
        assert getattr(found, name) == OLD_RETURNS[name]
    assert (found.measure, found.shots, found.diverged, found.references) == ("return", None, 0, {})
    np.testing.assert_array_equal(found.mean_success(), [0.25, 0.75])
    first = {key: OLD_RETURNS[key] for key in ("tasks", "returns", "mean", "ci95", "split", "steps", "lr", "env_steps")}
    oldest = read(first, tmp_path)
    assert (oldest.which, oldest.iteration, oldest.best, oldest.success, oldest.tuned) == (
        "checkpoint", None, None, None, False
    )  # fmt: skip


def test_few_shot_learning_of_version_1(tmp_path: Path) -> None:
    found = read(OLD_ERRORS, tmp_path)
    np.testing.assert_array_equal(found.values["error"], OLD_ERRORS["values"]["error"])
    for name in ("mean", "ci95", "median", "trimmed_mean"):
        assert getattr(found, name) == pytest.approx(OLD_ERRORS[name]["error"])
    for name in ("diverged", "references", "shots", "which", "iteration"):
        assert getattr(found, name) == OLD_ERRORS[name]
    assert (found.lr.tolist(), found.steps, found.split, found.tasks) == ([0.02, 0.02], 2, "in", None)
    unknown = read({key: value for key, value in OLD_ERRORS.items() if key != "iteration"}, tmp_path)
    assert unknown.iteration is None


@pytest.mark.parametrize("old", [OLD_RETURNS, OLD_ERRORS], ids=["returns", "errors"])
def test_what_was_read_is_written_in_version_2_and_read_again(old: dict[str, Any], tmp_path: Path) -> None:
    found = read(old, tmp_path)
    content = json.loads(found.to_json())
    assert content["version"] == 2
    assert list(content["values"]) == list(found.values)
    assert read(content, tmp_path).to_json() == found.to_json()


def test_a_measure_by_its_name() -> None:
    found = evaluation_of([[0.5, 1.0], [0.0, 1.0]], "accuracy")
    found.values["accuracy_one_by_one"] = np.array([[0.25, 0.5], [0.25, 1.0]])
    assert found.measure == "accuracy"
    assert found.mean.tolist() == [0.25, 1.0]
    assert found.of("accuracy_one_by_one").mean.tolist() == [0.25, 0.75]
    assert set(found.values) < set(MEASURES)


def test_the_newest_first(tmp_path: Path) -> None:
    assert evaluations(tmp_path) == ()
    (tmp_path / "evaluation_2.json").touch()  # on its way
    (tmp_path / "evaluation.json").write_text(evaluation_of([[1.0]]).to_json())
    (only,) = evaluations(tmp_path)
    assert only.file == tmp_path / "evaluation.json"
    assert latest((only,)) is only
    assert latest((only,), "best") is None
    assert latest((only,), split="out") is None


def changed(**fields: Any) -> dict[str, Any]:
    return json.loads(evaluation_of([[1.0, 2.0]]).to_json()) | fields


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"values": ', "is damaged: "),
        ("[1]", "is not an evaluation of this package"),
        ({"mean": [1.0]}, "is not an evaluation of this package"),
        (changed(version=3), "has version 3, this package reads up to 2: update maml_rl"),
        (changed(values={}), "values are not those of each measure"),
        (changed(values={"rewards": [[1.0, 2.0]]}), "rewards is none of the measures return, success, error"),
        (changed(values={"return": [[1.0, 2.0]]}), "return is not a number for each of its tasks, steps, episodes"),
        (changed(values={"error": [[1.0, "2"]]}), "error is not a number for each of its tasks, steps"),
        (changed(values={"error": [[1.0, None]]}), "error is not a number for each of its tasks, steps"),
        (changed(values={"error": [[1.0, 2.0], [1.0]]}), "error is not a number for each of its tasks, steps"),
        (changed(values={"error": [[1.0, 2.0]], "accuracy": [[1.0]]}), "error and accuracy are not of the same tasks"),
        (changed(lr=[0.1, 0.2]), "lr or tasks are not those of 1 tasks and 1 steps"),
        (changed(tasks=[[0.0], [1.0]]), "lr or tasks are not those of 1 tasks and 1 steps"),
        (changed(which=3), "which is 3"),
        (changed(shots="five"), "shots is 'five'"),
        (changed(references={"a": "b"}), "references are not numbers"),
        ({"version": 2, "values": {"error": [[1.0]]}, "lr": []}, "it has no which"),
        ({key: value for key, value in OLD_RETURNS.items() if key != "lr"}, "it has no lr"),
        (OLD_ERRORS | {"values": {"error": [1.0]}}, "values are not those of each measure, task and step"),
    ],
)
def test_what_is_no_evaluation_is_named(content: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(content, tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "evaluation.json"))
    assert said in str(caught.value)
    assert ("evaluate the run again" in str(caught.value)) != ("update" in said)
