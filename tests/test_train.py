"""Training: what it writes, that it learns, and that stopping, resuming and threads change nothing."""

import contextlib
import json
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import probes
import pytest
import torch
from alone import explore_tasks
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import files, rows, same_checkpoint, tiny

import maml_rl
from maml_envs import InputError
from maml_rl import meta_train
from maml_rl.config.rl import Config
from maml_rl.config.toml import parse_toml
from maml_rl.core.streams import Purpose
from maml_rl.core.task_axis import to_rows
from maml_rl.evaluate import summarise
from maml_rl.rl.explore import Exploration
from maml_rl.rl.held_out import HeldOut, draw_for
from maml_rl.rl.learner import Learner, build
from maml_rl.rl.metrics import describe
from maml_rl.runs import checkpoint
from maml_rl.runs.folder import read_config

KEYS = {
    "iteration", "env_steps", "return/0", "return/1", "success/0", "success/1", "std/0", "std/1", "kl/inner",
    "kl/outer", "linesearch/accepted", "linesearch/backtracks", "cg/residual", "grad/norm", "objective/gain",
    "seconds/sampling", "seconds/inner", "seconds/outer",
}  # fmt: skip


@pytest.fixture(scope="module")
def config() -> Config:
    return tiny(iterations=4, evaluation={"every": 2})


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return meta_train(config, tmp_path_factory.mktemp("train") / "run", quiet=True)


def test_a_run_folder_has_everything(run: Path, config: Config) -> None:
    names = {path.name for path in run.iterdir() if not path.name.startswith("events.out.tfevents.")}
    expected = {"config.toml", "metrics.jsonl", "checkpoint.pt", "checkpoint_previous.pt", "best.pt", "lock"}
    assert names | {"lock"} == expected
    policy = config.policy.model_copy(update={"action_scale": 1.0})  # the defaults, by name and number
    assert read_config(run) == config.model_copy(update={"preset": "finn2017", "policy": policy})
    last, before = checkpoint.load(run / "checkpoint.pt"), checkpoint.load(run / "checkpoint_previous.pt")
    assert (before.iteration, last.iteration) == (3, 4)
    assert parse_toml(last.config, "checkpoint") == read_config(run)
    start = build(config).initial_params()
    assert any(row["linesearch/accepted"] for row in rows(run))
    assert all(not torch.equal(last.theta[name], start[name]) for name in start)


def test_metrics_have_every_key_in_every_row(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in lines] == [0, 1, 2, 3]
    for row in lines:
        assert set(row) >= KEYS
        assert np.isfinite(list(row.values())).all()
        assert row["seconds/sampling"] > 0
        assert row["seconds/outer"] > 0


def test_tensorboard_has_the_same_numbers(run: Path) -> None:
    events = EventAccumulator(str(run)).Reload()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert set(events.Tags()["scalars"]) == set().union(*lines) - {"iteration"}
    for tag in KEYS - {"iteration"}:
        read = [(event.step, event.value) for event in events.Scalars(tag)]
        assert read == [(row["iteration"], np.float32(row[tag])) for row in lines], tag


def test_evaluation_every_n_iterations(run: Path, config: Config, tmp_path: Path) -> None:
    logged = [[row[f"evaluation/{k}"] for k in range(3)] if "evaluation/0" in row else None for row in rows(run)]
    assert [found is not None for found in logged] == [False, True, False, True]
    meta_train(config.model_copy(update={"iterations": 2}), tmp_path, quiet=True)
    assert maml_rl.evaluate(tmp_path).mean.tolist() == logged[1]
    last = maml_rl.evaluate(shutil.copytree(run, tmp_path / "copy"))
    assert last.mean.tolist() == logged[3]
    success = last.mean_success()
    assert success is not None
    assert [rows(run)[3][f"evaluation/success/{k}"] for k in range(3)] == success.tolist()


def test_steps_are_counted(tmp_path: Path) -> None:
    meta_train(tiny(env="probes:Probe", horizon=3, tasks=3, episodes=2, inner={"steps": 2}), tmp_path / "a", quiet=True)
    assert [row["env_steps"] for row in rows(tmp_path / "a")] == [3 * 2 * 3 * 3, 2 * 3 * 2 * 3 * 3]
    assert checkpoint.load(tmp_path / "a/checkpoint.pt").env_steps == 108
    # of three steps the environment lives for two; the one rollout has the episodes of both of MAML's
    short = tiny(env="probes:Short", horizon=3, tasks=3, episodes=2, method="pretrained")
    meta_train(short, tmp_path / "b", quiet=True)
    assert [row["env_steps"] for row in rows(tmp_path / "b")] == [3 * 4 * 2, 2 * 3 * 4 * 2]


def described(learner: Learner, exploration: Exploration) -> dict[str, float]:
    (row,) = to_rows(describe(learner.policy, exploration))
    return row


def test_metrics_follow_from_what_was_sampled() -> None:
    changes = {"policy": {"min_std": 0.9}, "baseline": {"name": "none"}}
    learner = build(tiny(env="probes:Short", horizon=4, tasks=3, **changes))
    theta, tasks = learner.initial_params() | {"log_std": torch.tensor([-1.0])}, learner.training_tasks(0)
    exploration = explore_tasks(learner, theta, tasks, 2, [0.5, 0.5])
    row = described(learner, exploration)
    assert [row[f"return/{k}"] for k in range(3)] == [2.0, 2.0, 2.0]
    assert [row[f"std/{k}"] for k in range(3)] == [pytest.approx(0.9)] * 3  # the floor
    assert row["share_worse"] == 0
    # the observation is always 1, so the KL is the same at every step of a task
    seen, adapted = (
        torch.ones(1),
        [{n: value[k] for n, value in exploration.params_by_step[-1].items()} for k in range(3)],
    )
    kl = [learner.policy(theta, seen).kl(learner.policy(params, seen)).item() for params in adapted]
    assert min(kl) > 1e-6
    assert row["kl/inner"] == pytest.approx(np.mean(kl), rel=1e-4)
    log_std = [batch.behaviour.log_std[:, 0, 0, 0] for batch in exploration.batches]
    entropy = [float((each + 0.5 * np.log(2 * np.pi * np.e)).mean()) for each in log_std]
    assert [row[f"entropy/{k}"] for k in range(3)] == pytest.approx(entropy)
    better = exploration.outcomes[0]._replace(returns=exploration.outcomes[0].returns + exploration.outcomes[0].steps)
    worse = exploration._replace(outcomes=[better, *exploration.outcomes[1:]])
    assert described(learner, worse)["share_worse"] == 1


def test_success_is_the_share_of_episodes_that_succeed() -> None:
    learner = build(tiny())
    # steps of about 0.001: the first ends within 0.01 of the origin, and five come nowhere near 0.4
    theta = learner.initial_params() | {"log_std": torch.full((2,), -4.6)}
    tasks = torch.tensor([[0.0, 0.0], [0.4, 0.4], [-0.4, 0.4], [0.4, -0.4]])
    exploration = explore_tasks(learner, theta, tasks, 3, [0.0])
    row = described(learner, exploration)
    assert [row["success/0"], row["success/1"]] == [0.25, 0.25]
    held_out = HeldOut(draw_for(learner, tasks, 3, Purpose.TRAINING), exploration, [0.0])
    found = summarise(learner, held_out, "in")
    np.testing.assert_array_equal(found.success, [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(found.mean_success(), [0.25, 0.25])


def test_nothing_is_said_of_success_where_the_environment_reports_none(tmp_path: Path) -> None:
    run = meta_train(tiny(env="probes:Probe", evaluation={"every": 1}), tmp_path / "run", quiet=True)
    assert not [key for row in rows(run) for key in row if "success" in key]
    result = maml_rl.evaluate(run)
    assert (result.success, result.mean_success()) == (None, None)


def test_the_best_has_the_parameters_that_scored_best(run: Path) -> None:
    score = [row["return/1"] for row in rows(run)]
    best, last = checkpoint.load(run / "best.pt"), checkpoint.load(run / "checkpoint.pt")
    assert best.iteration == int(np.argmax(score))  # the parameters before that iteration's step sampled it
    assert last.best_return == max(score)


def test_the_seed_decides_everything(run: Path, config: Config, tmp_path: Path) -> None:
    again = meta_train(config, tmp_path / "again", quiet=True)
    assert same_checkpoint(run / "checkpoint.pt", again / "checkpoint.pt")
    assert rows(run) == rows(again)
    other = meta_train(config.model_copy(update={"seed": 2}), tmp_path / "other", quiet=True)
    assert not same_checkpoint(run / "checkpoint.pt", other / "checkpoint.pt")
    assert all(a["return/0"] != b["return/0"] for a, b in zip(rows(run), rows(other), strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation": {"every": 2}},
        {"env": "half-cheetah-dir", "inner": {"steps": 2, "estimator": "dice"}},
    ],
    ids=["navigation", "half-cheetah-dir"],
)
def test_resuming_equals_not_having_stopped(changes: dict[str, Any], tmp_path: Path) -> None:
    whole = meta_train(tiny(iterations=4, **changes), tmp_path / "whole", quiet=True)
    parts = tmp_path / "parts"
    for iterations in (1, 3, 3, 4):
        meta_train(tiny(iterations=iterations, **changes), parts, resume=True, quiet=True)
    for name in ("checkpoint.pt", "checkpoint_previous.pt", "best.pt"):
        assert same_checkpoint(whole / name, parts / name), name
    assert rows(whole) == rows(parts)


def test_a_crash_between_log_and_checkpoint_is_mended(run: Path, config: Config, tmp_path: Path) -> None:
    broken = meta_train(config.model_copy(update={"iterations": 2}), tmp_path / "broken", quiet=True)
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 2, "return/0": 1000.0, "env_steps": 5}\n{"iteration": 3, "retu')
    (broken / "checkpoint.pt.tmp").write_bytes(b"half")
    meta_train(config, broken, resume=True, quiet=True)
    assert same_checkpoint(run / "checkpoint.pt", broken / "checkpoint.pt")
    assert rows(run) == rows(broken)


def test_resuming_what_is_finished_changes_nothing(run: Path, config: Config) -> None:
    before = {name: content for name, content in files(run).items() if not name.startswith("events")}
    meta_train(config, run, resume=True, quiet=True)
    assert {name: content for name, content in files(run).items() if not name.startswith("events")} == before


def test_what_a_resumed_run_changed_is_in_its_checkpoint(tmp_path: Path) -> None:
    meta_train(tiny(iterations=1), tmp_path / "run", quiet=True)
    changed = tiny(iterations=2, evaluation={"tasks": 5}, policy={"action_scale": 1.0})
    meta_train(changed, tmp_path / "run", resume=True, quiet=True)
    assert parse_toml(checkpoint.load(tmp_path / "run/checkpoint.pt").config, "checkpoint") == changed.model_copy(
        update={"preset": "finn2017"}
    )
    assert len(maml_rl.evaluate(tmp_path / "run").tasks) == 5


def test_threads_change_no_bit(tmp_path: Path) -> None:
    # 2500 steps a task: every task is a slice of its own
    wide = {"tasks": 5, "episodes": 50, "horizon": 50, "inner": {"estimator": "lvc"}}
    one, two = (meta_train(tiny(threads=n, **wide), tmp_path / str(n), quiet=True) for n in (1, 2))
    assert same_checkpoint(one / "checkpoint.pt", two / "checkpoint.pt")
    assert rows(one) == rows(two)


def test_adaptation_finds_the_known_optimum(tmp_path: Path) -> None:
    config = tiny(
        env="probes:Target", horizon=1, tasks=4, episodes=20, iterations=30,
        outer={"max_kl": 0.1, "fisher_subsample": 1}, evaluation={"tasks": 10, "episodes": 100, "steps": 1},
    )  # fmt: skip
    run = meta_train(config, tmp_path / "run", quiet=True)
    assert rows(run)[0]["return/0"] == pytest.approx(-2, abs=0.6)  # noise of variance 1 around a mean near 0
    before, after = maml_rl.evaluate(run).mean
    assert before < -0.95  # no single policy is better than -1 on both tasks
    assert after > -0.4
    with maml_rl.load(run) as agent:
        left, right = (agent.adapt([task], episodes=100).act([1.0], deterministic=True).item() for task in (-1.0, 1.0))
    assert left < -0.5
    assert right > 0.5


def test_one_policy_for_all_tasks_finds_its_own_optimum(tmp_path: Path) -> None:
    config = tiny(
        env="probes:Target", horizon=1, tasks=4, episodes=20, iterations=30, method="pretrained",
        outer={"max_kl": 0.1, "fisher_subsample": 1}, evaluation={"tasks": 10, "episodes": 100, "steps": 0},
    )  # fmt: skip
    run = meta_train(config, tmp_path / "run", quiet=True)
    assert rows(run)[0]["return/0"] == pytest.approx(-2, abs=0.6)
    (mean,) = maml_rl.evaluate(run).mean
    assert mean == pytest.approx(-1, abs=0.3)
    assert all(row["kl/inner"] == pytest.approx(0, abs=1e-6) for row in rows(run))


def test_what_comes_after_the_end_of_an_episode_counts_nowhere(tmp_path: Path) -> None:
    run = meta_train(tiny(env="probes:Short", horizon=4), tmp_path / "run", quiet=True)
    assert [row["return/1"] for row in rows(run)] == [2.0, 2.0]
    assert maml_rl.evaluate(run).mean.tolist() == [2.0, 2.0, 2.0]


def test_nan_in_an_evaluation_keeps_the_state_before(tmp_path: Path) -> None:
    config = tiny(env="probes:BadHeldOut", horizon=3, iterations=3, evaluation={"every": 2})
    with pytest.raises(FloatingPointError, match="rewards of task 0, episode 0, step 0"):
        meta_train(config, tmp_path / "run", quiet=True)
    assert checkpoint.load(tmp_path / "run/checkpoint.pt").iteration == 1
    assert same_checkpoint(tmp_path / "run/checkpoint.pt", tmp_path / "run/failed.pt")
    assert len(rows(tmp_path / "run")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_iteration(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(env="probes:Signals", horizon=3, iterations=4)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(probes.Signals, "plan", {4: (number,)})  # the second iteration
    with pytest.raises(
        maml_rl.Stopped, match=f"stopped by {number.name}; continue with --resume --out .*run"
    ) as caught:
        meta_train(config, tmp_path / "run", quiet=True)
    assert caught.value.signum == number
    assert checkpoint.load(tmp_path / "run/checkpoint.pt").iteration == 2
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    monkeypatch.setattr(probes.Signals, "plan", {})
    whole = meta_train(config, tmp_path / "whole", quiet=True)
    meta_train(config, tmp_path / "run", resume=True, quiet=True)
    assert same_checkpoint(whole / "checkpoint.pt", tmp_path / "run/checkpoint.pt")
    assert rows(whole) == rows(tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(env="probes:Signals", horizon=3, iterations=4)
    monkeypatch.setattr(probes.Signals, "plan", {4: (signal.SIGINT, number)})
    with pytest.raises(KeyboardInterrupt) as caught:
        meta_train(config, tmp_path / "run", quiet=True)
    assert caught.value.args == (number,)
    assert checkpoint.load(tmp_path / "run/checkpoint.pt").iteration == 1
    monkeypatch.setattr(probes.Signals, "plan", {})
    meta_train(config, tmp_path / "run", resume=True, quiet=True)
    assert checkpoint.load(tmp_path / "run/checkpoint.pt").iteration == 4


def test_training_works_beside_the_main_thread(tmp_path: Path) -> None:
    thread = threading.Thread(target=meta_train, args=(tiny(iterations=1), tmp_path / "run"), kwargs={"quiet": True})
    thread.start()
    thread.join()
    assert checkpoint.load(tmp_path / "run/checkpoint.pt").iteration == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"env": "half-cheeta-dir"}, r"env = 'half-cheeta-dir' is not an environment; did you mean half-cheetah-dir"),
        ({"env": "zzz"}, "env = 'zzz' is not an environment; known names: navigation, "),
        ({"env": "nowhere:Env"}, "env = 'nowhere:Env': no module 'nowhere'"),
        ({"env": "probes:Nothing"}, "probes .*has no 'Nothing'; its environment classes: .*'Target'"),
        ({"env": "json:loads"}, "env = 'json:loads' is not an environment class"),
        ({"preset": "promp"}, "preset = 'promp' does not exist for navigation; its presets: finn2017"),
        ({"device": "gpu"}, "device = 'gpu' is not a device: use auto, cpu or cuda"),
        ({"device": "meta"}, "device = 'meta' is not supported: use auto, cpu or cuda"),
        pytest.param(
            {"device": "cuda"},
            "device = 'cuda', but torch finds no CUDA GPU here: use device = 'cpu'",
            marks=pytest.mark.skipif("torch.cuda.is_available()", reason="there is a GPU"),
        ),
    ],
)
def test_what_cannot_be_run_writes_nothing(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem):
        meta_train(tiny(**changes), tmp_path / "run", quiet=True)
    assert not any(tmp_path.iterdir())


def test_a_refused_folder_lets_go_of_the_environments(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    monkeypatch.setattr(probes.Probe, "close", lambda env: closed.append(env))
    with contextlib.suppress(InputError):
        meta_train(tiny(env="probes:Probe"), run, quiet=True)
    assert len(closed) == 1


def test_the_entropy_is_the_mean_over_live_steps() -> None:
    """Logits differ from state to state, so that one step's entropy is not the batch's."""
    learner = build(tiny(env="tabular-mdp", horizon=6))
    theta, tasks = learner.initial_params(), learner.training_tasks(0)
    exploration = explore_tasks(learner, theta, tasks, 3, [1.0])
    entropy = exploration.batches[0].behaviour.entropy()
    assert described(learner, exploration)["entropy/0"] == pytest.approx(float(entropy.mean()), rel=1e-5)
    assert entropy.std() > 1e-3
