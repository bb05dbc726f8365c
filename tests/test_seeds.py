"""Several seeds in one process: each as it would be alone, from one batch of episodes."""

import signal
import tomllib
from pathlib import Path
from typing import Any

import few_shot
import filelock
import pytest
import tomli_w
import torch
from probes import Signals
from ranks import command as of_rank
from ranks import launch
from tiny import TINY, Command, files, rows, same_checkpoint, tiny

from envs import InputError, navigation
from maml_rl import Stopped, checkpoint, meta_train, meta_train_seeds
from maml_rl.learner import build, explore_training
from maml_rl.supervised.train import meta_train as train_few_shot
from maml_rl.supervised.train import meta_train_seeds as train_few_shot_seeds

SEEDS = (1, 2, 5)
CONFIG: dict[str, Any] = {
    "tasks": 3,
    "episodes": 4,
    "iterations": 4,
    "outer": {"damping": 0.1},
    "inner": {"learn_lr": True},
    "evaluation": {"tasks": 3, "episodes": 2, "steps": 2, "every": 2},
}


def folders(parent: Path, seeds: tuple[int, ...] = SEEDS) -> dict[int, Path]:
    return {seed: parent / f"s{seed}" for seed in seeds}


def alike(one: Path, other: Path) -> None:
    """The same run up to the rounding of matrix products of another size."""
    assert (one / "config.toml").read_text().split("[config]")[1] == (other / "config.toml").read_text().split(
        "[config]"
    )[1]
    ours, theirs = rows(one), rows(other)
    assert [row["iteration"] for row in ours] == [row["iteration"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        residual = {"cg/residual": b["cg/residual"]}  # itself of rounding's size
        assert a | residual == pytest.approx(b, rel=1e-3, abs=1e-3)
    a, b = (checkpoint.load(run / "checkpoint.pt") for run in (one, other))
    assert (a.iteration, a.env_steps) == (b.iteration, b.env_steps)
    for name, value in a.theta.items():
        torch.testing.assert_close(value, b.theta[name], rtol=1e-2, atol=2e-3)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    parent = tmp_path_factory.mktemp("alone")
    return {seed: meta_train(tiny(seed=seed, **CONFIG), out, quiet=True) for seed, out in folders(parent).items()}


def test_each_is_what_it_is_alone(alone: dict[int, Path], tmp_path: Path) -> None:
    runs = meta_train_seeds(tiny(**CONFIG), folders(tmp_path), quiet=True)
    assert runs == list(folders(tmp_path).values())
    for run, other in zip(runs, alone.values(), strict=True):
        alike(run, other)
        assert {path.name.split(".")[0] for path in run.iterdir()} == {
            path.name.split(".")[0] for path in other.iterdir()
        }
        assert tomllib.loads((run / "config.toml").read_text())["config"]["seed"] == int(run.name[1:])
    assert rows(runs[0])[0]["return/0"] != rows(runs[1])[0]["return/0"]


def test_seeds_have_their_own_tasks_and_noise_in_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    step = navigation.Navigation.step
    monkeypatch.setattr(
        navigation.Navigation, "step", lambda env, action: (sizes.append(len(action)), step(env, action))[1]
    )
    built = build(tiny(**CONFIG))
    learners = [built.with_seed(seed) for seed in SEEDS]
    thetas = [{name: value.double() for name, value in learner.initial_params().items()} for learner in learners]
    sizes.clear()
    together = explore_training(learners, thetas, 3)
    assert sum(sizes) == 2 * 5 * 3 * 3 * 4  # rollouts, steps, seeds, tasks, episodes
    assert len(sizes) == 2 * 5 * len(built.envs)
    for learner, theta, found in zip(learners, thetas, together, strict=True):
        expected = learner.explore_training(theta, 3)
        for ours, theirs in zip(found.trajectories, expected.trajectories, strict=True):
            torch.testing.assert_close(ours.observations, theirs.observations, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(ours.rewards, theirs.rewards, rtol=1e-9, atol=1e-12)
        for name, value in found.chain[-1].items():
            torch.testing.assert_close(value, expected.chain[-1][name], rtol=1e-9, atol=1e-12)
    one, other = (found.trajectories[0].observations for found in together[:2])
    assert not torch.equal(one, other)


def test_runs_that_are_behind_catch_up_first(alone: dict[int, Path], tmp_path: Path) -> None:
    outs = folders(tmp_path)
    meta_train(tiny(seed=2, **CONFIG | {"iterations": 3}), outs[2], quiet=True)
    meta_train(tiny(seed=5, **CONFIG | {"iterations": 1}), outs[5], quiet=True)
    for run, other in zip(meta_train_seeds(tiny(**CONFIG), outs, resume=True, quiet=True), alone.values(), strict=True):
        alike(run, other)
    before = {seed: files(out) for seed, out in outs.items()}
    for iterations in (4, 2):  # nothing is left to do
        meta_train_seeds(tiny(**CONFIG | {"iterations": iterations}), outs, resume=True, quiet=True)
        assert {seed: files(out) for seed, out in outs.items()} == before


def test_a_folder_that_cannot_be_used_is_refused_before_any_is_made(alone: dict[int, Path], tmp_path: Path) -> None:
    before = files(alone[2])
    with pytest.raises(InputError, match="s2 already holds a run"):
        meta_train_seeds(tiny(**CONFIG), {1: tmp_path / "s1", 2: alone[2]}, quiet=True)
    assert not (tmp_path / "s1").exists()
    more = tiny(**CONFIG | {"iterations": 6, "tasks": 4})
    with pytest.raises(InputError, match="s2 was trained with another configuration"):
        meta_train_seeds(more, {1: tmp_path / "s1", 2: alone[2]}, resume=True, quiet=True)
    with filelock.FileLock(alone[2] / "lock"), pytest.raises(InputError, match="s2 is in use by another process"):
        meta_train_seeds(tiny(**CONFIG), {1: tmp_path / "s1", 2: alone[2]}, resume=True, quiet=True)
    assert not files(tmp_path / "s1")
    assert files(alone[2]) == before
    with pytest.raises(InputError, match="give each seed its own"):
        meta_train_seeds(tiny(**CONFIG), {1: tmp_path / "s1", 2: tmp_path / "s1"}, quiet=True)
    with pytest.raises(InputError, match="give each seed its own"):
        meta_train_seeds(tiny(**CONFIG), {}, quiet=True)


def test_nan_keeps_the_states_before(tmp_path: Path) -> None:
    config = tiny(env="probes:Diverging", tasks=3, horizon=3, iterations=5)
    with pytest.raises(
        FloatingPointError, match=r"iteration 1: seed 1: rewards of task 2.*/s1/failed\.pt, .*/s2/failed\.pt"
    ):
        meta_train_seeds(config, folders(tmp_path / "runs", (1, 2)), quiet=True)
    for run in folders(tmp_path / "runs", (1, 2)).values():
        assert same_checkpoint(run / "failed.pt", run / "checkpoint.pt")
        assert checkpoint.load(run / "failed.pt").iteration == 1


def test_a_signal_stops_all_after_the_iteration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Signals, "plan", {4: (signal.SIGTERM,)})
    config, outs = tiny(env="probes:Signals", horizon=3, iterations=4), folders(tmp_path / "runs", (1, 2))
    with pytest.raises(Stopped, match=r"continue with --resume$"):
        meta_train_seeds(config, outs, quiet=True)
    assert [len(rows(out)) for out in outs.values()] == [2, 2]


def test_nan_in_few_shot_learning_names_its_seed(tmp_path: Path) -> None:
    config = few_shot.tiny(outer={"lr": 1e30}, iterations=20, log_every=10)
    with pytest.raises(FloatingPointError, match=r"iterations 0 to 9: seed 1: in \d, the meta-gradient of task"):
        train_few_shot_seeds(config, folders(tmp_path / "runs", (1, 2)), quiet=True)


def test_few_shot_learning_has_seeds_too(tmp_path: Path) -> None:
    for run in train_few_shot_seeds(few_shot.tiny(), folders(tmp_path / "runs", (1, 2)), quiet=True):
        seed = int(run.name[1:])
        other = train_few_shot(few_shot.tiny(seed=seed), tmp_path / f"alone{seed}", quiet=True)
        assert [row["loss"] for row in rows(run)] == [row["loss"] for row in rows(other)]
        assert same_checkpoint(run / "checkpoint.pt", other / "checkpoint.pt")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(tomli_w.dumps(TINY))
    return tmp_path


def test_the_command(command: Command, folder: Path) -> None:
    code, out, err = command("train", "small.toml", "--seeds", "3", "4")
    assert code == 0, err
    assert out.startswith("trained: runs/small/s3 runs/small/s4\n")
    assert err.count("navigation 2/2") == 1
    assert command("compare", "runs/small/s3", "runs/small/s4")[0] == 2  # not evaluated yet
    assert command("evaluate", "runs/small/s3", "runs/small/s4")[0] == 0
    code, _, err = command("train", "small.toml", "--seeds", "3", "4", "--out", "runs/small")
    assert (code, err.count("runs/small/s3 already holds a run")) == (2, 1)
    code, _, err = command("train", "small.toml", "--seeds", "3", "3", "--out", "other")
    assert (code, err) == (2, "error: --seeds 3 3: give one or more, each once\n")
    for flags, said in (
        (("--seeds",), "--seeds: give one or more, each once"),
        (("--seeds", "1", "2", "--seed", "1"), "give --seeds once, and then no --seed"),
        (("--seeds", "1", "--seeds", "2"), "give --seeds once, and then no --seed"),
        (("--seeds", "-1", "2"), "seed"),
        (("--seeds", "99999999999999999999", "2"), "seed"),
    ):
        code, _, err = command("train", "small.toml", *flags, "--out", "other")
        assert code == 2
        assert said in err
        assert "Traceback" not in err
    assert not (folder / "other").exists()


def test_seeds_over_ranks(alone: dict[int, Path], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(tomli_w.dumps(tiny(**CONFIG).model_dump(mode="json", exclude_none=True)))
    train = ("train", tmp_path / "config.toml", "--seeds", "1", "2", "--out", tmp_path / "runs")
    ended = launch(tmp_path / "log", 2, of_rank, *train)
    assert ended.code == 0, ended.err
    for seed, run in folders(tmp_path / "runs", (1, 2)).items():
        alike(run, alone[seed])
