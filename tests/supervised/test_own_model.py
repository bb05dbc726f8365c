"""A user's own module as the model that adapts: its gradient, its norms, its use, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_shot import BLOBS_RUN, blobs, learner_of, problem, slope_of, tiny
from pydantic import ValidationError
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import maml_rl
from maml_envs import InputError
from maml_rl import evaluate, meta_train
from maml_rl.core.tree import Params
from maml_rl.runs import checkpoint
from maml_rl.supervised import TaskBatch
from maml_rl.supervised.learner import FewShotLearner

KINDS = ["Plain", "Normed", "convolutions", "batch_normed", "Series"]
LOOPED, OF_BATCH = {"convolutions", "Series"}, {"convolutions", "batch_normed"}


def own(name: str, **changes: Any) -> dict[str, Any]:
    model = {"network": f"own_models:{name}", "hidden": (40, 40)} | changes.pop("model", {})
    return {**BLOBS_RUN, "tasks": 2, "model": model} | changes


def by_hand(learner: FewShotLearner, theta: Params, batch: TaskBatch, steps: int) -> Params:
    """The meta-gradient with torch's own layers, one task after the other."""
    module = learner.model.restored(learner.outputs, {name: value.float() for name, value in theta.items()}).double()
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    total = torch.zeros((), dtype=torch.float64)
    for k in range(len(batch.support.inputs)):
        params = leaves
        for _ in range(steps):
            loss = cross_entropy(functional_call(module, params, (batch.support.inputs[k],)), batch.support.targets[k])
            slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = {name: x - 0.01 * slope for (name, x), slope in zip(params.items(), slopes, strict=True)}
        outputs = functional_call(module, params, (batch.query.inputs[k],))
        total = total + cross_entropy(outputs, batch.query.targets[k]) / len(batch.support.inputs)
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_the_gradient_is_that_of_the_loop_written_out(name: str) -> None:
    learner = learner_of(**own(name, inner={"steps": 2}))
    learner.module.double()
    theta, batch = problem(learner)
    _, found = slope_of(learner, theta, batch)
    for key, slope in by_hand(learner, theta, batch, 2).items():
        torch.testing.assert_close(found[key], slope, rtol=1e-8, atol=1e-12, msg=key)
    assert learner.loop == (name in LOOPED)
    assert learner.model.of_batch == (name in OF_BATCH)


@pytest.mark.parametrize("name", KINDS)
def test_it_trains_is_evaluated_and_used(name: str, tmp_path: Path) -> None:
    run = meta_train(tiny(**own(name)), tmp_path / "run", quiet=True)
    measures = list(evaluate(run).values)
    assert measures == ["accuracy", "accuracy_one_by_one"][: 1 + (name in OF_BATCH)]
    examples, labels = blobs()
    with maml_rl.load(run) as agent:
        model = agent.adapt(examples[:18], labels[:18])
        assert set(model.predict(examples[:5])) <= {0, 1, 2}
        loaded = torch.export.load(model.save(tmp_path / "model.pt2")).module()
        with torch.no_grad():
            torch.testing.assert_close(loaded(examples[:18]), model.module(examples[:18]), rtol=1e-4, atol=1e-5)


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    meta_train(tiny(**own("Normed")), whole, quiet=True)
    for iterations in (2, 4):
        meta_train(tiny(**own("Normed"), iterations=iterations), parts, resume=True, quiet=True)
    one, two = (checkpoint.load(run / "checkpoint.pt").theta for run in (whole, parts))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_its_own_initial_weights_follow_from_the_seed() -> None:
    one, other = (learner_of(**own("Plain", seed=seed)).initial_params() for seed in (1, 2))
    assert not torch.equal(one["start.weight"], other["start.weight"])
    assert torch.equal(one["start.weight"], learner_of(**own("Plain", seed=1)).initial_params()["start.weight"])
    assert float(one["start.weight"].abs().max()) <= 1 / 6  # torch's Linear: within 1 / sqrt(36)


@pytest.mark.parametrize("name", ["convolutions", "batch_normed"])
def test_a_norm_of_each_step_and_a_shared_head(name: str) -> None:
    changes = own(name, inner={"steps": 3}, model={"norm_per_step": True, "shared_head": True})
    theta = learner_of(**changes).initial_params()
    sizes = {tuple(value.shape)[:1] for key, value in theta.items()}
    assert (3,) in sizes
    assert {len(value) for key, value in theta.items() if key in learner_of(**changes).model.head} == {1}


@pytest.mark.parametrize("name", ["Plain", "HeadFirst"])
def test_a_pretrained_one_makes_way_for_a_new_last_layer(name: str) -> None:
    learner = learner_of(**own(name, method="pretrained"))
    theta = learner.initial_params()
    assert len(theta["end.weight"]) == learner.data.training_classes > 3
    assert len(learner.start(theta)["end.weight"]) == 3
    assert torch.equal(learner.start(theta)["start.weight"], theta["start.weight"])


def test_as_many_training_classes_as_ways_are_pretrained_all_the_same() -> None:
    learner = learner_of(**own("Plain", data="few_shot:AsManyAsWays", method="pretrained"))
    assert learner.data.training_classes == learner.outputs == 3
    theta = {key: value + 1 for key, value in learner.initial_params().items()}
    assert learner.training_tasks(0).support.targets.shape == (2, 15)  # examples of all classes, not tasks
    assert not torch.equal(learner.start(theta)["end.weight"], theta["end.weight"])
    assert torch.equal(learner.start(theta)["start.weight"], theta["start.weight"])


def test_the_last_layer_adapts_alone_wherever_it_is_registered() -> None:
    learner = learner_of(**own("HeadFirst", inner={"adapt": "last"}))
    assert next(iter(learner.initial_params())) == "end.weight"
    assert learner.model.head == {"end.weight", "end.bias"} == learner.inner.rates.adapted


def test_shared_weights_may_adapt_with_all_others() -> None:
    learner = learner_of(**own("Tied"))
    theta, batch = problem(learner)
    assert all(bool(slope.isfinite().all()) for slope in slope_of(learner, theta, batch)[1].values())


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("Running", {}, r"norm \(BatchNorm1d\) keeps running statistics, .* or track_running_stats = False"),
        ("wide", {}, r"gives \(3, 4\) for inputs \(3, 1, 6, 6\): it has to give \(3, 3\)"),
        ("Missing", {}, "own_models has no 'Missing'"),
        ("blobs", {}, "own_models has no 'blobs'"),
        ("Tied", {"inner": {"adapt": "last"}}, "last.weight of the last layer is a parameter of another one too"),
        ("Plain", {"model": {"norm_per_step": True}}, "it has no batch norm with a scale"),
        (
            "WideInside",
            {"method": "pretrained"},
            r"start.bias, start.weight would keep the shape of 84 training classes, .*\(end.bias, end.weight\)",
        ),
        (
            "Transposed",
            {"model": {"shared_head": True}},
            r"its last layer \(end.unit, end.weight\) does not have a row for each class",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_with_the_reason(name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        learner_of(**own(name, **changes))
    assert f"model.network = 'own_models:{name}'" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("name", "convolutional"), ("hidden", (8,)), ("batch_norm", True), ("init", "truncated_normal")]
)
def test_keys_of_the_packages_networks_are_refused_beside_it(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"model.{key} with model.network = 'own_models:Plain'"):
        tiny(**own("Plain", model={key: value}))


def test_probabilities_do_not_depend_on_what_else_is_asked(tmp_path: Path) -> None:
    run = meta_train(tiny(**own("convolutions")), tmp_path / "run", quiet=True)
    examples, labels = blobs()
    with maml_rl.load(run) as agent:
        model = agent.adapt(examples[:18], labels[:18])
        one, three = model.probabilities(examples[20:21]), model.probabilities(examples[20:23])
    np.testing.assert_allclose(one[0], three[0], rtol=1e-5)
