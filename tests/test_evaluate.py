"""Evaluation: the numbers in evaluation.json, what decides them, and that nothing measured is overwritten."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import files, tiny

import maml_rl
from maml_envs import InputError
from maml_rl import Evaluation, meta_train
from maml_rl.evaluate import load_learner
from maml_rl.rl.held_out import rate_factors
from maml_rl.runs import checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return meta_train(tiny(iterations=3), tmp_path_factory.mktemp("evaluate") / "run", quiet=True)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def written(result: Evaluation) -> Path:
    assert result.file is not None
    return result.file


def as_lists(result: Evaluation) -> dict[str, Any]:
    """Its fields in their order, without the file, as JSON has them."""
    fields = {name: value for name, value in vars(result).items() if name != "file"}
    values = {name: array.tolist() for name, array in result.values.items()}
    lists = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}
    return {"version": 2} | lists | {"values": values}


def test_the_file_holds_what_is_returned_and_the_means_follow_from_its_returns(run: Path) -> None:
    result = maml_rl.evaluate(run, tasks=4, steps=3, episodes=5)
    assert result.file == run / "evaluation.json"
    content = json.loads(result.file.read_text())
    assert content == as_lists(result)
    returns = np.array(content["values"]["return"])
    np.testing.assert_array_equal(returns, result.returns)
    assert returns.shape == (4, 4, 5)  # tasks, k, episodes
    per_task = returns.mean(-1)
    assert result.mean == pytest.approx(per_task.mean(0), abs=1e-12)
    assert result.ci95 == pytest.approx(1.96 * per_task.std(0, ddof=1) / math.sqrt(4), abs=1e-12)
    assert (content["split"], result.steps) == ("in", 3)
    assert content["lr"] == [0.1, 0.05, 0.05]
    assert np.array(content["tasks"]).shape == (4, 2)
    assert 0 < content["env_steps"] <= 4 * 4 * 5 * 5
    assert len(set(returns.ravel())) == returns.size  # fresh episodes everywhere


def test_returns_are_sums_of_rewards(tmp_path: Path) -> None:
    run = meta_train(tiny(env="probes:Constant", horizon=3, iterations=1), tmp_path / "run", quiet=True)
    result = maml_rl.evaluate(run, tasks=5, steps=1, episodes=2)
    for (task,), returns in zip(result.tasks, result.returns, strict=True):
        np.testing.assert_allclose(returns, np.full((2, 2), 3 * task), rtol=1e-6)
    assert result.mean == pytest.approx([3 * np.mean(result.tasks)] * 2, rel=1e-6)
    assert result.env_steps == 5 * 2 * 2 * 3


@pytest.mark.parametrize(("steps", "expected"), [(0, []), (1, [1.0]), (2, [1.0, 0.5]), (4, [1.0, 0.5, 0.5, 0.5])])
def test_the_rate_after_the_first_step(steps: int, expected: list[float]) -> None:
    assert rate_factors(tiny(inner={"lr": 0.2}), steps) == expected
    shrunk = rate_factors(tiny(inner={"lr": 0.2}, evaluation={"lr_after_first_step": 1.0}), steps)
    assert shrunk == [1.0] * steps


@pytest.mark.parametrize(("method", "expected"), [("maml", [1.0, 1.0, 0.5]), ("pretrained", [1.0, 0.5, 0.5])])
def test_a_rate_is_whole_for_the_steps_trained_with(method: str, expected: list[float]) -> None:
    assert rate_factors(tiny(method=method, inner={"steps": 2}), 3) == expected


def test_the_configuration_gives_the_counts(run: Path) -> None:
    result = maml_rl.evaluate(run)
    assert np.array(result.returns).shape == (3, 3, 2)


def test_a_second_evaluation_gets_a_number(run: Path) -> None:
    result = maml_rl.evaluate(run)
    first = written(result)
    content = first.read_bytes()
    paths = [written(maml_rl.evaluate(run)) for _ in range(2)]
    assert [path.name for path in paths] == ["evaluation_2.json", "evaluation_3.json"]
    assert [path.read_bytes() for path in (first, *paths)] == [content] * 3  # the same run, the same numbers
    other = maml_rl.evaluate(run, episodes=3)
    assert written(other).name == "evaluation_4.json"
    assert not np.array_equal(other.returns, result.returns)
    assert first.read_bytes() == content


def test_more_steps_continue_fewer(run: Path) -> None:
    few, many = (maml_rl.evaluate(run, steps=steps) for steps in (1, 3))
    np.testing.assert_array_equal(many.returns[:, :2], few.returns)


def test_no_steps_is_the_return_before_adaptation(run: Path) -> None:
    none, one = (maml_rl.evaluate(run, steps=steps) for steps in (0, 1))
    assert (len(none.lr), none.steps) == (0, 0)
    np.testing.assert_array_equal(none.mean, one.mean[:1])


def test_a_task_is_adapted_to_alone(tmp_path: Path) -> None:
    run = meta_train(tiny(env="probes:Target", horizon=1, iterations=1), tmp_path / "run", quiet=True)
    alone, among = (maml_rl.evaluate(run, tasks=tasks) for tasks in (2, 6))
    np.testing.assert_array_equal(among.tasks[:2], alone.tasks)
    assert np.allclose(among.returns[:2], alone.returns, rtol=1e-5)
    assert not np.allclose(among.returns[2:4], alone.returns, rtol=1e-2)  # the same tasks, but other noise


def test_one_task_has_no_interval(run: Path) -> None:
    result = maml_rl.evaluate(run, tasks=1)
    assert result.ci95 is None
    assert np.isfinite(result.mean).all()


def test_held_out_tasks_do_not_depend_on_the_seed(run: Path, tmp_path: Path) -> None:
    other = meta_train(tiny(seed=2), tmp_path / "other", quiet=True)
    a, b = maml_rl.evaluate(run), maml_rl.evaluate(other)
    np.testing.assert_array_equal(a.tasks, b.tasks)
    assert not np.array_equal(a.returns, b.returns)


def test_tasks_beyond_the_distribution(run: Path) -> None:
    inside, outside = (maml_rl.evaluate(run, tasks=20, split=split) for split in ("in", "out"))
    assert (inside.split, outside.split) == ("in", "out")
    assert np.abs(inside.tasks).max() <= 0.5
    assert np.abs(outside.tasks).max(1).min() > 0.5


def test_validation_tasks_are_others_of_the_same_distribution(run: Path, tmp_path: Path) -> None:
    other = meta_train(tiny(seed=2), tmp_path / "other", quiet=True)
    chosen, again = (maml_rl.evaluate(each, tasks=20, split="validation") for each in (run, other))
    reported = maml_rl.evaluate(run, tasks=20)
    assert chosen.split == "validation"
    np.testing.assert_array_equal(chosen.tasks, again.tasks)
    assert np.abs(chosen.tasks).max() <= 0.5
    assert not set(map(tuple, chosen.tasks.tolist())) & set(map(tuple, reported.tasks.tolist()))


def test_the_best_parameters_can_be_evaluated(run: Path) -> None:
    state = checkpoint.load(run / "best.pt")
    checkpoint.save(run / "best.pt", state._replace(theta={name: value + 1 for name, value in state.theta.items()}))
    last, best = (maml_rl.evaluate(run, which=which) for which in ("checkpoint", "best"))
    np.testing.assert_array_equal(last.tasks, best.tasks)
    assert not np.array_equal(last.returns, best.returns)
    (run / "best.pt").replace(run / "checkpoint.pt")
    assert as_lists(maml_rl.evaluate(run)) | {"which": "best"} == as_lists(best)


def test_evaluation_changes_nothing_else(run: Path) -> None:
    before = files(run)
    result = maml_rl.evaluate(run)
    after = files(run)
    assert after.pop(written(result).name)
    assert after == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"tasks": 0}, r"evaluation\.tasks: .*greater than or equal to 1 \(given: 0\)"),
        ({"episodes": -1}, r"evaluation\.episodes: .*greater than or equal to 1 \(given: -1\)"),
        ({"steps": -1}, r"evaluation\.steps: .*greater than or equal to 0 \(given: -1\)"),
        ({"split": "beyond"}, "no held-out tasks with split='beyond'"),
        ({"shots": 5}, "--shots 5 has no effect on meta-RL, which adapts to episodes: leave it out"),
        ({"which": "worst"}, r"there is no checkpoint .*worst\.pt"),
    ],
)
def test_what_cannot_be_evaluated_is_named(arguments: dict[str, object], problem: str, run: Path) -> None:
    before = files(run)
    with pytest.raises(InputError, match=problem):
        maml_rl.evaluate(run, **arguments)
    assert files(run) == before


def test_a_family_without_tasks_beyond_says_so(tmp_path: Path) -> None:
    run = meta_train(tiny(env="probes:Target", horizon=1, iterations=1), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="Target has no held-out tasks with split='out'"):
        maml_rl.evaluate(run, split="out")


def test_what_is_no_run_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no run folder .*nothing: train first"):
        maml_rl.evaluate(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"is not a run folder: it has no config\.toml"):
        maml_rl.evaluate(tmp_path)
    with pytest.raises(InputError, match=r"checkpoint\.pt is a file: give the run folder"):
        maml_rl.evaluate(run / "checkpoint.pt")
    (run / "checkpoint.pt").unlink()
    with pytest.raises(InputError, match=r"there is no checkpoint .*checkpoint\.pt"):
        maml_rl.evaluate(run)


def test_a_run_of_another_machine_is_loaded_where_one_likes(run: Path) -> None:
    state = checkpoint.load(run / "checkpoint.pt")
    elsewhere = state.config.replace('device = "auto"', 'device = "cuda"')
    assert elsewhere != state.config
    checkpoint.save(run / "checkpoint.pt", state._replace(config=elsewhere))
    learner, _ = load_learner(run, changes={"device": "cpu"})
    assert learner.device.type == "cpu"
