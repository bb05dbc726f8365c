"""Several seeds in one process: each as it would be alone, from one batch of episodes."""

import signal
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import few_shot
import filelock
import pytest
import tomli_w
import torch
from alone import explore_training, meta_iteration, sample_at
from probes import Signals
from ranks import command as of_rank
from ranks import launch
from tiny import TINY, Command, files, rows, same_checkpoint, tiny
from torch import Tensor

from maml_envs import InputError, navigation
from maml_rl import Stopped, meta_train, meta_train_seeds
from maml_rl.core import slices as sliced
from maml_rl.core.tree import Params, Tree, flatten, map_tensors, of_one_seed, stack
from maml_rl.rl.explore import Draw, Exploration, explore
from maml_rl.rl.learner import Learner, build
from maml_rl.rl.method import MetaRL, meta_objective
from maml_rl.rl.outer import trpo
from maml_rl.runs import checkpoint
from maml_rl.runs.checkpoint import Checkpoint
from maml_rl.runs.loop import _joined

SEEDS = (1, 2, 5)
CONFIG: dict[str, Any] = {
    "tasks": 3,
    "episodes": 4,
    "iterations": 4,
    "outer": {"max_kl": 0.01},
    "inner": {"learn_lr": True},
    "evaluation": {"tasks": 3, "episodes": 2, "steps": 2, "every": 2},
}


def explored(learners: Sequence[Learner], theta: Params, iteration: int) -> tuple[Draw, Exploration]:
    """What an iteration of training of several seeds samples."""
    draw = MetaRL(learners, [f"seed {each.config.seed}" for each in learners]).draw(iteration, range(len(learners)))
    return draw, explore(learners[0], theta, draw, [1.0] * learners[0].config.trained_steps)


def close(found: Tree, expected: Tree, tolerance: float = 1e-9) -> None:
    def same(one: Tensor, other: Tensor) -> Tensor:
        torch.testing.assert_close(one, other, rtol=tolerance, atol=min(tolerance, 1e-9))
        return one

    map_tensors(same, found, expected)


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
    draw, together = explored(learners, stack(thetas), 3)
    assert sum(sizes) == 2 * 5 * 3 * 3 * 4  # rollouts, steps, seeds, tasks, episodes
    assert len(sizes) == 2 * 5 * len(built.sampler.envs)
    sampled = [sample_at(built, params, draw, k) for k, params in enumerate(together.params_by_step)]
    for run, (learner, theta) in enumerate(zip(learners, thetas, strict=True)):
        expected, (own_draw, _) = explore_training(learner, theta, 3), explored([learner], of_one_seed(theta), 3)
        own = map_tensors(
            lambda x, run=run: x[3 * run : 3 * run + 3],
            [together.outcomes, together.batches, together.params_by_step[-1], sampled],
        )
        close(own[0], expected.outcomes)
        close(own[1], expected.batches)
        close(own[2], expected.params_by_step[-1])
        close(own[3], [sample_at(learner, params, own_draw, k) for k, params in enumerate(expected.params_by_step)])
    one, other = sampled[0].observations[:6].chunk(2)
    assert not torch.equal(one, other)


OUTER_STEPS: dict[str, dict[str, Any]] = {
    "trpo": {"outer": {"damping": 0.1}, "inner": {"learn_lr": True}},
    "trpo that backtracks": {"outer": {"damping": 0.1, "max_kl": 30.0}, "inner": {"lr": 1.0, "steps": 2}},
    "trpo of the last layer": {"outer": {"damping": 0.1}, "inner": {"adapt": "last", "estimator": "dice"}},
    "trpo at first order": {"outer": {"damping": 0.1}, "inner": {"first_order": True, "learn_lr": True}},
    "promp": {"outer": {"name": "promp", "inner_kl_target": 1e-3}},
    "adam": {"outer": {"name": "adam"}, "inner": {"estimator": "lvc"}},
    "the E-MAML term": {
        "tasks": 4,
        "outer": {"name": "promp", "exploration": 0.5},
        "inner": {"estimator": "log_prob"},
    },
    "pretrained": {"method": "pretrained"},
    "a value network": {"outer": {"name": "adam"}, "baseline": {"name": "value_network"}},
}


@pytest.mark.parametrize("steps_in_a_part", [1, 60, 120, 100_000])  # one task, one run, two runs, all
@pytest.mark.parametrize("name", OUTER_STEPS)
def test_the_outer_steps_of_all_are_those_of_each(
    name: str, steps_in_a_part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice in turn, so that the optimiser's state is carried; in float64."""
    monkeypatch.setattr(sliced, "CPU_STEPS", steps_in_a_part)
    built = build(tiny(**{"tasks": 3, "episodes": 4, "horizon": 5, "compare_gradients": 1} | OUTER_STEPS[name]))
    learners = [built.with_seed(seed) for seed in SEEDS]
    starts = [({key: x.double() for key, x in each.initial_params().items()}, {}) for each in learners]
    alone = [[start] for start in starts]
    for iteration in (0, 1):
        found = meta_iteration(learners, starts, iteration)
        alone = [meta_iteration([one], [own[0][:2]], iteration) for one, own in zip(learners, alone, strict=True)]
        for (theta, state, row), ((own, own_state, own_row),) in zip(found, alone, strict=True):
            close(theta, own, 1e-7)
            close(state, own_state, 1e-7)
            timed = {key: value for key, value in row.items() if key.startswith("seconds/")}
            assert row == pytest.approx(own_row | timed, rel=1e-5, abs=1e-8)
        starts = [(theta, state) for theta, state, _ in found]
    assert len({row["return/0"] for *_, row in found}) == len({row["grad/norm"] for *_, row in found}) == 3
    if name == "trpo that backtracks":
        assert len({row["linesearch/backtracks"] for *_, row in found}) > 1


def test_what_a_run_keeps_is_its_own(tmp_path: Path) -> None:
    """Views of the batch of all runs would be saved with all of it."""
    config = tiny(tasks=2, iterations=1, outer={"name": "adam"})
    runs = meta_train_seeds(config, folders(tmp_path, tuple(range(8))), quiet=True)
    alone = meta_train(config, tmp_path / "alone", quiet=True)
    for run in runs:
        assert abs((run / "checkpoint.pt").stat().st_size - (alone / "checkpoint.pt").stat().st_size) < 100


def test_states_that_differ_in_what_they_hold_are_refused() -> None:
    learner = build(tiny(outer={"name": "adam"}))
    learners = [learner, learner.with_seed(7)]
    starts = [(each.initial_params(), {}) for each in learners]
    (theta, state, _), other = meta_iteration(learners, starts, 0)
    for mixed in ([(theta, state), (other[0], {})], [(theta, {}), other[:2]]):
        with pytest.raises(InputError, match="different states of the optimiser: continue them one by one"):
            _joined([Checkpoint(params, 1, 0, 0.0, "", outer) for params, outer in mixed])
    joined = _joined([Checkpoint(params, 1, 0, 0.0, "", outer) for params, outer in ((theta, state), other[:2])])
    assert all(torch.equal(value[1], other[1][name]) for name, value in joined[1].items())


def test_a_run_without_a_gradient_stays_and_its_neighbours_move() -> None:
    learner = build(tiny(tasks=3, episodes=4, horizon=5))
    learners = [learner.with_seed(seed) for seed in SEEDS]
    theta = stack([each.initial_params() for each in learners])
    _, found = explored(learners, theta, 0)
    even = [
        batch._replace(advantages=batch.advantages.index_fill(0, torch.tensor([3, 4, 5]), 0.0))
        for batch in found.batches
    ]
    objective = replace(meta_objective(learner, found), batches=even)
    moved, _, log = trpo(theta, {}, objective, learner.config.outer)
    assert log["linesearch/accepted"].tolist() == [1, 0, 1]
    assert (log["linesearch/backtracks"][1], log["kl/outer"][1], log["objective/gain"][1]) == (0, 0, 0)
    for name, value in moved.items():
        assert torch.equal(value[1], theta[name][1])
    assert all((flatten(moved) != flatten(theta)).any(-1)[[0, 2]])


def test_what_is_not_finite_is_named_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = build(tiny(tasks=2, episodes=3))
    learners = [learner.with_seed(seed) for seed in SEEDS]
    theta = stack([each.initial_params() for each in learners])
    draw, found = explored(learners, theta, 0)
    objective = meta_objective(learner, found)
    *pre, post = found.batches
    whole = post._replace(advantages=post.advantages.index_fill(0, torch.tensor([3, 4]), torch.nan))
    with pytest.raises(FloatingPointError, match="meta-gradient of task 1 of seed 2 is NaN"):
        replace(objective, batches=[*pre, whole]).gradient(theta)
    nothing = torch.zeros(1), {name: torch.zeros_like(value[:1]) for name, value in theta.items()}
    wrong = {name: torch.zeros_like(value) for name, value in theta.items()}
    wrong["0.weight"][1] = wrong["log_std"][2] = torch.nan
    with pytest.raises(FloatingPointError, match=r"of all tasks together of seed 2 is NaN or infinite in 0\.weight$"):
        found.axis.check((torch.zeros(3), wrong), lambda row: nothing)
    bad = post._replace(advantages=post.advantages.index_fill(0, torch.tensor([3]), torch.nan))
    with pytest.raises(FloatingPointError, match=r"meta-gradient of task 1 of seed 2 is NaN or infinite in 0\.weight"):
        replace(objective, batches=[*pre, bad]).gradient(theta)
    broken = map_tensors(lambda x: x.index_fill(0, torch.tensor([5]), torch.nan), found.params_by_step[-1])
    with pytest.raises(FloatingPointError, match="Fisher-vector product of seed 5 is NaN"):
        trpo(
            theta,
            {},
            replace(objective, params_by_step=[*found.params_by_step[:-1], broken]),
            learner.config.outer,
        )
    with pytest.raises(
        FloatingPointError, match=r"actions of task 0 of seed 1, .* in the episodes of the adapted policies"
    ):
        explored([each.with_rate(1e30) for each in learners], theta, 0)
    with pytest.raises(FloatingPointError, match="takes parameters of task 0 of seed 1 to NaN"):
        explored([each.with_rate(1e39) for each in learners], theta, 0)
    fitted = build(tiny(tasks=2, episodes=3, discount=1.0, gae_lambda=1.0, baseline={"name": "value_network"}))
    huge = sample_at(learner, found.params_by_step[0], draw, 0)
    huge = huge._replace(rewards=huge.rewards.index_fill(0, torch.tensor([4]), 3e38))
    monkeypatch.setattr(fitted.sampler, "rollout", lambda *_: huge)
    with pytest.raises(
        FloatingPointError,
        match=r"the value network has no fit for task 0 of seed 5: obs.* in the episodes of the adapted policies",
    ):
        explore(fitted, theta, draw, [])


def test_a_run_that_catches_up_alone_is_named() -> None:
    learner = build(tiny(env="probes:Diverging", tasks=3, horizon=3))
    method = MetaRL([learner, learner.with_seed(7)], ["seed 1", "seed 7"])
    theta = of_one_seed(learner.initial_params())
    method.iterate(theta, {}, 0, [1])
    with pytest.raises(FloatingPointError, match="rewards of task 2 of seed 7, episode 0, step 0"):
        method.iterate(theta, {}, 1, [1])


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
        FloatingPointError,
        match=r"iteration 1: rewards of task 2 of seed 1, .*; 2 of 6 tasks .*, of seed 1, "
        r"seed 2; in the episodes before inner step 0 .*; "
        r".*/s1/failed\.pt, .*/s2/failed\.pt",
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
    with pytest.raises(
        FloatingPointError, match=r"iterations 0 to 9: in iteration \d, the meta-gradient of task \d of seed 1 is NaN"
    ):
        meta_train_seeds(config, folders(tmp_path / "runs", (1, 2)), quiet=True)


def test_few_shot_learning_has_seeds_too(tmp_path: Path) -> None:
    for run in meta_train_seeds(few_shot.tiny(), folders(tmp_path / "runs", (1, 2)), quiet=True):
        seed = int(run.name[1:])
        other = meta_train(few_shot.tiny(seed=seed), tmp_path / f"alone{seed}", quiet=True)
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
