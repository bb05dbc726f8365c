"""Several ranks give what one gives, and end together: whole, stopped, killed, refused or failed."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import few_shot
import filelock
import pytest
import tomli_w
import torch
from alone import explore_training, first, gradient, outer_step, sample_at
from hypothesis import given
from hypothesis import strategies as st
from ranks import Ended, command, launch, torchrun
from tiny import rows, same_checkpoint, tiny
from torch.distributed import TCPStore

from maml_envs import InputError, WorkerError
from maml_envs.cores import cores
from maml_rl import meta_train
from maml_rl.core.seeds import over_ranks
from maml_rl.core.tree import map_tensors, of_one_seed
from maml_rl.machine import device, ranks
from maml_rl.machine.launch import _meeting, joined, local_device
from maml_rl.rl.explore import explore
from maml_rl.rl.learner import build
from maml_rl.rl.method import MetaRL, meta_objective
from maml_rl.rl.metrics import describe
from maml_rl.runs import checkpoint
from maml_rl.supervised import outer as few_shot_outer

CPU = torch.device("cpu")
TASKS = 5
OUTER_STEPS: dict[str, dict[str, Any]] = {
    "trpo": {"outer": {"name": "trpo", "damping": 0.1, "fisher_subsample": 1}, "inner": {"learn_lr": True}},
    "promp": {"outer": {"name": "promp", "epochs": 3}},
    "adam": {"outer": {"name": "adam"}, "inner": {"estimator": "dice"}},
}
FEW_SHOT: dict[str, dict[str, Any]] = {
    "sinusoid": {},
    "pretrained": {"data": "few_shot:Blobs", "ways": 3, "shots": 2, "queries": 3, "method": "pretrained"},
    "reptile": {"outer": {"name": "reptile", "lr": 0.1}},
}


def _one_step(name: str) -> dict[str, Any]:
    """The data, gradient and next theta of an outer step in float64, as this rank has them."""
    learner = build(tiny(tasks=TASKS, episodes=3, horizon=6, seed=4, **OUTER_STEPS[name]))
    theta = {key: value.double() for key, value in learner.initial_params().items()}
    draw = MetaRL([learner]).draw(0, [0])
    found = explore(learner, of_one_seed(theta), draw, [1.0] * learner.config.trained_steps)
    objective = meta_objective(learner, found)
    moved, state, log = outer_step(name, theta, {}, objective, learner.config.outer)
    _, slope = gradient(objective, theta)
    (row,) = found.axis.average(describe(learner.policy, found), ("env_steps",))
    sampled = (sample_at(learner, params, draw, k) for k, params in enumerate(found.params_by_step))
    own = [(each.observations, each.actions, each.rewards) for each in sampled]
    return {
        "own": own, "gradient": slope, "start": theta, "moved": moved, "state": state, "log": log, "row": row,
    }  # fmt: skip


def _few_shot_step(name: str) -> dict[str, Any]:
    learner = few_shot.learner_of(tasks=TASKS, **FEW_SHOT[name])
    theta, batch = few_shot.problem(learner)
    loss, slope = first(few_shot_outer.gradient(learner, of_one_seed(theta), batch))
    return {"own": [tuple(batch.query)], "gradient": slope | {"loss": loss}}


def _steps() -> dict[str, dict[str, Any]]:
    return {name: _one_step(name) for name in OUTER_STEPS} | {name: _few_shot_step(name) for name in FEW_SHOT}


def save_steps(folder: Path) -> None:
    """Every step of this file, as each rank finds it, in a file of its own."""
    with joined():
        torch.save(_steps(), folder / f"{ranks.rank()}.pt")


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    return _steps()


@pytest.fixture(scope="module", params=[2, 4])
def each_rank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("steps")
    ended = launch(folder, request.param, save_steps, folder)
    assert ended.code == 0, ended.err
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


def _equal(one: Any, other: Any) -> bool:
    same = []
    map_tensors(lambda a, b: same.append(torch.equal(a, b)), one, other)
    return bool(same) and all(same)


def _close(one: Any, other: Any, tolerance: float) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(
            value, other[key], rtol=tolerance, atol=tolerance, msg=lambda m, key=key: f"{key}: {m}"
        )


@pytest.mark.parametrize("name", [*OUTER_STEPS, *FEW_SHOT])
def test_ranks_share_the_data_of_one_and_take_its_step(
    name: str, alone: dict[str, dict[str, Any]], each_rank: list[dict[str, Any]]
) -> None:
    one, several = alone[name], [found[name] for found in each_rank]
    whole = map_tensors(lambda *parts: torch.cat(parts), *(found["own"] for found in several))
    assert _equal(one["own"], whole)
    for found in several:
        _close(found["gradient"], one["gradient"], 1e-12)
        assert _equal(found["gradient"], several[0]["gradient"])  # so that ranks stay together
        if "moved" in one:
            _close(found["moved"], one["moved"], 1e-6)
            _close(found["state"], one["state"], 1e-6)
            _close(found["log"], one["log"], 1e-6)
            _close(found["row"], one["row"], 1e-6)
            assert _equal(found["moved"], several[0]["moved"])
            assert not _equal(found["moved"], one["start"])


CONFIG: dict[str, Any] = {
    "env": "probes:Struck",
    "horizon": 3,
    "tasks": 3,
    "episodes": 2,
    "iterations": 6,
    "threads": 1,
    "policy": {"hidden": [8]},
    "outer": {"damping": 0.1},
    "evaluation": {"tasks": 2, "episodes": 2, "steps": 1, "every": 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    for name, changes in {
        "config": {},
        "diverging": {"env": "probes:Diverging"},
        "two": {"tasks": 2},
    }.items():
        (path / f"{name}.toml").write_text(tomli_w.dumps(CONFIG | changes))
    return path


@pytest.fixture(scope="module")
def run(folder: Path) -> tuple[Path, Ended]:
    """A run of two ranks that nothing happens to."""
    ended = _train(folder, 2, "config", "run")
    assert ended.code == 0, ended.err
    return folder / "run", ended


def _train(folder: Path, ranks: int, config: str, out: str, *more: str) -> Ended:
    train = ("train", folder / f"{config}.toml", "--out", folder / out, *more)
    return launch(folder / f"{out}.log", ranks, command, *train)


def _same(one: Path, other: Path) -> None:
    assert [json.loads(line)["iteration"] for line in (other / "metrics.jsonl").read_text().splitlines()] == list(
        range(6)
    )
    assert rows(one) == rows(other)
    for name in ("checkpoint.pt", "checkpoint_previous.pt", "best.pt"):
        assert same_checkpoint(one / name, other / name), name


def test_one_run_folder_with_the_numbers_of_one_rank(run: tuple[Path, Ended], folder: Path, tmp_path: Path) -> None:
    path, ended = run
    assert ended.out.count("trained: ") == ended.err.count("probes:Struck 6/6") == 1
    alone = meta_train(tiny(**CONFIG), tmp_path / "alone", quiet=True)
    assert {each.name for each in alone.iterdir()} - {"lock"} >= {"best.pt", "checkpoint.pt", "metrics.jsonl"}
    assert len(list(path.glob("events*"))) == 1
    ours, theirs = rows(path), rows(alone)
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    assert [row["env_steps"] for row in ours] == [36 * (k + 1) for k in range(6)]  # 2 rollouts of 3 x 2 x 3 steps
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)
    assert ours[0]["return/0"] == pytest.approx(theirs[0]["return/0"], rel=1e-6)


def test_a_stopped_run_goes_on_where_it_was_with_as_many_ranks_or_others(run: tuple[Path, Ended], folder: Path) -> None:
    train = ("-m", "maml_rl", "train", "config.toml", "--out", "stopped")
    stopped = torchrun(folder, *train, strike="TERM 6 0")
    assert stopped.code != 0
    assert stopped.err.count("SIGTERM: stopping after this iteration") == 1
    assert stopped.err.count("stopped by SIGTERM; continue with --resume --out") == 1
    assert checkpoint.load(folder / "stopped/checkpoint.pt").iteration == 3
    assert len(rows(folder / "stopped")) == 3
    alone = shutil.copytree(folder / "stopped", folder / "alone")
    ended = _train(folder, 2, "config", "stopped", "--resume")
    assert ended.code == 0, ended.err
    _same(run[0], folder / "stopped")
    meta_train(tiny(**CONFIG), alone, resume=True, quiet=True)
    for a, b in zip(rows(alone), rows(run[0]), strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


def test_a_killed_rank_is_started_again_and_changes_nothing(run: tuple[Path, Ended], folder: Path) -> None:
    train = ("--max-restarts", "1", "-m", "maml_rl", "train", "config.toml", "--out", "killed", "--resume")
    ended = torchrun(folder, *train, strike="KILL 6 1")
    assert ended.code == 0, ended.err
    assert ended.out.count("trained: killed\n") == ended.err.count("probes:Struck 6/6") == 1
    assert ended.err.count("error: ") == ended.err.count("error: iteration 2: another rank is gone") == 1
    assert "continue with --resume --out" in ended.err
    _same(run[0], folder / "killed")


def test_a_folder_that_cannot_be_used_is_refused_once(run: tuple[Path, Ended], folder: Path) -> None:
    ended = _train(folder, 2, "config", "run")
    assert ended.code != 0
    assert ended.err.count("error:") == ended.err.count("already holds a run: continue it with --resume") == 1
    assert "exitcode  : 2" in ended.err
    with filelock.FileLock(folder / "run/lock"):
        ended = _train(folder, 2, "config", "run", "--resume")
    assert ended.code != 0
    assert ended.err.count("error:") == ended.err.count("is in use by another process") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("--inner.lr", "-1"), "Error parsing keys.inner"),
        (("--no-such-flag", "3"), "Unrecognized options: --no-such-flag"),
        (("--env", "probes:Nothing"), "error: env = 'probes:Nothing'"),
    ],
    ids=["a value", "a flag", "an environment"],
)
def test_a_configuration_that_cannot_be_used_is_refused_once(changes: tuple[str, str], said: str, folder: Path) -> None:
    ended = _train(folder, 2, "config", "refused", *changes)
    assert ended.code != 0
    assert ended.err.count(said) == 1
    assert not (folder / "refused").exists()


def test_agents_of_two_machines_both_hear_of_a_failure(run: tuple[Path, Ended], folder: Path) -> None:
    """As with two machines: an agent that took its rank for done would wait for the other's restart, and hang it."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    several = ("--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "two")
    train = ("--max-restarts", "1", "-m", "maml_rl", "train", "config.toml", "--out", "run")
    with ThreadPoolExecutor(2) as threads:
        agents = [threads.submit(torchrun, folder, *train, where=several) for _ in range(2)]
        ended = [agent.result() for agent in agents]
    assert all(agent.code != 0 for agent in ended)
    assert sum(agent.err.count("already holds a run: continue it with --resume") for agent in ended) == 2  # restarted


def test_a_file_that_rank_0_cannot_write_ends_all_with_its_message(run: tuple[Path, Ended], folder: Path) -> None:
    full = shutil.copytree(run[0], folder / "full")
    (full / "checkpoint.pt.tmp").symlink_to("/dev/full")
    ended = _train(folder, 2, "config", "full", "--resume", "--iterations", "8")
    assert ended.code != 0
    assert ended.err.count("error: ") == ended.err.count("No space left on device") == 1
    assert checkpoint.load(full / "checkpoint.pt").iteration == 6


def test_ranks_that_measure_different_things_are_told(folder: Path) -> None:
    ended = _train(folder, 2, "config", "unlike", "--env", "probes:SolvedByTask")
    assert ended.code != 0
    assert ended.err.count("error: ") == ended.err.count("the ranks measure different things, rank 0 return/0") == 1


def test_more_ranks_than_tasks_are_refused_in_words(folder: Path) -> None:
    ended = _train(folder, 3, "two", "many")
    assert ended.code != 0
    assert ended.err.count("error:") == ended.err.count("tasks = 2 for 3 ranks: give at least one task for each") == 1
    assert not (folder / "many").exists()


def test_what_fails_on_one_rank_ends_all_with_its_message(folder: Path) -> None:
    ended = _train(folder, 2, "diverging", "failed")
    assert ended.code != 0
    assert ended.err.count("error:") == 1
    assert "error: iteration 1: rewards of task 2, episode 0, step 0" in ended.err  # of rank 1
    before, failed = (checkpoint.load(folder / "failed" / name) for name in ("checkpoint.pt", "failed.pt"))
    assert before.iteration == failed.iteration == 1
    assert len(rows(folder / "failed")) == 1


def _fails_on_1() -> int:
    if ranks.rank():
        raise KeyError("lost")
    return 0


def _fails_on_both() -> int:
    raise InputError(f"of rank {ranks.rank()}")


def several(folder: Path) -> None:
    """Runs one after the other in the same ranks, and every function that they share numbers by."""
    number = int(os.environ["RANK"])
    meta_train(tiny(**CONFIG | {"method": "random"}), folder / "random", quiet=True)
    for seed in (1, 2):
        meta_train(tiny(**CONFIG | {"seed": seed}), folder / f"seed{seed}", quiet=True)
        assert checkpoint.load(folder / f"seed{seed}/checkpoint.pt").iteration == 6  # on every rank
    with pytest.raises(ranks.Echo if number else InputError, match="already holds a run"):
        meta_train(tiny(**CONFIG), folder / "random", quiet=True)
    with joined():
        mixed = [torch.tensor([number], dtype=torch.float32), torch.tensor(1 / 3 + number, dtype=torch.float64)]
        mean = over_ranks(mixed, tasks=1 + 2 * number)  # weights 1/4 and 3/4
        assert [value.dtype for value in mean] == [torch.float32, torch.float64]
        assert [value.tolist() for value in mean] == [[0.75], pytest.approx(1 / 3 + 0.75, rel=1e-15)]
        given = [{"mean": 4.0 * number, "sum": 1.0 + number}, {"mean": 8.0 * number, "sum": 0.0}]
        mean_rows = ranks.mean_rows(given, 1 + 2 * number, ("sum",))
        assert mean_rows == [{"mean": 3.0, "sum": 3.0}, {"mean": 6.0, "sum": 0.0}]
        assert ranks.from_main(lambda: {"rank": number}) == {"rank": 0}
        assert ranks.any_rank(5 * number) == 5
        assert ranks.gather(torch.tensor([[number + 1.0]] * (1 + number)), 3).tolist() == [[1.0], [2.0], [2.0]]
        assert ranks.agreed(lambda: number) == number
        with pytest.raises(KeyError if number else WorkerError, match="lost" if number else "rank 1: KeyError: 'lost'"):
            ranks.agreed(_fails_on_1)
        with pytest.raises(ranks.Echo if number else InputError, match="of rank 0"):
            ranks.agreed(_fails_on_both)
        learner = build(tiny(tasks=2))
        theta = learner.initial_params()
        objective = meta_objective(learner, explore_training(learner, theta, 0))
        *pre, post = objective.batches
        bad = post._replace(advantages=post.advantages * (float("nan") if number else 1))
        with pytest.raises(ranks.Echo if number else FloatingPointError, match="the meta-gradient of task 1 is NaN"):
            gradient(replace(objective, batches=[*pre, bad]), theta)
        assert ranks.any_rank(number) == 1  # nobody is a call ahead


def test_runs_follow_each_other_in_the_same_ranks(folder: Path) -> None:
    ended = launch(folder / "several", 2, several, folder)
    assert ended.code == 0, ended.err
    assert checkpoint.load(folder / "random/checkpoint.pt").iteration == 0
    alone = build(tiny(**CONFIG)).initial_params()
    assert all(
        torch.equal(value, alone[k]) for k, value in checkpoint.load(folder / "random/checkpoint.pt").theta.items()
    )
    assert not same_checkpoint(folder / "seed1/checkpoint.pt", folder / "seed2/checkpoint.pt")


@given(count=st.integers(0, 300), size=st.integers(1, 64))
def test_every_task_is_of_one_rank(count: int, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "size", lambda: size)
        shares = []
        for rank in range(size):
            patch.setattr(ranks, "rank", lambda rank=rank: rank)
            shares.append(range(count)[ranks.share(count)])
    assert [task for share in shares for task in share] == list(range(count))
    assert {len(share) for share in shares} <= {count // size, -(-count // size)}


ENDS = """
import os
import torch
from maml_rl.machine import launch, ranks

with launch.joined():
    assert torch.func.grad(torch.sin)(torch.zeros(())) == ranks.any_rank(1)
names = [open(f"/proc/self/task/{each}/comm").read() for each in os.listdir("/proc/self/task")]
assert not [name for name in names if "gloo" in name], names
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_no_thread_of_the_ranks_outlives_their_group(folder: Path) -> None:
    (folder / "ends.py").write_text(ENDS)
    ended = torchrun(folder, "ends.py")
    assert ended.code == 0, ended.err


def test_the_same_ranks_meet_again_in_a_store_that_forgets_nothing() -> None:
    """As after a restart: whoever comes first must not take what was said before for this time's."""
    patience = timedelta(seconds=20)
    server = TCPStore("localhost", 0, None, True, patience, wait_for_workers=False)

    def meet(number: int, delay: float) -> str:
        store = TCPStore("localhost", server.port, None, False, patience, wait_for_workers=False)
        time.sleep(delay)
        return _meeting(store, number, 3)

    names = []
    with ThreadPoolExecutor(3) as threads:
        for delays in ((0, 0, 0), (0.2, 0, 0), (0, 0.2, 0), (0.1, 0, 0.2)):
            found = set(threads.map(meet, range(3), delays))
            assert len(found) == 1
            names += found
    assert len(set(names)) == 4


def test_alone_everything_is_its_own() -> None:
    value, each = torch.ones(2, 3), [{"return/0": 1.0}]
    assert ranks.share(7) == slice(0, 7)
    assert over_ranks(value, 2) is value
    assert ranks.mean_rows(each, 2, ("return/0",)) is each
    assert ranks.gather(value, 2) is value
    assert ranks.any_rank(15) == 15
    assert ranks.from_main(lambda: value) is value
    assert ranks.agreed(lambda: value) is value
    with pytest.raises(KeyError, match="lost"):
        ranks.agreed(lambda: {}["lost"])
    with joined():
        assert (ranks.size(), ranks.rank(), ranks.is_main()) == (1, 0, True)


def test_cores_are_shared_by_the_ranks_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    monkeypatch.setattr("maml_envs.cores._read", lambda path: "")
    assert cores() == 8
    for count, share in ((2, 4), (3, 2), (16, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(count))
        assert cores() == share


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binds itself to a core")
def test_no_more_cores_than_the_process_may_run_on() -> None:
    code = (
        "import os; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from maml_envs.cores import cores; print(cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


def test_what_is_left_of_torchrun_in_the_environment_does_not_mute_or_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "3")
    assert ranks.is_main()
    with joined():
        assert (ranks.size(), ranks.is_main()) == (1, True)
    monkeypatch.delenv("RANK")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="WORLD_SIZE = 4 in the environment without RANK, MASTER_ADDR, MASTER_PORT"):
        joined().__enter__()
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "abc")
    with pytest.raises(
        InputError, match="WORLD_SIZE = abc in the environment with RANK = 0: start ranks with torchrun"
    ):
        joined().__enter__()


def test_each_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    assert local_device(gpu) == gpu
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_device(gpu) == torch.device("cuda", 1)
    assert local_device(CPU) == CPU
    with pytest.raises(InputError, match="device = 'cuda:0' for 2 ranks: with device = 'cuda' each takes"):
        local_device(torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="for 2 ranks on a machine with 1 GPUs: start one rank for each"):
        local_device(gpu)


def test_a_mean_makes_its_count_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of a number on the host would be copied, and every product of the outer step wait for it."""

    def refuse(*_: object) -> None:
        raise AssertionError("copied from the host")

    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "_sum", lambda values: 2 * values)
    monkeypatch.setattr(torch.Tensor, "new_tensor", refuse)
    assert ranks.mean(torch.tensor([3.0, 5.0]), 4).tolist() == [3.0, 5.0]


def test_a_gpu_has_one_thread_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(device, "choose_device", lambda name: torch.device(name))
    device.set_up("cuda", 2)
    assert torch.get_num_threads() == 1
    device.set_up("cpu", 2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
