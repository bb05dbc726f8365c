"""Figures of few-shot runs: the numbers they were given are what is drawn, and `plot` gives them the right ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artists import data, legend, overlapping
from few_shot import tiny, write_omniglot
from matplotlib.figure import Figure
from PIL import Image
from tiny import evaluation_of

from maml_envs import InputError
from maml_rl import pictures
from maml_rl.evaluate import evaluate, load_learner
from maml_rl.pictures import few_shot, save
from maml_rl.results.few_shot import CANDIDATES, _one_task, adapted, draw_episode
from maml_rl.results.plot import plot
from maml_rl.results.runs import read_runs
from maml_rl.supervised import models
from maml_rl.supervised.measures import adapted_errors
from maml_rl.train import meta_train


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """What each figure was given, by its name; an empty one is drawn: drawing takes seconds and is tested above."""
    given: dict[str, tuple[Any, ...]] = {}

    def spy(home: Any, name: str) -> None:
        def record(*arguments: object) -> Figure:
            given[name] = arguments
            return Figure(figsize=(1, 1))

        monkeypatch.setattr(home, name, record)

    for name in ("learning_curve", "adaptation_curve"):
        spy(pictures, name)
    for name in ("fits", "episode"):
        spy(few_shot, name)
    return given


def seen(figure: Figure, path: Path) -> Figure:
    """A figure whose picture is not empty, and its SVG."""
    save(figure, path)
    with Image.open(path) as image:
        assert min(image.size) > 200
        assert len(image.convert("L").getcolors() or range(257)) > 10
    assert "<svg" in path.with_suffix(".svg").read_text()
    return figure


def test_learning_curve_draws_the_losses(tmp_path: Path) -> None:
    rows = [{"iteration": 100.0 * i, "loss": 4.0 / (i + 1)} for i in range(5)]
    figure = seen(pictures.learning_curve({"a": [rows], "b": [rows[:2]]}, window=1), tmp_path / "learning.png")
    (axes,) = figure.axes
    assert data(axes.lines[0]).tolist() == [[row["iteration"] for row in rows], [row["loss"] for row in rows]]
    assert data(axes.lines[1])[1].tolist() == [4.0, 2.0]
    assert legend(figure) == ["a", "b"]
    assert axes.get_yscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("iteration", "query loss in training")


def test_learning_curve_draws_seeds_together_and_over_the_wall_clock() -> None:
    one = [{"iteration": 100.0 * i, "loss": 4.0 / (i + 1), "seconds": 60.0} for i in range(5)]
    other = [{**row, "loss": 3 * row["loss"]} for row in one]
    figure = pictures.learning_curve({"MAML": [one, other]}, window=1)
    iterations, minutes = figure.axes
    assert data(iterations.lines[0])[1].tolist() == [2 * row["loss"] for row in one]
    band = iterations.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0.8, 12)
    assert data(minutes.lines[0])[0].tolist() == [1, 2, 3, 4, 5]
    assert iterations.get_title(loc="left") == "MAML (2 seeds: mean, range)"


def test_adaptation_curve_draws_mean_interval_and_trimmed_mean(tmp_path: Path) -> None:
    points = [(3.0, 2.5, 3.5), (1.0, 0.75, 1.25), (0.5, 0.375, 0.625)]
    known = [("Finn et al. 2017: MAML", (float("nan"), 0.67), False)]
    figure = seen(
        pictures.adaptation_curve(
            {"run": points}, known, "mean", "tasks", "mean squared error", {"run": [2.5, 0.75, 0.25]}
        ),
        tmp_path / "x.png",
    )
    (axes,) = figure.axes
    mean, trimmed, published = axes.lines[0], *axes.lines[-2:]
    assert data(mean).tolist() == [[0, 1, 2], [3.0, 1.0, 0.5]]
    bars = [segment[:, 1].tolist() for segment in axes.collections[0].get_segments()]  # type: ignore[attr-defined]
    assert bars == [[2.5, 3.5], [0.75, 1.25], [0.375, 0.625]]
    assert data(trimmed)[1].tolist() == [2.5, 0.75, 0.25]
    assert data(published)[:, 1].tolist() == [1, 0.67]
    assert np.isnan(data(published)[1, 0])
    assert legend(figure) == ["run", "mean without the 5 % of tasks at each end", "Finn et al. 2017: MAML"]
    assert axes.get_ylim() == (0, pytest.approx(1.2 * 3.5))
    assert axes.get_ylabel() == "mean squared error on held-out tasks\n(mean, 95 % interval over tasks)"


def test_an_evaluation_of_one_task_or_one_that_diverged_is_drawn(tmp_path: Path) -> None:
    alone = evaluation_of([[3.0, 1.0]], "error")
    assert alone.ci95 is None
    seen(alone.plot(), tmp_path / "one.png")
    lost = [(3.0, 2.5, 3.5), (float("inf"), 1.0, float("inf"))]
    figure = pictures.adaptation_curve({"lost": lost}, (), "mean", "tasks", "error", {"lost": [3.0, float("inf")]})
    seen(figure, tmp_path / "lost.png")
    assert np.isnan(data(figure.axes[0].lines[0])[1, 1])
    far = [(3.0, 2.5, 3.5), (1e16, 1.0, 9e16)]
    figure = pictures.adaptation_curve({"far": far}, (), "mean", "tasks", "error", {"far": [3.0, 1.0]})
    assert figure.axes[0].get_ylim() == (0, pytest.approx(1.2 * 3.5))


def test_fits_have_a_panel_for_each_run(tmp_path: Path) -> None:
    x, truth = np.linspace(-5, 5, 50), np.sin(np.linspace(-5, 5, 50))
    curves = {0: x * 0, 1: 0.5 * truth, 10: truth}
    figure = seen(few_shot.fits(x, {"a": curves, "b": curves}, (x[:5], truth[:5]), truth), tmp_path / "fits.png")
    assert [axes.get_title("left") for axes in figure.axes] == ["a", "b"]
    for axes in figure.axes:
        np.testing.assert_array_equal([line.get_ydata() for line in axes.lines[:4]], [truth, *curves.values()])
        assert axes.lines[4].get_marker() == "^"
    assert not overlapping(few_shot.fits(x, dict.fromkeys(("a" * 60, "b" * 60), curves), (x[:5], truth[:5]), truth))
    assert legend(figure) == ["the task", "before adaptation", "after 1 step", "after 10 steps", "support examples"]


def test_an_episode_marks_what_is_right(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 28, 28))
    guesses = {0: [0, 0, 0], 1: [0, 1, 0]}
    figure = seen(few_shot.episode(images, [0, 1, 2], images, [0, 1, 2], guesses), tmp_path / "episode.png")
    axes = figure.axes
    np.testing.assert_array_equal(axes[0].images[0].get_array(), 1 - images[0])  # ink is black
    assert [each.get_title() for each in axes] == [f"class {k}" for k in (1, 2, 3)] + [f"is {k}" for k in (1, 2, 3)]
    said = [[text.get_text() for text in each.texts if len(text.get_text()) == 3] for each in axes[3:]]
    assert said == [["1 ✓", "1 ✓"], ["1 ✗", "2 ✓"], ["1 ✗", "1 ✗"]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny(inner={"lr": 0.05}, evaluation={"shots": 5, "steps": 3, "tasks": 5})
    return meta_train(config, tmp_path_factory.mktemp("plot") / "run", quiet=True)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def test_a_sinusoid_run_gives_three_pictures(run: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    result = evaluate(run)
    paths = plot([run]).files
    assert paths == [run / "figures" / f"{name}.png" for name in ("learning_curve", "adaptation_error", "fits")]
    curves, known, average, over, of, trimmed = drawn["adaptation_curve"]
    assert [point.value for point in curves["MAML (1 seed)"]] == result.mean.tolist()
    ((label, values, level),) = known
    assert (label, values[1], level) == ("Finn et al. 2017: MAML", 0.67, False)
    assert (average, over, of) == ("mean", "tasks", "mean squared error")
    assert trimmed == {"MAML (1 seed)": pytest.approx(result.trimmed_mean.tolist())}
    x, panels, support, truth = drawn["fits"]
    assert (np.diff(x) > 0).all()
    assert [len(part) for part in support] == [5, 5]
    learner, theta = load_learner(run, changes={"shots": 5, "queries": 200})
    batch = learner.data.held_out_tasks(CANDIDATES)
    k = next(k for k in range(CANDIDATES) if batch.support.inputs[k, 0, 0] == support[0][0])
    order = batch.query.inputs[k, :, 0].argsort()
    np.testing.assert_array_equal(truth, batch.query.targets[k, order, 0])
    examples = type(batch.support)(batch.support.inputs[k], batch.support.targets[k])
    curves = panels["MAML"]
    assert list(curves) == [0, 1, 10]
    gradients = torch.func.grad(learner.loss)(theta, examples)
    moved = {name: value - 0.05 * gradients[name] for name, value in theta.items()}
    for params, curve in ((theta, curves[0]), (moved, curves[1])):
        found = models.predict(learner.module, params, torch.tensor(x).unsqueeze(-1)).flatten()
        np.testing.assert_allclose(curve, found.detach(), atol=1e-5)


def test_the_task_in_the_picture_is_the_one_in_the_middle(run: Path) -> None:
    learner, theta, task, index = _one_task(run)
    found = adapted_errors(learner, theta, CANDIDATES, 3, "test")["error"][:, -1]
    assert sorted(found).index(found[index]) == CANDIDATES // 2
    assert torch.equal(task.query.inputs, learner.data.held_out_tasks(CANDIDATES).query.inputs[index])
    assert _one_task(run, 3)[3] == 3
    chain = adapted(learner, theta, task, 2)
    assert len(chain) == 3
    assert learner.loss(chain[2], task.support) < learner.loss(chain[0], task.support)


def test_published_errors_are_of_five_shots(run: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    evaluate(run, shots=10)
    plot([run])
    assert drawn["adaptation_curve"][1] == ()


def test_runs_with_other_shots_are_drawn_on_the_same_examples(
    run: Path, tmp_path: Path, drawn: dict[str, tuple[Any, ...]]
) -> None:
    other = meta_train(tiny(shots=9), tmp_path / "other", quiet=True)
    paths, missing = plot([run, other], tmp_path / "pictures")[:2]
    assert [line.split()[0] for line in missing] == [str(run), str(other)]
    assert [path.name for path in paths] == ["learning_curve.png", "fits.png"]
    labels = list(drawn["learning_curve"][0])
    assert [label[:15] for label in labels] == ["MAML, shots = 4", "MAML, shots = 9"]
    x, panels, support, _ = drawn["fits"]
    assert len(support[0]) == 5
    learner, theta = load_learner(other)
    start = models.predict(learner.module, theta, torch.tensor(x).unsqueeze(-1)).flatten()
    np.testing.assert_allclose(panels[labels[1]][0], start.detach(), atol=1e-5)


def test_an_omniglot_run_gives_an_episode(tmp_path: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    config = tiny(
        data="omniglot", root=str(write_omniglot(tmp_path / "omniglot", 30, 20)), ways=2, shots=2, queries=4,
        model={"name": "convolutional", "hidden": [4], "batch_norm": True},
    )  # fmt: skip
    with pytest.warns(UserWarning, match="does not hold all of Omniglot"):
        run = meta_train(config, tmp_path / "run", quiet=True)
    result = evaluate(run)
    paths = plot([run]).files
    names = ("learning_curve", "adaptation_accuracy", "adaptation_accuracy_one_by_one", "episode")
    assert paths == [run / "figures" / f"{name}.png" for name in names]
    assert drawn["adaptation_curve"][1] == ()
    support, labels, queries, truths, guesses = drawn["episode"]
    assert (support.shape, labels) == ((2, 28, 28), [0, 1])  # one image of each class
    assert (queries.shape, sorted(truths)) == ((8, 28, 28), [0] * 4 + [1] * 4)
    assert list(guesses) == [0, 1, 2]
    assert all(len(found) == 8 for found in guesses.values())
    assert list(result.values) == ["accuracy", "accuracy_one_by_one"]
    assert set(result.references) == {"nearest neighbour"}
    text = (run / "config.toml").read_text()
    assert "\nsteps = 2\n" in text
    (run / "config.toml").write_text(text.replace("\nsteps = 2\n", "\nsteps = 0\n"))
    draw_episode(read_runs([run])[0])
    assert list(drawn["episode"][4]) == [0]


def test_what_cannot_be_drawn_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to plot: give one or more run folders"):
        plot([])
    with pytest.raises(InputError, match=r"is not a run folder: it has no config\.toml"):
        plot([tmp_path])
    (run / "evaluation.json").write_text(json.dumps({"values": {}})[:-3])
    with pytest.raises(InputError, match=r"evaluation\.json is damaged: .*evaluate the run again"):
        plot([run])
    (run / "evaluation.json").unlink()
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="run has no finished row of metrics yet: train on with --resume --out"):
        plot([run])


def test_fits_are_drawn_at_the_rate_of_the_evaluation(tmp_path: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    run = meta_train(tiny(method="pretrained", iterations=4), tmp_path / "run", quiet=True)
    plot([run])
    before = drawn["fits"][1]["pretrained"]
    result = evaluate(run, tasks=3, steps=2)
    (run / "evaluation.json").write_text(json.dumps(json.loads(result.to_json()) | {"lr": [0.3, 0.3]}))
    plot([run])
    after = drawn["fits"][1]["pretrained"]
    inner = {"lr": 0.3, "steps": 1}
    learner, theta, task, _ = _one_task(run, shots=result.shots, queries=200, inner=inner)
    order = task.query.inputs.flatten().argsort()
    expected = models.predict(learner.module, adapted(learner, theta, task, 1)[1], task.query.inputs)[order]
    np.testing.assert_allclose(after[1], expected.detach().flatten(), rtol=1e-5)
    assert np.abs(after[1] - before[1]).max() > 1e-3
