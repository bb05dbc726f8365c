"""The baselines: as many episodes as MAML, what each learns, and how they are adapted at test."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alone import explore_training
from probes import Target
from tiny import files, rows, same_checkpoint, tiny

import maml_rl
from maml_envs import InputError
from maml_rl import Evaluation, meta_train
from maml_rl.config.rl import Config
from maml_rl.config.toml import load
from maml_rl.evaluate import load_learner
from maml_rl.rl.held_out import RATE_FACTORS, explore_held_out, tune
from maml_rl.rl.learner import build
from maml_rl.rl.method import MetaRL
from maml_rl.runs import checkpoint
from maml_rl.runs.folder import read_config

BASELINES = ("pretrained", "oracle", "random")
TRAINED = ("pretrained", "oracle")


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("method", ["maml", *TRAINED])
def test_every_method_takes_as_many_environment_steps(method: str, steps: int, tmp_path: Path) -> None:
    config = tiny(env="probes:Probe", horizon=3, tasks=4, episodes=5, method=method, inner={"steps": steps})
    first, second = rows(meta_train(config, tmp_path / "run", quiet=True))
    assert (first["env_steps"], second["env_steps"]) == (4 * 5 * 3 * (1 + steps), 2 * 4 * 5 * 3 * (1 + steps))
    last = steps if method == "maml" else 0
    assert [f"return/{k}" in first for k in (last, last + 1)] == [True, False]
    assert (config.trained_steps, config.trained_episodes) == (last, 5 if method == "maml" else 5 * (1 + steps))


def test_the_score_of_a_baseline_is_its_one_return() -> None:
    row = {"return/0": 3.04}
    method = MetaRL([build(tiny(method="pretrained", inner={"steps": 2}))])
    assert (method.score(row), method.message(row)) == (3.04, "return 3.0")
    row |= {"return/1": 4.0, "return/2": 5.0}
    method = MetaRL([build(tiny(inner={"steps": 2}))])
    assert (method.score(row), method.message(row)) == (5.0, "return 3.0 -> 5.0")


@pytest.mark.parametrize("method", TRAINED)
def test_a_baseline_samples_once(method: str) -> None:
    learner = build(tiny(method=method, inner={"steps": 3}))
    theta = learner.initial_params()
    found = explore_training(learner, theta, 0)
    (batch,), (outcome,), (params,) = found.batches, found.outcomes, found.params_by_step
    assert batch.advantages.shape == (2, 2 * 4, 5)  # tasks, episodes of four rollouts, steps
    assert outcome.returns.shape == (2, 2 * 4)
    assert all(torch.equal(params[name], torch.stack([theta[name]] * 2)) for name in theta)


META: list[dict[str, Any]] = [
    {"inner": {"learn_lr": True}},
    {"inner": {"first_order": True}},
    {"inner": {"adapt": "last", "learn_lr": True}},
    {"outer": {"exploration": 0.5}},
]


@pytest.mark.parametrize("method", BASELINES)
def test_what_is_of_meta_learning_does_not_disturb_a_baseline(method: str, tmp_path: Path) -> None:
    """bandit.toml learns its rates, which a baseline has none of."""
    small: dict[str, Any] = {"tasks": 2, "episodes": 3, "horizon": 4, "iterations": 2, "threads": 1, "device": "cpu"}
    plain = load("bandit", method=method, inner={"learn_lr": False}, **small)
    expected = meta_train(plain, tmp_path / "plain", quiet=True) / "checkpoint.pt"
    assert not [name for name in checkpoint.load(expected).theta if name.startswith("lr.")]
    for number, changes in enumerate(META):
        changed = load("bandit", method=method, **small, **{"inner": {"learn_lr": True}} | changes)
        run = meta_train(changed, tmp_path / str(number), quiet=True)
        assert same_checkpoint(run / "checkpoint.pt", expected), changes
        result = maml_rl.evaluate(run, tasks=2, episodes=2)
        assert np.isfinite(result.returns).all()


@pytest.mark.parametrize(
    "outer",
    [{"name": "promp", "exploration": 0.5, "inner_kl_target": 0.01}, {"name": "adam", "exploration": 0.5}],
    ids=["promp", "adam"],
)
def test_a_baseline_under_every_outer_step(outer: dict[str, Any], tmp_path: Path) -> None:
    config = tiny(method="pretrained", outer=outer, inner={"learn_lr": True}, evaluation={"every": 1})
    run = meta_train(config, tmp_path / "run", quiet=True)
    without = tiny(method="pretrained", outer={"name": outer["name"]}, evaluation={"every": 1})
    theta, expected = (
        checkpoint.load(path / "checkpoint.pt").theta
        for path in (run, meta_train(without, tmp_path / "other", quiet=True))
    )
    assert theta.keys() == expected.keys()
    assert all(torch.equal(theta[name], expected[name]) for name in theta)
    assert all(np.isfinite(list(row.values())).all() for row in rows(run))
    assert "evaluation/2" in rows(run)[0]


TARGET: dict[str, Any] = {
    "env": "probes:Target", "horizon": 1, "tasks": 4, "episodes": 20, "iterations": 30,
    "outer": {"max_kl": 0.1, "fisher_subsample": 1}, "evaluation": {"tasks": 10, "episodes": 100, "steps": 1},
}  # fmt: skip


def test_the_oracle_finds_the_optimum_of_each_task_and_the_pretrained_that_of_all(tmp_path: Path) -> None:
    oracle, pretrained = (
        meta_train(tiny(**TARGET, method=method), tmp_path / method, quiet=True) for method in ("oracle", "pretrained")
    )
    told, blind = (maml_rl.evaluate(run, steps=0) for run in (oracle, pretrained))
    assert told.mean[0] > -0.3
    assert (told.returns.mean((1, 2)) > -0.5).all()  # of either task
    assert blind.mean[0] == pytest.approx(-1, abs=0.3)  # no policy that is not told is better than -1
    with maml_rl.load(oracle) as agent:
        left, right = (agent.adapt([task], steps=0).act([1.0], deterministic=True).item() for task in (-1.0, 1.0))
    assert left == pytest.approx(-1, abs=0.4)
    assert right == pytest.approx(1, abs=0.4)


def test_an_agent_of_an_oracle_takes_the_environments_own_observation(tmp_path: Path) -> None:
    run = meta_train(tiny(method="oracle", iterations=1), tmp_path / "run", quiet=True)
    goal, places = [0.3, -0.2], np.array([[0.1, 0.4], [0.0, 0.0]], np.float32)
    with maml_rl.load(run) as agent:
        policy = agent.adapt(goal, steps=0)
        seen = torch.tensor([[0.1, 0.4, *goal], [0.0, 0.0, *goal]])
        expected = agent.learner.policy(agent.theta, seen).mean.numpy()
        np.testing.assert_allclose(policy.act(places[0], deterministic=True), expected[0], rtol=1e-5)
        np.testing.assert_allclose(
            policy.act(places, deterministic=True), expected, rtol=1e-5
        )  # as many places as the goal has numbers
        np.testing.assert_allclose(policy.act(places[[0, 1, 0]], deterministic=True), expected[[0, 1, 0]], rtol=1e-5)
        assert not np.allclose(agent.adapt([-0.3, 0.2], steps=0).act(places, deterministic=True), expected, atol=1e-3)


def test_the_oracle_takes_no_gradient_step_unless_told(tmp_path: Path) -> None:
    run = meta_train(tiny(method="oracle", iterations=1), tmp_path / "run", quiet=True)
    result = maml_rl.evaluate(run)
    assert (result.steps, result.returns.shape, result.lr.tolist()) == (0, (3, 1, 2), [])
    told = maml_rl.evaluate(run, steps=2)
    assert (told.steps, told.returns.shape, told.lr.tolist()) == (2, (3, 3, 2), [0.1, 0.05])
    np.testing.assert_array_equal(told.returns[:, :1], result.returns)


@pytest.mark.parametrize("method", ["maml", *BASELINES])
def test_the_preset_is_that_of_the_environment_under_every_method(method: str, tmp_path: Path) -> None:
    run = meta_train(tiny(method=method, horizon=None, iterations=1), tmp_path / "run", quiet=True)
    config = read_config(run)
    assert isinstance(config, Config)
    assert (config.method, config.preset, config.horizon) == (method, "finn2017", 100)


def test_a_random_policy_is_the_initial_one(tmp_path: Path) -> None:
    run = meta_train(tiny(method="random", evaluation={"every": 1}), tmp_path / "random", quiet=True)
    names = {path.name for path in run.iterdir() if not path.name.startswith("events.out.tfevents.")}
    assert names - {"lock"} == {"config.toml", "metrics.jsonl", "checkpoint.pt"}
    assert rows(run) == []
    state = checkpoint.load(run / "checkpoint.pt")
    assert (state.iteration, state.env_steps) == (0, 0)
    learner, theta = load_learner(run)
    initial = learner.initial_params()
    assert theta.keys() == initial.keys()
    assert all(torch.equal(theta[name], initial[name]) for name in theta)
    result = maml_rl.evaluate(run)
    assert (result.which, result.iteration, result.lr.tolist()) == ("checkpoint", 0, [0.1, 0.05])
    maml = meta_train(tiny(), tmp_path / "maml", quiet=True)
    np.testing.assert_array_equal(result.returns, maml_rl.evaluate(maml, which="initial").returns)
    assert maml_rl.evaluate(run, which="best").which == "checkpoint"  # it has one kind of parameters


def test_a_random_run_is_refused_and_resumed_like_any_other(tmp_path: Path) -> None:
    config = tiny(method="random")
    run = meta_train(config, tmp_path / "run", quiet=True)
    before = {name: content for name, content in files(run).items() if not name.startswith("events")}
    with pytest.raises(InputError, match="already holds a run"):
        meta_train(config, run, quiet=True)
    meta_train(config.model_copy(update={"iterations": 9}), run, resume=True, quiet=True)
    assert checkpoint.load(run / "checkpoint.pt").iteration == 0
    assert rows(run) == []
    meta_train(config, run, resume=True, quiet=True)
    assert {name: content for name, content in files(run).items() if not name.startswith("events")} == before


@pytest.mark.parametrize(("before", "now"), [("maml", "pretrained"), ("pretrained", "oracle"), ("random", "maml")])
def test_another_method_is_not_resumed(before: str, now: str, tmp_path: Path) -> None:
    run = meta_train(tiny(method=before, iterations=1), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match=f"another configuration; .*\n  method: '{before}' there, '{now}' now"):
        meta_train(tiny(method=now), run, resume=True, quiet=True)


@pytest.mark.parametrize("method", TRAINED)
def test_resuming_a_baseline_equals_not_having_stopped(method: str, tmp_path: Path) -> None:
    whole = meta_train(tiny(method=method, iterations=3), tmp_path / "whole", quiet=True)
    for iterations in (1, 3):
        meta_train(tiny(method=method, iterations=iterations), tmp_path / "parts", resume=True, quiet=True)
    assert same_checkpoint(whole / "checkpoint.pt", tmp_path / "parts/checkpoint.pt")
    assert rows(whole) == rows(tmp_path / "parts")


class Elsewhere(Target):
    """Its held-out tasks cannot be lived in."""

    def held_out_tasks(self, count: int, split: str = "in") -> torch.Tensor:
        return torch.full((count, 1), float("nan"))


@pytest.mark.parametrize("factor", RATE_FACTORS)
@pytest.mark.parametrize("env", ["probes:Target", "test_method:Elsewhere"])
def test_the_best_of_the_rates(env: str, factor: float) -> None:
    """The mean action is a weight plus a bias: it moves by twice the rate times the slope 2 (task - mean).

    The rate 1/4 ends at the task, wherever it is, and the others between 0.3 and 10 times that do not.
    """
    config = tiny(
        env=env, horizon=1, policy={"hidden": [], "init_std": 0.1}, normalise_advantages=False,
        inner={"lr": 0.25 / factor},
    )  # fmt: skip
    learner = build(config)
    theta = {name: value if name == "log_std" else 0 * value for name, value in learner.initial_params().items()}
    assert tune(learner, theta, tasks=4, episodes=500) == pytest.approx(0.25)


class Recorded(Target):
    """Remembers the seeds of its episodes."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds: list[int] = []

    def reset(self, tasks: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        self.seeds += seeds.tolist()
        return super().reset(tasks, seeds)


def test_no_episode_that_counts_was_tuned_on() -> None:
    """Though the tasks of this environment are the same, held out or not."""
    learner = build(tiny(env="test_method:Recorded", horizon=1))
    (env,), theta = learner.sampler.envs, learner.initial_params()
    assert isinstance(env, Recorded)
    env.seeds = []
    tune(learner, theta, tasks=2, episodes=3)
    tuned, env.seeds = env.seeds, []
    explore_held_out(learner, theta, 2, 3, 2, "in")
    assert len(tuned) == len(RATE_FACTORS) * 2 * 6  # before and after a step, each rate on the same episodes
    assert len(set(tuned)) == 2 * 6
    assert len(set(env.seeds)) == 3 * 6
    assert not set(tuned) & set(env.seeds)


def test_a_pretrained_policy_is_adapted_at_the_best_rate(tmp_path: Path) -> None:
    """Which is looked for on other episodes than those that count, and is for the steps that count."""
    config = tiny(
        **TARGET | {"evaluation": {"tasks": 4, "episodes": 50, "steps": 2}, "iterations": 1},
        method="pretrained", policy={"hidden": [], "init_std": 0.1}, normalise_advantages=False, inner={"lr": 0.025},
    )  # fmt: skip
    run = meta_train(config, tmp_path / "run", quiet=True)
    tuned, kept, asked = (maml_rl.evaluate(run, tune_lr=given) for given in (None, False, True))
    assert tuned.lr.tolist() == pytest.approx([0.25, 0.125])
    assert kept.lr.tolist() == [0.025, 0.0125]
    assert tuned.mean[1] > -0.3 > kept.mean[1]
    np.testing.assert_array_equal(tuned.returns, asked.returns)
    np.testing.assert_array_equal(tuned.returns[:, 0], kept.returns[:, 0])
    by_hand = meta_train(
        config.model_copy(update={"inner": config.inner.model_copy(update={"lr": 0.25})}), tmp_path / "b", quiet=True
    )
    np.testing.assert_array_equal(tuned.returns, maml_rl.evaluate(by_hand, tune_lr=False).returns)


@pytest.mark.parametrize("method", ["maml", "random", "oracle"])
def test_only_the_pretrained_are_tuned_unasked(method: str, tmp_path: Path) -> None:
    run = meta_train(tiny(method=method, iterations=1), tmp_path / "run", quiet=True)
    assert maml_rl.evaluate(run, steps=1).lr.tolist() == [0.1]
    rate = maml_rl.evaluate(run, steps=1, tune_lr=True).lr[0]
    assert min(abs(rate - 0.1 * factor) for factor in RATE_FACTORS) < 1e-12


def test_learned_rates_cannot_be_tuned(tmp_path: Path) -> None:
    run = meta_train(tiny(inner={"learn_lr": True}, iterations=1), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="has learned its rates: there is none to tune"):
        maml_rl.evaluate(run, tune_lr=True)
    assert not (run / "evaluation.json").exists()
    assert maml_rl.evaluate(run, tune_lr=False).steps == 2


def test_an_evaluation_in_json_and_back(tmp_path: Path) -> None:
    result = maml_rl.evaluate(meta_train(tiny(env="bandit", iterations=1), tmp_path / "run", quiet=True))
    fields = json.loads(result.to_json())
    assert list(fields) == [
        "version", "values", "which", "iteration", "split", "lr", "tuned", "tasks", "env_steps", "best", "seed",
        "backtracks", "shots", "references",
    ]  # fmt: skip
    assert result.file is not None
    assert result.file.read_text() == result.to_json()
    again = Evaluation.from_json(result.to_json(), "it", result.file)
    assert again.to_json() == result.to_json()
    assert again.file == result.file
    for name in ("tasks", "returns", "mean", "ci95", "lr"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    assert (again.steps, again.env_steps, again.best) == (2, result.env_steps, result.best)
    assert result.returns.shape == (3, 3, 2)
    assert (result.success, result.mean_success()) == (None, None)
    assert result.best is not None


def test_shares_of_success_are_averaged_over_tasks(tmp_path: Path) -> None:
    result = maml_rl.evaluate(meta_train(tiny(iterations=1), tmp_path / "run", quiet=True))
    shares = {"success": np.array([[0.0, 0.5], [1.0, 0.5], [0.5, 0.8]])}
    changed = Evaluation(**vars(result) | {"values": result.values | shares})
    np.testing.assert_allclose(changed.mean_success(), [0.5, 0.6])
