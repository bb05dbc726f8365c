"""A few-shot run is loaded, adapts to examples that it has never seen, predicts, and is exported."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_shot import BLOBS_RUN, blobs, tiny

import maml_rl
from maml_rl import InputError, evaluate, meta_train
from maml_rl.evaluate import load_learner
from maml_rl.supervised.agent import FewShotAgent
from maml_rl.supervised.measures import adapted_errors

WORDS = np.array(["cat", "dog", "owl"])


def blobs_run(folder: Path, **model: Any) -> Path:
    model = {"name": "convolutional", "hidden": [6]} | model
    return meta_train(tiny(**BLOBS_RUN, model=model, iterations=40, log_every=20), folder, quiet=True)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_its_accuracy_is_that_of_evaluation(batch_norm: bool, tmp_path: Path) -> None:
    run = blobs_run(tmp_path / "run", batch_norm=batch_norm)
    found = evaluate(run, tasks=5)
    measure = "accuracy_one_by_one" if batch_norm else "accuracy"
    with maml_rl.load(run) as agent:
        assert isinstance(agent, FewShotAgent)
        held_out = agent.learner.data.held_out_tasks(5)
        for k in range(5):
            (x, y), (asked, answers) = ([part[k] for part in examples] for examples in held_out)
            model = agent.adapt(x, WORDS[y], steps=2)
            assert model.classes == ["cat", "dog", "owl"]
            right = np.mean([said == word for said, word in zip(model.predict(asked), WORDS[answers], strict=True)])
            assert right == pytest.approx(found.values[measure][k, 2])
            shares = model.probabilities(asked)
            np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-6)
            assert (WORDS[shares.argmax(-1)] == model.predict(asked)).all()


def test_regression_gives_values(tmp_path: Path) -> None:
    run = meta_train(tiny(), tmp_path / "run", quiet=True)
    learner, theta = load_learner(run)
    errors = adapted_errors(learner, theta, 3, 2, "test")["error"]  # type: ignore[arg-type]
    with maml_rl.load(run) as agent:
        held_out = agent.learner.data.held_out_tasks(3)
        for k in range(3):
            (x, y), (asked, answers) = ([part[k] for part in examples] for examples in held_out)
            values = agent.adapt(x, y).predict(asked)
            assert values.shape == answers.shape
            assert np.square(values - answers.numpy()).mean() == pytest.approx(errors[k, 2], rel=1e-5)
            np.testing.assert_array_equal(agent.adapt(x, y[:, 0].tolist()).predict(asked.double().numpy()), values)
        with pytest.raises(InputError, match="probabilities of values: this run is regression"):
            agent.adapt(x, y).probabilities(asked)


def test_any_number_of_shots_and_fewer_ways(tmp_path: Path) -> None:
    examples, labels = blobs()
    with maml_rl.load(blobs_run(tmp_path / "run")) as agent:
        for shots in (1, 5):
            chosen = torch.cat([torch.where(labels == k)[0][:shots] for k in (3, 8)])
            model = agent.adapt(examples[chosen], labels[chosen])
            assert model.classes == [3, 8]
            assert set(model.predict(examples[:4])) <= {3, 8}
            assert model.probabilities(examples[:4]).shape == (4, 2)


@pytest.mark.parametrize(
    ("inputs", "targets", "said"),
    [
        (torch.rand(3, 1, 5, 6), [0, 1, 2], r"inputs have shape \(3, 1, 5, 6\): give \(examples, 1, 6, 6\)"),
        (torch.rand(4, 1, 6, 6), [0, 1, 2, 3], "the targets are 4 classes: this model tells at most 3 apart"),
        (torch.rand(3, 1, 6, 6), [0, 1], "3 inputs with 2 targets: give one target for each"),
        (torch.ones(3, 1, 6, 6).long(), [0, 1, 2], "examples are int64, whose largest value is not a pixel's"),
        (torch.rand(3, 1, 6, 6), [0.5, 1.0, 2.0], "labels are float64"),
        (torch.full((3, 1, 6, 6), torch.nan), [0, 1, 2], "inputs hold NaN or infinity"),
    ],
)
def test_examples_that_do_not_fit_are_named(inputs: Any, targets: Any, said: str, tmp_path: Path) -> None:
    with maml_rl.load(blobs_run(tmp_path / "run")) as agent, pytest.raises(InputError, match=said):
        agent.adapt(inputs, targets)


@pytest.mark.filterwarnings("ignore")  # torch's own, of what it will change in itself
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_it_is_exported(ending: str, tmp_path: Path) -> None:
    with maml_rl.load(blobs_run(tmp_path / "run")) as agent:
        examples, labels = blobs()
        model = agent.adapt(examples[[0, 6, 12]], labels[[0, 6, 12]])
    with torch.no_grad():
        expected = model.module(examples[:7]).numpy()
    path = model.save(tmp_path / f"model.{ending}")
    if ending == "pt2":
        found = torch.export.load(path).module()(examples[:7]).numpy()
    else:
        onnxruntime = pytest.importorskip("onnxruntime")
        (found,) = onnxruntime.InferenceSession(path).run(["outputs"], {"inputs": examples[:7].numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("asked", [torch.rand(2, 6, 6, 1), torch.rand(1, 6, 6), torch.rand(0, 1, 6, 6)])
def test_what_is_asked_has_the_shape_of_training(asked: torch.Tensor, tmp_path: Path) -> None:
    with maml_rl.load(blobs_run(tmp_path / "run")) as agent:
        examples, labels = blobs()
        model = agent.adapt(examples[[0, 6, 12]], labels[[0, 6, 12]])
    with pytest.raises(InputError, match=r"inputs have shape .*: give \(n, 1, 6, 6\)"):
        model.predict(asked)


def test_whole_numbers_are_fine_where_inputs_are_numbers(tmp_path: Path) -> None:
    with maml_rl.load(meta_train(tiny(), tmp_path / "run", quiet=True)) as agent:
        model = agent.adapt([[1], [2], [3]], [1.0, 2.0, 3.0])
        np.testing.assert_array_equal(model.predict([[1]]), model.predict([[1.0]]))
        with pytest.raises(InputError, match="targets hold NaN or infinity"):
            agent.adapt([[1], [2]], [1.0, np.inf])
