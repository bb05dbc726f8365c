"""The baselines of few-shot learning: a classifier of all training classes, a model of all curves, and no training."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_shot import Blobs, learner_of, slope_of, tiny
from tiny import files, same_checkpoint

from maml_envs import InputError
from maml_rl.core.tree import map_tensors
from maml_rl.evaluate import evaluate, load_learner
from maml_rl.results.few_shot import adapted
from maml_rl.runs import checkpoint
from maml_rl.supervised import Examples, FewShotTasks, LabelledTasks, Sinusoid, TaskBatch, models
from maml_rl.supervised.learner import loss_of
from maml_rl.supervised.measures import RATES, adapted_errors, tune
from maml_rl.supervised.outer import query_loss
from maml_rl.train import meta_train

BLOBS: dict[str, Any] = {"data": "few_shot:Blobs", "model": {"hidden": [8], "batch_norm": True}}
TRAINING = 21 * 4
"""Training classes of ``Blobs``: 70 % of 30, each in four turns."""


class Veiled(LabelledTasks):
    """Of 40 numbers the first three tell a class, and the others are noise: what to look at is there to be learned."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        told = torch.randn(60, 1, 3, generator=random) + 0.1 * torch.randn(60, 100, 3, generator=random)
        examples = torch.cat([told, torch.randn(60, 100, 37, generator=random)], -1)
        super().__init__(examples.flatten(0, 1), torch.arange(60).repeat_interleave(100), 5, 1, 5)


class Counted(FewShotTasks):
    """Whole numbers are classes; it does not say which there are in training."""

    def sample_tasks(self, count: int, generator: torch.Generator) -> TaskBatch:
        inputs, targets = torch.rand(count, 6, 2, generator=generator), torch.arange(6).expand(count, 6) % 3
        return TaskBatch(Examples(inputs, targets), Examples(inputs, targets))

    def held_out_tasks(self, count: int, split: str = "test") -> TaskBatch:
        return self.sample_tasks(count, torch.Generator().manual_seed(3))


class Uncounted(Counted):
    """It has examples of its training classes, but not how many they are."""

    def sample_examples(self, shape: tuple[int, int], generator: torch.Generator) -> Examples:
        return Examples(torch.rand(*shape, 2, generator=generator), torch.zeros(shape, dtype=torch.int64))


def test_a_classifier_is_trained_on_all_training_classes_at_once() -> None:
    learner, data = learner_of(**BLOBS, method="pretrained"), Blobs()
    theta, batch = learner.initial_params(), learner.training_tasks(0)
    assert (theta["4.weight"].shape, theta["4.bias"].shape) == ((TRAINING, 8), (TRAINING,))
    inputs, targets = batch.query
    assert inputs.shape == (3, 5 * (4 + 3), 1, 6, 6)  # as many as the tasks of the configuration have
    assert targets.unique().numel() > 40
    assert int(targets.max()) < data.training_classes == TRAINING
    loss, gradient = slope_of(learner, theta, batch)
    expected = torch.stack([
        loss_of(models.predict(learner.trained, theta, inputs[k]), targets[k]) for k in range(3)
    ]).mean()  # fmt: skip
    torch.testing.assert_close(loss, expected.detach())
    assert gradient["4.weight"].abs().sum(1).gt(0).all()
    assert float(loss) == pytest.approx(math.log(TRAINING), abs=1.5)
    assert not torch.equal(inputs, learner.training_tasks(1).query.inputs)
    assert torch.equal(inputs, learner.training_tasks(0).query.inputs)


def test_a_task_starts_from_the_trained_body_and_a_new_last_layer() -> None:
    learner = learner_of(**BLOBS, method="pretrained")
    theta = {name: value + 0.5 for name, value in learner.initial_params().items()}
    start = learner.start(theta)
    assert list(start) == list(theta)
    assert all(torch.equal(start[name], theta[name]) for name in theta if not name.startswith("4."))
    assert (start["4.weight"].shape, start["4.bias"].tolist()) == ((3, 8), [0, 0, 0])
    assert 0 < start["4.weight"].abs().max() <= math.sqrt(6 / (8 + 3))  # Glorot
    assert torch.equal(learner.start(theta)["4.weight"], start["4.weight"])
    other = learner_of(**BLOBS, method="pretrained", seed=2)
    assert not torch.equal(other.start(theta)["4.weight"], start["4.weight"])
    drawn = adapted(learner, theta, map_tensors(lambda x: x[0], learner.data.held_out_tasks(1)), 1)  # in pictures too
    assert all(torch.equal(drawn[0][name], start[name]) for name in start)
    assert not torch.equal(drawn[1]["4.weight"], start["4.weight"])


@pytest.mark.parametrize("method", ["maml", "random"])
def test_nothing_is_new_where_the_last_layer_was_trained_for_tasks(method: str) -> None:
    learner = learner_of(**BLOBS, method=method)
    theta = learner.initial_params()
    assert learner.start(theta) is theta
    assert theta["4.weight"].shape == (3, 8)


def test_values_have_no_classes_and_train_on_all_examples_of_the_same_tasks() -> None:
    learner, maml = learner_of(method="pretrained"), learner_of()
    assert learner.trained is learner.module
    theta, batch = learner.initial_params(), learner.training_tasks(2)
    assert learner.start(theta) is theta
    theirs = maml.training_tasks(2)
    torch.testing.assert_close(batch.support, theirs.support, rtol=0, atol=0)
    torch.testing.assert_close(batch.query, theirs.joined(), rtol=0, atol=0)
    assert torch.equal(batch.query.inputs, torch.cat([theirs.support.inputs, theirs.query.inputs], 1))
    assert torch.equal(batch.query.targets, torch.cat([theirs.support.targets, theirs.query.targets], 1))
    task = map_tensors(lambda x: x[1], batch)
    assert torch.equal(query_loss(learner, theta, task), learner.loss(theta, task.query))
    assert not torch.equal(query_loss(maml, theta, task), query_loss(learner, theta, task))


@pytest.mark.parametrize("method", ["pretrained", "random"])
@pytest.mark.parametrize("data", [{}, BLOBS], ids=["sinusoid", "blobs"])
def test_what_is_of_meta_learning_does_not_disturb_a_baseline(
    method: str, data: dict[str, Any], tmp_path: Path
) -> None:
    plain = meta_train(tiny(**data, method=method), tmp_path / "plain", quiet=True)
    inner = {"learn_lr": True, "first_order": True, "steps": 3, "adapt": "last"}
    run = meta_train(tiny(**data, method=method, inner=inner), tmp_path / "run", quiet=True)
    assert same_checkpoint(plain / "checkpoint.pt", run / "checkpoint.pt")
    assert evaluate(run, tune_lr=True).lr[0] in RATES  # none was learned


def test_accuracy_is_chance_before_adaptation() -> None:
    learner = learner_of(**BLOBS, method="pretrained", tasks=5)
    theta = learner.initial_params()
    found = adapted_errors(learner, theta, 400, 0, "test")
    assert all(values.mean() == pytest.approx(1 / 3, abs=0.04) for values in found.values())


def test_a_pretrained_classifier_is_ahead_of_a_random_one_after_adaptation(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "data": "test_few_shot_method:Veiled", "ways": 5, "shots": 1, "queries": 5, "tasks": 10, "iterations": 300,
        "log_every": 100, "model": {"hidden": [32]}, "outer": {"lr": 0.01},
        "evaluation": {"tasks": 100, "steps": 5, "every": 100},
    }  # fmt: skip
    run = meta_train(tiny(**settings, method="pretrained"), tmp_path / "pretrained", quiet=True)
    result = evaluate(run)
    untrained = evaluate(meta_train(tiny(**settings, method="random"), tmp_path / "random", quiet=True), tune_lr=True)
    before, after = result.mean[0], result.mean[-1]
    assert before == pytest.approx(1 / 5, abs=0.06)
    assert after > untrained.mean[-1] + 0.15
    assert result.iteration == 300
    learner, theta = load_learner(run)
    assert result.lr.tolist() == [tune(learner, theta, 100, 5)] * 5
    assert result.lr[0] != 0.01
    kept = evaluate(run, tune_lr=False)
    assert (kept.lr[0], kept.mean[0], kept.tuned) == (0.01, before, False)
    assert kept.mean[-1] < after


def test_only_the_pretrained_are_tuned_unasked(tmp_path: Path) -> None:
    lr = {"inner": {"lr": 0.02}}  # none of the rates that are tried
    runs = {method: meta_train(tiny(**lr, method=method), tmp_path / method, quiet=True)
            for method in ("maml", "pretrained", "random")}  # fmt: skip
    found = {method: evaluate(run).lr[0] for method, run in runs.items()}
    assert (found["maml"], found["random"]) == (0.02, 0.02)
    assert found["pretrained"] in RATES
    assert evaluate(runs["pretrained"], tune_lr=False).lr[0] == 0.02


@pytest.mark.parametrize("data", [{}, BLOBS], ids=["sinusoid", "blobs"])
def test_a_random_model_is_the_initial_one(data: dict[str, Any], tmp_path: Path) -> None:
    lr: dict[str, Any] = {"inner": {"lr": 0.3}, "outer": {"lr": 0.1}}
    config = tiny(**data, **lr, method="random", evaluation={"every": 2})
    run = meta_train(config, tmp_path / "random", quiet=True)
    names = {path.name for path in run.iterdir() if not path.name.startswith("events.out.tfevents.")}
    assert names - {"lock"} == {"config.toml", "metrics.jsonl", "checkpoint.pt"}
    assert (run / "metrics.jsonl").read_text() == ""
    assert checkpoint.load(run / "checkpoint.pt").iteration == 0
    maml = meta_train(tiny(**data, **lr), tmp_path / "maml", quiet=True)
    scratch = evaluate(maml, which="initial")
    assert evaluate(run).per_task.tolist() == scratch.per_task.tolist()
    assert scratch.per_task.tolist() != evaluate(maml).per_task.tolist()
    before = {name: content for name, content in files(run).items() if not name.startswith("events")}
    meta_train(config, run, resume=True, quiet=True)
    assert {name: content for name, content in files(run).items() if not name.startswith("events")} == before
    with pytest.raises(InputError, match="already holds a run"):
        meta_train(config, run, quiet=True)
    assert evaluate(run, which="best").which == "checkpoint"  # it has one kind of parameters


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("Counted", "Counted does not tell its training classes apart, .* or use LabelledTasks"),
        ("Uncounted", r"Uncounted\.training_classes = 0: give the number of classes that its sample_examples"),
    ],
)
def test_classes_that_are_not_told_apart_cannot_be_pretrained(data: str, problem: str, tmp_path: Path) -> None:
    config = tiny(data=f"test_few_shot_method:{data}", method="pretrained")
    with pytest.raises(InputError, match=problem):
        meta_train(config, tmp_path / "run", quiet=True)
    assert not any(tmp_path.iterdir())
    meta_train(config.model_copy(update={"method": "maml"}), tmp_path / "run", quiet=True)


def test_a_sinusoid_has_no_classes() -> None:
    with pytest.raises(InputError, match="Sinusoid does not tell its training classes apart"):
        Sinusoid(3, 3).sample_examples((2, 2), torch.Generator())


@pytest.mark.parametrize("data", [{}, BLOBS], ids=["sinusoid", "blobs"])
def test_resuming_a_pretrained_model_equals_not_having_stopped(data: dict[str, Any], tmp_path: Path) -> None:
    whole = meta_train(tiny(**data, method="pretrained", iterations=4, root="here"), tmp_path / "whole", quiet=True)
    for iterations, root in ((2, "here"), (4, "moved")):  # the data may have been moved
        part = tiny(**data, method="pretrained", iterations=iterations, root=root)
        meta_train(part, tmp_path / "parts", resume=True, quiet=True)
    assert same_checkpoint(whole / "checkpoint.pt", tmp_path / "parts/checkpoint.pt")
    with pytest.raises(InputError, match="\n  method: 'pretrained' there, 'maml' now"):
        meta_train(tiny(**data), whole, resume=True, quiet=True)


def test_a_convolutional_classifier_is_pretrained(tmp_path: Path) -> None:
    model = {"name": "convolutional", "hidden": [4], "batch_norm": True}
    run = meta_train(tiny(data="few_shot:Blobs", model=model, method="pretrained"), tmp_path / "run", quiet=True)
    assert np.isfinite(np.array(evaluate(run, tasks=2, steps=1).values["accuracy"])).all()
    learner, theta = load_learner(run, "initial")
    assert theta["5.weight"].shape == (TRAINING, 4)
    assert learner.start(theta)["5.weight"].shape == (3, 4)
