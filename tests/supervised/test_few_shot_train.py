"""Few-shot training: what it writes, that it learns, and that stopping, resuming and threads change nothing."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alone import adam_step
from few_shot import learner_of, slope_of, tiny
from tiny import files, same_checkpoint
from tiny import tiny as tiny_rl

import maml_rl
from maml_envs import InputError
from maml_rl import Stopped
from maml_rl.config.toml import parse_toml
from maml_rl.evaluate import evaluate, load_agent, load_learner
from maml_rl.results import plot
from maml_rl.runs import checkpoint
from maml_rl.runs.folder import read_config
from maml_rl.supervised import Sinusoid, TaskBatch
from maml_rl.supervised.measures import adapted_errors
from maml_rl.train import meta_train


class Broken(Sinusoid):
    """NaN in the targets of the training tasks that are drawn third and later."""

    drawn = 0

    def sample_tasks(self, count: int, generator: torch.Generator) -> TaskBatch:
        batch = super().sample_tasks(count, generator)
        Broken.drawn += 1
        return batch._replace(query=batch.query._replace(targets=batch.query.targets * self.factor()))

    def factor(self) -> float:
        return float("nan") if Broken.drawn > 5 else 1.0  # two draws are the look before training

    def held_out_tasks(self, count: int, split: str = "test") -> TaskBatch:
        return Sinusoid(10, 10).held_out_tasks(count, split)


class Signals(Broken):
    """A signal arrives while the third tasks are drawn."""

    number = signal.SIGTERM

    def factor(self) -> float:
        if Broken.drawn == 5:
            signal.raise_signal(self.number)
        return 1.0


@pytest.fixture(autouse=True)
def start_counting() -> None:
    Broken.drawn = 0


def rows(run: Path) -> list[dict[str, float]]:
    """Metrics without the seconds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in lines]


def test_a_run_folder_has_everything(tmp_path: Path) -> None:
    config = tiny(iterations=6, evaluation={"every": 4})
    run = meta_train(config, tmp_path / "run", quiet=True)
    names = {path.name for path in run.iterdir() if not path.name.startswith("events.out.tfevents.")}
    expected = {"config.toml", "metrics.jsonl", "checkpoint.pt", "checkpoint_previous.pt", "best.pt", "lock"}
    assert names | {"lock"} == expected
    assert read_config(run) == config
    last, before = checkpoint.load(run / "checkpoint.pt"), checkpoint.load(run / "checkpoint_previous.pt")
    assert (before.iteration, last.iteration, last.env_steps) == (4, 6, 0)
    assert parse_toml(last.config, "checkpoint") == config
    found = rows(run)
    assert [row["iteration"] for row in found] == [0, 2, 4]
    assert [set(row) - {"iteration", "loss", "grad/norm"} for row in found] == [
        set(), {f"validation/error/{k}" for k in range(3)}, set()
    ]  # fmt: skip
    assert last.best_return == -found[1]["validation/error/2"]


@pytest.mark.parametrize(("before", "after"), [({}, {"every": 2}), ({"every": 2}, {}), ({"every": 2}, {"steps": 1})])
def test_the_best_is_judged_anew_where_what_judges_changes(before: Any, after: Any, tmp_path: Path) -> None:
    """Losses of training and errors of validation tasks are not compared."""
    after = {"every": before.get("every", 0)} | after if "steps" in after else after
    run = meta_train(tiny(evaluation=before), tmp_path / "run", quiet=True)
    best = checkpoint.load(run / "checkpoint.pt")
    checkpoint.save(run / "checkpoint.pt", best._replace(best_return=1e9))  # nothing later would be better
    meta_train(tiny(evaluation=after, iterations=6), run, resume=True, quiet=True)
    row = rows(run)[-1]
    score = row[f"validation/error/{after.get('steps', 2)}"] if after.get("every") else row["loss"]
    assert checkpoint.load(run / "checkpoint.pt").best_return == -score
    assert checkpoint.load(run / "best.pt").iteration == (6 if after.get("every") else 4)
    same = meta_train(tiny(evaluation=after, iterations=8), run, resume=True, quiet=True)
    assert checkpoint.load(same / "checkpoint.pt").best_return >= -score


@pytest.mark.parametrize("every", [0, 2])
def test_the_best_is_by_training_loss_or_where_there_are_some_by_validation_tasks(every: int, tmp_path: Path) -> None:
    config = tiny(iterations=12, outer={"lr": 0.3}, evaluation={"every": every})
    run = meta_train(config, tmp_path / "run", quiet=True)
    found, best = rows(run), checkpoint.load(run / "best.pt")
    if not every:
        assert best.iteration == 2 * int(np.argmin([row["loss"] for row in found]))
        return
    scores = [row["validation/error/2"] for row in found]
    assert best.iteration == 2 * (1 + int(np.argmin(scores))) < 12
    learner, theta = load_learner(run, "best")
    measured = adapted_errors(learner, theta, 6, 2, "validation")["error"][:, 2].mean()
    assert measured == pytest.approx(min(scores), rel=1e-6) == pytest.approx(-best.best_return, rel=1e-6)


@pytest.mark.parametrize(("name", "lr"), [("adam", 0.01), ("reptile", 0.5)])
def test_training_is_these_steps(name: str, lr: float, tmp_path: Path) -> None:
    outer = {"name": name, "lr": lr}
    run = meta_train(tiny(outer=outer), tmp_path / "run", quiet=True)
    learner = learner_of(outer=outer)
    theta, state, losses = learner.initial_params(), {}, []
    for iteration in range(4):
        loss, gradient = slope_of(learner, theta, learner.training_tasks(iteration))
        losses.append(float(loss))
        if name == "adam":
            theta, state = adam_step(theta, state, gradient, lr, maximise=False)
        else:
            theta = {key: value - lr * gradient[key] for key, value in theta.items()}
    saved = checkpoint.load(run / "checkpoint.pt")
    assert all(torch.equal(saved.theta[key], theta[key]) for key in theta)
    assert saved.outer.keys() == state.keys()
    assert [row["loss"] for row in rows(run)] == pytest.approx([np.mean(losses[:2]), np.mean(losses[2:])])


VARIANTS: dict[str, dict[str, Any]] = {
    "sinusoid": {"evaluation": {"every": 2}},
    "reptile": {"outer": {"name": "reptile", "lr": 0.5}},
    "learned rates": {"inner": {"learn_lr": True}},
    "convolutional": {"data": "few_shot:Blobs", "model": {"name": "convolutional", "batch_norm": True, "hidden": [4]}},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_resuming_equals_not_having_stopped(changes: dict[str, Any], tmp_path: Path) -> None:
    whole = meta_train(tiny(iterations=8, **changes), tmp_path / "whole", quiet=True)
    for iterations in (2, 6, 6, 8):
        meta_train(tiny(iterations=iterations, **changes), tmp_path / "parts", resume=True, quiet=True)
    for name in ("checkpoint.pt", "checkpoint_previous.pt", "best.pt"):
        assert same_checkpoint(whole / name, tmp_path / "parts" / name), name
    one, other = (checkpoint.load(run / "checkpoint.pt").outer for run in (whole, tmp_path / "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert rows(whole) == rows(tmp_path / "parts")


def test_how_often_a_row_is_written_changes_no_parameter(tmp_path: Path) -> None:
    one, other = (meta_train(tiny(log_every=n), tmp_path / str(n), quiet=True) for n in (1, 4))
    first, second = (checkpoint.load(run / "checkpoint.pt").theta for run in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert np.mean([row["loss"] for row in rows(one)]) == pytest.approx(rows(other)[0]["loss"])


def test_learned_rates_are_trained(tmp_path: Path) -> None:
    run = meta_train(tiny(inner={"learn_lr": True, "lr": 0.02}), tmp_path / "run", quiet=True)
    theta = checkpoint.load(run / "checkpoint.pt").theta
    rates = {name: value for name, value in theta.items() if name.startswith("lr.")}
    assert len(rates) == 4
    assert all(float((value - 0.02).abs().max()) > 1e-4 for value in rates.values())


def test_nan_keeps_the_state_before(tmp_path: Path) -> None:
    config = tiny(data="test_few_shot_train:Broken", iterations=6)
    with pytest.raises(
        FloatingPointError,
        match=r"iterations 2 to 3: in iteration 3, targets in the query set of task 0 hold NaN or infinity: look at "
        r"what makes the data; the state before iteration 2 is in .*run/failed\.pt",
    ):
        meta_train(config, tmp_path / "run", quiet=True)
    assert checkpoint.load(tmp_path / "run/failed.pt").iteration == 2
    assert same_checkpoint(tmp_path / "run/failed.pt", tmp_path / "run/checkpoint.pt")
    assert [row["iteration"] for row in rows(tmp_path / "run")] == [0]


def test_a_signal_stops_after_the_row(tmp_path: Path) -> None:
    config = tiny(data="test_few_shot_train:Signals", iterations=6)
    with pytest.raises(Stopped, match="stopped by SIGTERM; continue with --resume"):
        meta_train(config, tmp_path / "run", quiet=True)
    assert checkpoint.load(tmp_path / "run/checkpoint.pt").iteration == 4
    Broken.drawn = 10
    meta_train(config, tmp_path / "run", resume=True, quiet=True)
    Broken.drawn = 10
    whole = meta_train(config, tmp_path / "whole", quiet=True)
    assert same_checkpoint(whole / "checkpoint.pt", tmp_path / "run/checkpoint.pt")
    assert rows(whole) == rows(tmp_path / "run")


def test_a_sinusoid_run_learns_to_adapt(tmp_path: Path) -> None:
    config = tiny(
        shots=10, queries=10, tasks=10, iterations=400, log_every=100, model={"hidden": [32, 32]},
        inner={"lr": 0.03}, outer={"lr": 0.005}, evaluation={"tasks": 100, "steps": 1},
    )  # fmt: skip
    run = meta_train(config, tmp_path / "run", quiet=True)
    before, after = evaluate(run).mean
    assert after < 0.75 * before
    assert after < 3.0  # below the best function that does not know the task, 3.0057
    untrained = evaluate(run, which="initial").mean[1]
    assert after < 0.8 * untrained


def test_without_steps_one_model_serves_all_tasks(tmp_path: Path) -> None:
    config = tiny(
        shots=10, queries=10, tasks=20, iterations=400, log_every=100, model={"hidden": [32]},
        method="pretrained", outer={"lr": 0.01}, evaluation={"tasks": 300, "steps": 0},
    )  # fmt: skip
    run = meta_train(config, tmp_path / "run", quiet=True)
    result = evaluate(run)
    floor = result.references["the best function blind to the task"]
    assert result.mean[0] == pytest.approx(floor, abs=0.4)
    assert floor - 0.05 < result.mean[0] < result.references["predicting 0"] - 0.5


def test_another_configuration_is_not_resumed(tmp_path: Path) -> None:
    run = meta_train(tiny(), tmp_path / "run", quiet=True)
    before = files(run)
    with pytest.raises(InputError, match=r"another configuration.*\n  shots: 4 there, 5 now\n  inner\.lr: 0"):
        meta_train(tiny(shots=5, inner={"lr": 0.1}), run, resume=True, quiet=True)
    with pytest.raises(InputError, match="already holds a run"):
        meta_train(tiny(), run, quiet=True)
    assert files(run) == before


def test_the_other_kind_of_run_is_refused(tmp_path: Path) -> None:
    few, reinforced = meta_train(tiny(), tmp_path / "few", quiet=True), tmp_path / "rl"
    maml_rl.meta_train(tiny_rl(iterations=1), reinforced, quiet=True)
    before = files(tmp_path)
    said = "is of few-shot learning; this is for meta-reinforcement learning"
    for call, run in ((load_agent, few), (maml_rl.render, few), (plot.plot, [reinforced, few])):
        with pytest.raises(InputError, match=said):
            call(run)  # type: ignore[operator]
    with pytest.raises(InputError, match=said):
        load_agent(few / "checkpoint.pt")
    said = "is of meta-reinforcement learning; this is for few-shot learning"
    with pytest.raises(InputError, match=said):
        plot.plot([few, reinforced])
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("sinusiod", r"data = 'sinusiod' is neither sinusoid, omniglot, images nor 'my_module:MyTasks'"),
        (":Sinusoid", "is neither sinusoid, omniglot, images nor"),
        ("..few:Sinusoid", "is neither sinusoid, omniglot, images nor"),
        ("nowhere:Tasks", "data = 'nowhere:Tasks': no module 'nowhere' in .* or the installed packages"),
        ("nowhere.inside:Tasks", r"no module 'nowhere\.inside'"),
        ("few_shot:Nothing", "does not make a FewShotTasks when called"),
        ("few_shot:tiny", "does not make a FewShotTasks when called"),
        ("maml_rl.supervised:FewShotTasks", "does not make a FewShotTasks when called: derive a class"),
    ],
)
def test_data_that_does_not_exist_writes_nothing(data: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem):
        meta_train(tiny(data=data), tmp_path / "run", quiet=True)
    assert not any(tmp_path.iterdir())


def test_omniglot_needs_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMNIGLOT_ROOT", raising=False)
    with pytest.raises(InputError, match=r"give root = .* or set OMNIGLOT_ROOT; `maml-rl download-omniglot FOLDER`"):
        meta_train(tiny(data="omniglot"), tmp_path / "run", quiet=True)
    monkeypatch.setenv("OMNIGLOT_ROOT", str(tmp_path / "from_variable"))
    with pytest.raises(InputError, match=r"from_variable/images_background\.zip does not exist"):
        meta_train(tiny(data="omniglot"), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match=r"from_key/images_background\.zip does not exist"):
        meta_train(tiny(data="omniglot", root=str(tmp_path / "from_key")), tmp_path / "run", quiet=True)


def test_validation_in_training_is_of_validation_tasks(tmp_path: Path) -> None:
    run = meta_train(tiny(evaluation={"every": 4}), tmp_path / "run", quiet=True)
    learner, theta = load_learner(run)
    found = adapted_errors(learner, theta, 6, 2, "validation")["error"].mean(0)
    assert [rows(run)[1][f"validation/error/{k}"] for k in range(3)] == pytest.approx(found.tolist())
