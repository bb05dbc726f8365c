"""`plot` draws what a run holds; what a figure shows is tested in test_figures."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from matplotlib.figure import Figure
from PIL import Image
from tiny import evaluation_of, tiny

import maml_rl
from maml_envs import InputError
from maml_rl import meta_train, pictures
from maml_rl.config.rl import Config
from maml_rl.core.statistics import interquartile_mean
from maml_rl.results.plot import _task_name, plot, visited
from maml_rl.rl.data import Trajectory
from maml_rl.rl.distributions import Normal
from maml_rl.runs.evaluation import evaluations, latest

PICTURES = ("learning_curve", "optimisation", "adaptation_curve", "before_after", "return_by_task", "paths")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return meta_train(tiny(iterations=3), tmp_path_factory.mktemp("plot") / "run", quiet=True)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def evaluated(folder: Path, returns: list[list[float]], **keys: Any) -> None:
    """A run folder whose evaluation has these returns (tasks, k), one episode each; its parameters are not there."""
    folder.mkdir()
    config = {"env": "half-cheetah-vel", "preset": "finn2017"} | keys
    (folder / "config.toml").write_text(tomli_w.dumps({"config": config}))
    (folder / "metrics.jsonl").write_text('{"iteration": 0, "env_steps": 5, "return/0": 1.0, "kl/outer": 0.01}\n')
    found = evaluation_of(returns, tasks=np.arange(len(returns), dtype=float)[:, None])
    (folder / "evaluation.json").write_text(found.to_json())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """What each figure was given, by its name; the figures are drawn all the same."""
    given: dict[str, tuple[Any, ...]] = {}

    def spy(name: str) -> None:
        draw = getattr(pictures, name)

        def record(*arguments: object) -> Figure:
            given[name] = arguments
            found = draw(*arguments)
            assert isinstance(found, Figure)
            return found

        monkeypatch.setattr(pictures, name, record)

    for name in ("learning_curve", "adaptation_curve", "navigation_paths"):
        spy(name)
    return given


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing takes seconds, and is tested in test_figures."""
    monkeypatch.setattr(pictures, "save", lambda figure, path: path)


def test_an_evaluated_navigation_run_gives_all_pictures(run: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    result = maml_rl.evaluate(run)
    paths, missing, comparison = plot([run])
    assert paths == [run / "figures" / f"{name}.png" for name in PICTURES]
    assert not missing
    assert comparison is not None
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 300
        assert "<svg" in path.with_suffix(".svg").read_text()
    ((rows,),) = drawn["learning_curve"][0].values()
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    (points,) = drawn["adaptation_curve"][0].values()
    assert [point.value for point in points] == interquartile_mean(result.returns.mean(-1).T).tolist()
    assert drawn["adaptation_curve"][1] == ()  # nothing is published of this horizon
    assert [point.mean.value for point in comparison.rows[0].points] == pytest.approx(result.mean.tolist())
    positions, mask, goals, returns = (torch.as_tensor(value) for value in drawn["navigation_paths"][:4])
    assert positions.shape == (5, 3, 2, 6, 2)  # tasks, k, episodes, steps and the end, x and y
    assert (positions[:, :, :, 0] == 0).all()
    assert (positions[:, :, :, 1:].diff(dim=3).abs() <= 0.1 + 1e-6).all()
    assert mask.all()
    assert goals.shape == (5, 2)
    away = torch.linalg.vector_norm(positions[:, :, :, 1:] - goals[:, None, None, None], dim=-1)
    assert returns == pytest.approx(-away.sum(-1).mean(-1), rel=1e-5)


def test_seeds_are_drawn_together_and_what_is_missing_is_named(
    run: Path, tmp_path: Path, drawn: dict[str, tuple[Any, ...]]
) -> None:
    other = meta_train(tiny(iterations=3, seed=2), tmp_path / "other", quiet=True)
    found = plot([other, run], tmp_path / "pictures")
    assert [path.name for path in found.files] == ["learning_curve.png", "optimisation.png", "paths.png"]
    assert [len(rows) for rows in drawn["learning_curve"][0]["MAML"]] == [3, 3]
    assert [line.split()[0] for line in found.missing] == [str(other), str(run)]
    assert found.missing[0].endswith(f"maml-rl evaluate {other}")
    assert not (run / "figures").exists()


def test_runs_of_other_environments_do_not_compare(run: Path, tmp_path: Path) -> None:
    other = meta_train(tiny(env="probes:Target", horizon=1, iterations=1), tmp_path / "other", quiet=True)
    with pytest.raises(InputError, match=r"returns compare only within an environment: .*; give runs of one at a time"):
        plot([other, run], tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def test_a_policy_that_is_not_trained_has_no_curves(tmp_path: Path) -> None:
    run = meta_train(tiny(method="random"), tmp_path / "random", quiet=True)
    assert plot([run]).files == []
    maml_rl.evaluate(run)
    assert [path.stem for path in plot([run]).files] == ["adaptation_curve", "before_after", "return_by_task"]


def test_the_newest_evaluation_of_its_kind_counts(run: Path) -> None:
    assert latest(evaluations(run)) is None
    contents = ({}, {"which": "best"}, {"split": "out"}, {"which": "checkpoint"})
    for age, (name, content) in enumerate(zip(("_2", "", "_3", "_4"), contents, strict=True)):
        file = run / f"evaluation{name}.json"
        file.write_text(evaluation_of([[0.0]], iteration=age + 1, **content).to_json())
        os.utime(file, (1000 - age, 1000 - age))
    every = evaluations(run)
    found = [latest(every, *kind) for kind in ((), ("best",), ("checkpoint", "out"), ("initial",))]
    assert [each and each.iteration for each in found] == [1, 2, 3, None]


def test_axes_say_what_a_task_is(run: Path) -> None:
    def said(**keys: Any) -> str:
        return _task_name(Config.model_validate(keys), Path("run"))

    assert [said(env=name) for name in ("navigation", "ant-vel", "ant-goal", "humanoid-dir", "bandit")] == [
        "goal position",
        "goal velocity (m/s)",
        "goal position (m)",
        "direction",
        "task",
    ]
    assert said(env="walker-dir") == "direction (1: forward, -1: backward)"
    assert said(env="gymnasium:Pendulum-v1", vector={"task_ranges": {"g": (5.0, 15.0)}}) == "g"
    assert said(env="gymnasium:Pendulum-v1", vector={"task_ranges": {"g": (5.0, 15.0), "m": (1.0, 2.0)}}) == "task"
    assert said(env="not_here:Env") == "task"  # a run is drawn without its code


@pytest.mark.usefixtures("unwritten")
def test_the_average_is_that_of_what_is_published(tmp_path: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    for seed in (1, 2):
        evaluated(tmp_path / f"s{seed}", [[0.0, 1.0]] * 7 + [[-80.0, -79.0]], seed=seed, horizon=200)
    evaluated(tmp_path / "oracle", [[2.0, 2.0]] * 8, method="oracle", horizon=200)
    evaluated(tmp_path / "short", [[0.0, 1.0]] * 7 + [[-80.0, -79.0]], horizon=50)
    plot([tmp_path / "s1", tmp_path / "s2", tmp_path / "oracle"])
    curves, known, average, over, of, trimmed = drawn["adaptation_curve"]
    assert [point.value for point in curves["MAML (2 seeds)"]] == [-10, -9]
    assert [point.value for point in curves["oracle (1 seed)"]] == [2]  # what a step does to an oracle is no curve
    assert known[-1] == ("Finn et al. 2017: oracle", (-54.47,), True)
    assert (average, over) == ("mean", "seeds and tasks")
    plot([tmp_path / "short"])
    curves, known, average, over, of, trimmed = drawn["adaptation_curve"]
    assert [point.value for point in curves["MAML (1 seed)"]] == [0, 1]
    assert (known, average, over) == ((), "interquartile mean", "tasks")
    assert (of, trimmed) == ("return", None)


@pytest.mark.usefixtures("unwritten")
def test_paths_say_whose_they_are(run: Path, tmp_path: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    random = meta_train(tiny(method="random"), tmp_path / "random", quiet=True)
    plot([random, run], tmp_path / "pictures")
    assert drawn["navigation_paths"][4] == "MAML, seed 1"


def test_what_cannot_be_drawn_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to plot: give one or more run folders"):
        plot([])
    with pytest.raises(InputError, match=r"is not a run folder: it has no config\.toml"):
        plot([tmp_path])
    (run / "evaluation.json").write_text(json.dumps({"mean": [1.0]})[:-3])
    with pytest.raises(InputError, match=r"evaluation\.json is damaged: .*evaluate the run again"):
        plot([run])
    (run / "evaluation.json").write_text("[1]")
    with pytest.raises(InputError, match=r"evaluation\.json is not an evaluation of this package"):
        plot([run])
    (run / "evaluation.json").unlink()
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="run has no finished iteration yet: train on with --resume --out"):
        plot([run])


def test_visited_adds_the_place_after_the_last_live_step() -> None:
    length = torch.tensor([[3, 1]])  # of three steps
    mask = torch.arange(3) < length.unsqueeze(-1)
    observations = torch.arange(12.0).reshape(1, 2, 3, 2) + 1
    final = torch.tensor([[[70.0, 71.0], [80.0, 81.0]]])
    nothing = torch.zeros(1, 2, 3, 2)
    trajectory = Trajectory(observations, nothing, nothing[..., 0], mask, mask[..., 0], final, Normal(nothing, nothing))
    places, seen = visited(trajectory)
    assert places[0, 0].tolist() == [[1, 2], [3, 4], [5, 6], [70, 71]]
    assert places[0, 1, :2].tolist() == [[7, 8], [80, 81]]
    assert seen.tolist() == [[[True] * 4, [True, True, False, False]]]
