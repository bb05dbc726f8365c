"""Few-shot evaluation: every number by hand, transduction and its absence, and which tasks choose a rate."""

import importlib
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_shot import BLOBS_RUN, learner_of, tiny
from torch import Tensor

from maml_envs import InputError
from maml_rl.core.statistics import trimmed_mean
from maml_rl.core.tree import Params, map_tensors
from maml_rl.evaluate import evaluate, load_learner, summarise_few_shot
from maml_rl.runs import checkpoint
from maml_rl.runs.evaluation import evaluations
from maml_rl.supervised import Examples, Sinusoid, TaskBatch, models
from maml_rl.supervised.learner import FewShotLearner
from maml_rl.supervised.measures import PERMUTATION_SEED, RATES, _permutations, adapted_errors, measures, tune
from maml_rl.train import meta_train

MODULE: Any = importlib.import_module("maml_rl.supervised.measures")
BLOBS: dict[str, Any] = {"data": "few_shot:Blobs", "model": {"hidden": [8], "batch_norm": True}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return meta_train(tiny(outer={"lr": 0.1}), tmp_path_factory.mktemp("evaluate") / "run", quiet=True)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def errors_by_hand(learner: FewShotLearner, theta: Params, batch: TaskBatch, steps: int, lr: float) -> np.ndarray:
    """The query error of each task after 0, 1, ... steps of plain SGD on its support set."""
    found = []
    for k in range(len(batch.query.targets)):
        task = map_tensors(lambda x, k=k: x[k], batch)
        own = {name: value.clone().requires_grad_() for name, value in theta.items()}
        optimiser, seen = torch.optim.SGD(own.values(), lr=lr), []
        for _ in range(steps + 1):
            outputs = models.predict(learner.module, own, task.query.inputs)
            seen.append(float((outputs - task.query.targets).square().mean().detach()))
            optimiser.zero_grad()
            learner.loss(own, task.support).backward()
            optimiser.step()
        found.append(seen)
    return np.array(found)


def test_the_error_of_each_task_by_hand(run: Path) -> None:
    result = evaluate(run, tasks=5, steps=3)
    learner, theta = load_learner(run)
    expected = errors_by_hand(learner, theta, learner.data.held_out_tasks(5), 3, 0.01)
    np.testing.assert_allclose(result.values["error"], expected, rtol=1e-4)
    assert result.mean == pytest.approx(expected.mean(0), rel=1e-4)
    assert result.ci95 is not None
    assert result.ci95 == pytest.approx(1.96 * expected.std(0, ddof=1) / 5**0.5, rel=1e-3)
    assert result.median == pytest.approx(np.median(expected, 0), rel=1e-4)
    assert result.references == learner.data.references(learner.data.held_out_tasks(5))
    assert (result.lr.tolist(), result.shots, result.which, result.diverged) == ([0.01] * 3, 4, "checkpoint", 0.0)
    assert (result.split, result.tuned, result.tasks, result.success) == ("in", False, None, None)
    assert result.file == run / "evaluation.json"
    content = json.loads(result.file.read_text())
    np.testing.assert_array_equal(content["values"]["error"], result.values["error"])
    assert (content["version"], content["iteration"], content["references"]) == (2, 4, result.references)


def test_the_configuration_has_the_numbers_that_are_not_given(run: Path) -> None:
    assert np.array(evaluate(run).values["error"]).shape == (6, 3)


def test_a_second_evaluation_is_numbered(run: Path) -> None:
    files = [evaluate(run, tasks=2).file for _ in range(3)]
    names = [file.name for file in files if file]
    assert names == ["evaluation.json", "evaluation_2.json", "evaluation_3.json"]


def test_more_shots_at_test(run: Path) -> None:
    result = evaluate(run, tasks=4, steps=2, shots=7)
    assert result.shots == 7
    learner, theta = load_learner(run, changes={"shots": 7})
    batch = learner.data.held_out_tasks(4)
    assert batch.support.inputs.shape == (4, 7, 1)
    np.testing.assert_allclose(result.values["error"], errors_by_hand(learner, theta, batch, 2, 0.01), rtol=1e-4)


def test_the_configurations_own_shots_at_test(tmp_path: Path) -> None:
    run = meta_train(tiny(evaluation={"shots": 2}), tmp_path / "run", quiet=True)
    assert (evaluate(run).shots, evaluate(run, shots=3).shots) == (2, 3)


def test_which_parameters(run: Path) -> None:
    learner, theta = load_learner(run)
    state = checkpoint.load(run / "best.pt")
    shifted = {name: value + 1 for name, value in state.theta.items()}
    checkpoint.save(run / "best.pt", state._replace(theta=shifted))
    batch = learner.data.held_out_tasks(3)
    starts = {"checkpoint": theta, "initial": learner.initial_params(), "best": shifted}
    for which, params in starts.items():
        result = evaluate(run, tasks=3, steps=1, which=which)
        assert result.which == which
        assert result.iteration == {"checkpoint": 4, "initial": 0, "best": state.iteration}[which]
        np.testing.assert_allclose(result.values["error"], errors_by_hand(learner, params, batch, 1, 0.01), rtol=1e-3)


def test_summaries_by_hand() -> None:
    values = np.arange(40.0)[::-1, None] * [1.0, 2.0]
    values[0] = 1e6
    found = summarise_few_shot({"error": values}, {"r": 1.5}, 0.1, 3)
    assert found.trimmed_mean == pytest.approx([np.arange(2, 38).mean(), 2 * np.arange(2, 38).mean()])
    assert found.median == pytest.approx([19.5, 39])
    assert found.mean[0] == pytest.approx((sum(range(39)) + 1e6) / 40)
    assert (found.references, found.lr.tolist(), found.shots) == ({"r": 1.5}, [0.1], 3)
    two = summarise_few_shot({"accuracy": np.array([[0.0], [1.0]])}, {}, 0.1, 1)
    assert two.ci95 == [pytest.approx(1.96 * 0.5**0.5 / 2**0.5)]
    assert two.diverged == 0


@pytest.mark.parametrize(("tasks", "left_out"), [(19, 0), (20, 1), (39, 1), (100, 5)])
def test_a_trimmed_mean_leaves_out_a_twentieth_at_each_end(tasks: int, left_out: int) -> None:
    values = np.full((tasks, 1), 3.0)
    values[:left_out], values[-left_out or tasks :] = -1e9, np.nan
    values[::-1].sort(0)
    assert trimmed_mean(values.T) == pytest.approx(3)
    values = np.full((tasks, 1), 3.0)
    values[: left_out + 1] = 3 + tasks - 2 * left_out
    assert trimmed_mean(values.T) == pytest.approx(4)  # one more than that counts


def test_a_task_that_diverged_is_counted_and_named() -> None:
    values = np.ones((8, 3))
    values[0, 2], values[1, 2], values[2, 2], values[3, 2] = np.nan, np.inf, 10.1, 9.9
    values[4] = [1e-9, 0, 5e-6]  # almost no error before: not ten times a millionth
    values[5, 1] = np.inf  # and came back
    values[6, 2] = 1e300
    found = summarise_few_shot({"error": values}, {}, 0.1, 1)  # a warning is an error
    assert found.diverged == pytest.approx(4 / 8)
    assert found.median[0] == 1
    content = json.loads(found.to_json())
    assert content["values"]["error"][5][1] == float("inf")
    assert found.mean[1] == float("inf")
    assert np.isnan(found.ci95[1])


def test_one_task_has_no_interval(run: Path) -> None:
    result = evaluate(run, tasks=1)
    assert result.ci95 is None
    assert "NaN" not in (run / "evaluation.json").read_text()


def test_accuracy_by_hand() -> None:
    """With a head of zeros but for its shift, every query is called class 2."""
    learner = learner_of(**BLOBS)
    theta = learner.initial_params()
    theta["4.weight"], theta["4.bias"] = torch.zeros(3, 8), torch.tensor([0.0, 0.0, 1.0])
    task = map_tensors(lambda x: x[0], learner.training_tasks(0))
    task = task._replace(query=Examples(task.query.inputs[:4], torch.tensor([2, 0, 2, 2])))
    found = {name: float(value) for name, value in measures(learner, theta, task).items()}
    assert found == {"accuracy": 0.75, "accuracy_one_by_one": 0.75}


def outputs_of(learner: FewShotLearner, params: Params, task: TaskBatch, patch: pytest.MonkeyPatch) -> list[Tensor]:
    """What each call of ``_right`` is given: outputs with all queries in one batch, and one by one."""
    given: list[Tensor] = []
    with patch.context() as inside:
        inside.setattr(MODULE, "_right", lambda outputs, targets: given.append(outputs) or torch.tensor(0.0))
        measures(learner, params, task)
    return given


@pytest.mark.parametrize("kind", ["perceptron", "convolutional"])
def test_one_query_at_a_time_does_not_depend_on_the_others(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(**BLOBS | {"model": {"name": kind, "hidden": [8], "batch_norm": True}})
    theta = learner.initial_params()
    task = map_tensors(lambda x: x[0], learner.training_tasks(0))
    together, alone = outputs_of(learner, theta, task, monkeypatch)
    for k, query in enumerate(task.query.inputs):
        by_hand = models.predict(learner.module, theta, torch.cat([task.support.inputs, query[None]]))[-1]
        torch.testing.assert_close(alone[k], by_hand)
    changed = task.query.inputs.clone()
    changed[1:] = 5 * torch.rand(changed[1:].shape, generator=torch.Generator().manual_seed(0)) - 1
    others = task._replace(query=Examples(changed, task.query.targets))
    together_with_others, alone_with_others = outputs_of(learner, theta, others, monkeypatch)
    assert torch.equal(alone_with_others[0], alone[0])
    assert not torch.allclose(together_with_others[0], together[0], atol=1e-3)


def test_without_batch_norm_there_is_one_accuracy() -> None:
    learner = learner_of(data="few_shot:Blobs", model={"batch_norm": False})
    assert list(adapted_errors(learner, learner.initial_params(), 2, 1, "test")) == ["accuracy"]


def test_a_rate_is_chosen_on_validation_tasks(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, theta = load_learner(run)
    splits = []
    held_out = type(learner.data).held_out_tasks

    def spy(data: Any, count: int, split: str = "test") -> TaskBatch:
        splits.append(split)
        return held_out(data, count, split)

    monkeypatch.setattr(type(learner.data), "held_out_tasks", spy)
    chosen = tune(learner, theta, 40, 2)
    assert set(splits) == {"validation"}
    by_hand = {
        rate: trimmed_mean(errors_by_hand(learner, theta, held_out(learner.data, 40, "validation"), 2, rate).T)[-1]
        for rate in RATES[:5]
    }
    assert chosen == min(by_hand, key=lambda rate: by_hand[rate])
    assert chosen > RATES[0]
    result = evaluate(run, tasks=40, steps=2, tune_lr=True)
    assert (result.lr.tolist(), result.tuned) == ([chosen] * 2, True)
    expected = errors_by_hand(learner, theta, held_out(learner.data, 40, "test"), 2, chosen)
    np.testing.assert_allclose(result.values["error"], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("costs", "best"),
    [([3, 2, 1, 4, 5, 6, 7], 0.01), ([3, 2, np.nan, 1, 0.5, np.inf, np.nan], 0.1)],
)
def test_the_best_of_the_rates(costs: list[float], best: float, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of()
    for name, sign in (("error", 1), ("accuracy", -1)):
        table = {rate: np.full((40, 3), sign * cost) for rate, cost in zip(RATES, costs, strict=True)}
        for values in table.values():
            values[:, :-1] = 0  # only the last step counts
        monkeypatch.setattr(MODULE, "adapted_errors", lambda *a, name=name, table=table: {name: table[a[-1]]})
        assert tune(learner, {}, 40, 2) == best


def test_a_tuned_rate_is_for_what_adapts() -> None:
    learner = learner_of(inner={"adapt": "last"})
    theta = learner.initial_params()
    found = adapted_errors(learner, theta, 4, 2, "test", 0.3)
    same = learner_of(inner={"adapt": "last", "lr": 0.3})
    np.testing.assert_array_equal(found["error"], adapted_errors(same, theta, 4, 2, "test")["error"])
    everything = learner_of(inner={"lr": 0.3})
    assert not np.allclose(found["error"], adapted_errors(everything, theta, 4, 2, "test")["error"])


def test_learned_rates_are_used_and_cannot_be_tuned(tmp_path: Path) -> None:
    run = meta_train(tiny(inner={"learn_lr": True}, outer={"lr": 0.1}), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="has learned its rates: there is none to tune"):
        evaluate(run, tune_lr=True)
    learner, theta = load_learner(run)
    params = {name: value for name, value in theta.items() if not name.startswith("lr.")}
    task = learner.data.held_out_tasks(1)
    one = map_tensors(lambda x: x[0], task)
    gradients = torch.func.grad(learner.loss)(params, one.support)
    moved = {name: value - theta[f"lr.{name}"] * gradients[name] for name, value in params.items()}
    expected = float(learner.loss(moved, one.query))
    assert evaluate(run, tasks=1, steps=1).values["error"][0][1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"tasks": 0},
            r"evaluate .* is not a valid configuration:\n  evaluation\.tasks: .* 1 \(given: 0\)",
        ),
        ({"steps": -1}, r"evaluation\.steps: .*greater than or equal to 0"),
        ({"shots": 0}, r"evaluation\.shots: .*greater than or equal to 1"),
        ({"which": "last"}, r"there is no checkpoint .*last\.pt"),
        ({"episodes": 3}, "--episodes 3 has no effect on few-shot learning: leave it out, or give --shots"),
        ({"split": "out"}, "--split out has no effect on few-shot learning, whose tasks are of one kind: leave it out"),
    ],
)
def test_bad_numbers_write_nothing(arguments: dict[str, Any], problem: str, run: Path) -> None:
    before = sorted(run.iterdir())
    with pytest.raises(InputError, match=problem):
        evaluate(run, **arguments)
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize("changes", [{}, BLOBS], ids=["sinusoid", "classes"])
def test_another_seed_draws_other_held_out_tasks(changes: dict[str, Any], tmp_path: Path) -> None:
    run = meta_train(tiny(**changes), tmp_path / "run", quiet=True)
    usual, again, other = (evaluate(run, seed=seed) for seed in (None, 0, 7))
    assert np.array_equal(usual.per_task, again.per_task)
    assert not np.array_equal(usual.per_task, other.per_task)
    assert (usual.seed, other.seed) == (0, 7)
    assert json.loads(other.file.read_text())["seed"] == 7
    learner, _ = load_learner(run)
    drawn = [learner.data.held_out_tasks(3, split) for split in ("test", "validation")]
    learner.data.held_out_seed = 7
    moved = [learner.data.held_out_tasks(3, split) for split in ("test", "validation")]
    assert not torch.equal(drawn[0].support.inputs, moved[0].support.inputs)
    assert torch.equal(drawn[1].support.inputs, moved[1].support.inputs)  # what chooses stays the same


def test_the_numbers_of_careful_steps_are_said_in_the_file(run: Path) -> None:
    assert (evaluate(run).backtracks, evaluate(run, backtracks=3).backtracks) == (0, 3)
    assert evaluations(run)[0].backtracks == 3


def test_no_best_parameters_before_they_are_judged(tmp_path: Path) -> None:
    run = meta_train(tiny(evaluation={"every": 6}), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match=r"there is no .*best.pt: .* take the last: --which checkpoint"):
        evaluate(run, which="best")


def test_a_seed_that_changes_nothing_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = torch.Generator()
    monkeypatch.setattr(Sinusoid, "held_out_generator", lambda *_: fixed.manual_seed(1))
    with pytest.raises(InputError, match=r"evaluation.seed = 3 has no effect: Sinusoid.held_out_tasks draws the same"):
        evaluate(run, seed=3)


@pytest.mark.parametrize("shared", [False, True])
def test_spread_over_label_permutations(shared: bool, tmp_path: Path) -> None:
    """By hand, and none at all where all classes start from the same weights."""
    model = {"hidden": [8], "shared_head": shared}
    run = meta_train(tiny(**BLOBS_RUN, model=model, inner={"lr": 0.5}), tmp_path / "run", quiet=True)
    found = evaluate(run, permutations=4)
    spread = found.values["accuracy_spread"]
    assert spread.shape == found.values["accuracy"].shape
    if shared:
        assert spread.max() < 1e-9
        return
    learner, theta = load_learner(run)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(PERMUTATION_SEED))
    task = map_tensors(lambda x: x[0], learner.data.held_out_tasks(1))
    renamed = TaskBatch(*(Examples(part.inputs, order[part.targets]) for part in task))
    reached = []
    for one in (task, renamed):
        *_, params = learner.adaptation(theta, one.support, 0.5, 2)
        outputs = models.predict(learner.module, params, one.query.inputs)
        reached.append(float((outputs.argmax(-1) == one.query.targets).double().mean()))
    assert evaluate(run, tasks=1, permutations=2).values["accuracy_spread"][0, 2] == pytest.approx(np.std(reached))
    assert "accuracy_spread" not in evaluate(run).values


def test_label_permutations_are_all_different_and_none_is_the_order_as_drawn() -> None:
    learner = learner_of(**BLOBS_RUN)
    orders = [tuple(order.tolist()) for order in _permutations(learner, 6)]
    assert sorted([(0, 1, 2), *orders]) == sorted(itertools.permutations(range(3)))


def test_labels_that_cannot_be_permuted_so_often_are_refused_before_training(run: Path) -> None:
    with pytest.raises(InputError, match=r"evaluation.permutations = 3 with values to predict"):
        evaluate(run, permutations=3)
    with pytest.raises(InputError, match=r"evaluation.permutations = 3 with values to predict"):
        learner_of(evaluation={"permutations": 3})
    with pytest.raises(InputError, match=r"evaluation.permutations = 7 with 3 ways: their labels have 6 orders"):
        learner_of(**BLOBS_RUN, evaluation={"permutations": 7})


def test_careful_steps_keep_tasks_from_diverging(run: Path) -> None:
    """At a rate that is far too large; with all steps as they are most errors grow without bound."""
    learner, theta = load_learner(run, changes={"inner": {"lr": 5.0}})
    careful, _ = load_learner(run, changes={"inner": {"lr": 5.0}, "evaluation": {"backtracks": 20}})
    wild, tame = (adapted_errors(each, theta, 20, 10, "test")["error"] for each in (learner, careful))
    assert not wild[:, -1].max() < 1e6
    assert tame[:, -1].max() < 100


def test_tasks_side_by_side_and_one_by_one_agree() -> None:
    found = []
    for threads in (1, 2):
        model = {"name": "convolutional", "hidden": [4], "batch_norm": True}
        learner = learner_of(**BLOBS | {"model": model}, threads=threads)
        found.append(adapted_errors(learner, learner.initial_params(), 6, 2, "test"))
    torch.set_num_threads(1)
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_a_task_that_became_nan_counts_as_the_worst() -> None:
    error = np.ones((40, 2))
    error[7, 1] = np.nan
    found = summarise_few_shot({"error": error}, {}, 0.01, 5)
    assert (found.median.tolist(), found.trimmed_mean.tolist()) == ([1, 1], [1, 1])
    assert found.mean[1] == np.inf
    assert found.diverged == 1 / 40
