"""What a run of days meets: kills, full disks, folders that cannot be written, NaN, and a thousand iterations."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alone import explore_training, gradient
from few_shot import tiny as few_shot_tiny
from kills import Kills, differences, survive
from tiny import finish, maml_rl, rows, same_checkpoint, tiny

from maml_envs import InputError, WorkerError
from maml_rl import meta_train
from maml_rl.core.task_axis import TaskAxis
from maml_rl.rl.learner import Learner, build
from maml_rl.rl.method import meta_objective
from maml_rl.runs import checkpoint
from maml_rl.runs.folder import RunFolder, read_config, read_metrics
from maml_rl.supervised.learner import FewShotLearner

NAN = float("nan")


def test_a_run_that_is_killed_again_and_again_equals_one_that_is_not(tmp_path: Path) -> None:
    numbers, different = survive(tmp_path, Kills(kills=3, iterations=150, spread=0.1))
    assert numbers["kills"] == 3
    assert numbers["iterations_before_last_kill"] > 0
    assert not different
    with (tmp_path / "killed/metrics.jsonl").open("a") as file:
        file.write('{"iteration": 149}\n')
    (tmp_path / "killed/checkpoint_previous.pt").replace(tmp_path / "killed/best.pt")
    (tmp_path / "killed/checkpoint_previous.pt").write_bytes((tmp_path / "whole/checkpoint.pt").read_bytes())
    assert differences(tmp_path / "whole", tmp_path / "killed") == [
        "metrics.jsonl", "checkpoint_previous.pt", "best.pt",
    ]  # fmt: skip


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with options, again to change them."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mounted(options: str) -> Path:
        try:
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, text=True
            )
        except FileNotFoundError:
            pytest.skip("there is no command mount")
        if done.returncode:
            pytest.skip(f"no file system may be mounted here: {done.stderr}")
        return disk

    yield mounted
    while not subprocess.run(["umount", disk], capture_output=True).returncode:
        pass


LARGE = {"policy": {"hidden": [64, 64]}, "iterations": 1000, "evaluation": {"every": 0}}


@pytest.mark.parametrize("kib", [72, 88, 112])
def test_a_disk_that_fills_up_is_named_and_what_was_saved_stays(kib: int, mount: Callable[[str], Path]) -> None:
    """A checkpoint is 20 KiB: best.pt, checkpoint.pt or the one before it finds no place."""
    run = mount(f"size={kib}k") / "run"
    with pytest.raises(OSError, match=rf"No space left on device: '{run}/") as caught:
        meta_train(tiny(**LARGE), run, quiet=True)
    assert "cannot write" in str(caught.value)
    assert "bytes" in str(caught.value)
    kept = checkpoint.load(run / "checkpoint.pt")
    if kept.iteration > 1:
        assert checkpoint.load(run / "checkpoint_previous.pt").iteration in (kept.iteration, kept.iteration - 1)
    assert not list(run.glob("*.tmp"))
    mount_again = ["mount", "-o", "remount,size=10M", str(run.parent)]
    subprocess.run(mount_again, check=True)
    meta_train(tiny(**LARGE | {"iterations": kept.iteration + 1}), run, resume=True, quiet=True)
    assert [row["iteration"] for row in rows(run)] == list(range(kept.iteration + 1))


def test_a_disk_without_a_byte_left_is_named_and_does_not_keep_a_run_from_ending(mount: Callable[[str], Path]) -> None:
    run = meta_train(tiny(), mount("size=200k") / "run", quiet=True)
    config = read_config(run).model_copy(update={"iterations": 3})
    with closing(RunFolder(run, config, resume=True, about={}).begin()) as folder:
        before = (run / "metrics.jsonl").read_bytes()
        with suppress(OSError), (run.parent / "more").open("wb", buffering=0) as more:
            while True:
                more.write(bytes(512))
        room = -len(before) % 4096  # of the file's last page
        with pytest.raises(OSError, match=rf"cannot write \d+ bytes: No space left on device: '{run}/metrics.jsonl'"):
            folder.log({"iteration": 2, "return/0" + "x" * room: 0.0}, {})
        folder.loggers.log({"iteration": 3, "return/0": 0.0}, {})
    (run.parent / "more").unlink()
    meta_train(tiny(iterations=3), run, resume=True, quiet=True)
    assert [row["iteration"] for row in rows(run)] == [0, 1, 2]


def test_a_file_system_that_is_read_only_is_named_and_nothing_changes(mount: Callable[[str], Path]) -> None:
    run = meta_train(tiny(), mount("size=10M") / "run", quiet=True)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    subprocess.run(["mount", "-o", "remount,ro", str(run.parent)], check=True)
    for folder in (run, run.with_name("other")):
        with pytest.raises(OSError, match=rf"Read-only file system: '{folder}"):
            meta_train(tiny(iterations=3), folder, resume=True, quiet=True)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"env": "probes:Diverging", "tasks": 3, "horizon": 3},
            r"rewards of task 2, episode 0, step 0 .* hold \[nan\]: the environment gave it",
        ),
        (
            {"env": "probes:Falls", "tasks": 2, "horizon": 4},
            r"rewards of task 1, episode 0, step 2 .* hold \[nan\]: the state of the simulation diverged",
        ),
        (
            {"env": "probes:Huge", "tasks": 2, "baseline": {"name": "none"}, "normalise_advantages": False},
            "inner step 0 .* takes parameters of task 1 to NaN or infinity: look for huge rewards, or lower inner.lr",
        ),
    ],
    ids=["reward", "simulator", "inner gradient"],
)
def test_where_numbers_end_is_named_and_the_state_before_kept(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(
        FloatingPointError, match=rf"iteration \d: {named}.*; the state before iteration \d is in .*failed\.pt"
    ):
        meta_train(tiny(iterations=5, **changes), tmp_path / "run", quiet=True)
    failed = checkpoint.load(tmp_path / "run/failed.pt")
    assert len(rows(tmp_path / "run")) == failed.iteration
    if failed.iteration:
        assert same_checkpoint(tmp_path / "run/failed.pt", tmp_path / "run/checkpoint.pt")


def test_success_that_comes_and_goes_is_refused_with_its_step(tmp_path: Path) -> None:
    said = "the info of step 2 .counted from 0. has 'success', which the steps before lacked: give it at every step"
    with pytest.raises(InputError, match=said):
        meta_train(tiny(env="probes:SolvedLate"), tmp_path / "run", quiet=True)


def test_success_in_some_batches_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="info has 'success' in some batches and not in others: give it at every step"):
        meta_train(tiny(env="probes:SolvedInABatch", tasks=3, episodes=2), tmp_path / "run", quiet=True)


def test_an_error_of_the_environments_own_says_where_it_was_and_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="out of battery") as caught:
        meta_train(tiny(env="probes:Raises"), tmp_path / "run", quiet=True)
    assert caught.value.__notes__ == [
        f"in iteration 1; what came before is saved; continue with --resume --out {tmp_path / 'run'}"
    ]
    assert checkpoint.load(tmp_path / "run/checkpoint.pt").iteration == 1


def test_the_task_of_a_bad_meta_gradient_is_named() -> None:
    learner = build(tiny(tasks=3))
    theta = learner.initial_params()
    objective = meta_objective(learner, explore_training(learner, theta, 0))
    *pre, post = objective.batches
    advantages = post.advantages.clone()
    advantages[2, 0, 1] = NAN
    batches = [*pre, post._replace(advantages=advantages)]
    broken = replace(objective, batches=batches, axis=TaskAxis(3, first=40))
    with pytest.raises(FloatingPointError, match=r"the meta-gradient of task 42 is NaN or infinite in .*0\.weight"):
        gradient(broken, theta)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_a_thousand_iterations_hold_no_more_than_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER", str(tmp_path / "meter"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "helpers"))
    (tmp_path / "tiny.toml").write_text(
        'env = "probes:Metered"\ntasks = 2\nepisodes = 2\nthreads = 1\npolicy.hidden = [8]\nevaluation.tasks = 2\n'
        "evaluation.episodes = 2\nevaluation.steps = 1\nevaluation.every = 100\n"
        'outer.name = "adam"\nbaseline.name = "none"\n'
    )
    process = maml_rl("train", "tiny.toml", "--iterations", "1000", "--out", "run", cwd=tmp_path)
    code, _, err = finish(process, seconds=300)
    assert code == 0, err
    held = np.loadtxt(tmp_path / "meter")
    assert len(held) >= 2000  # a reset before and after each inner step
    early, late = held[400:800], held[-200:]  # after the first evaluations, which fill the allocator's pools
    memory, threads, files, _ = late.max(0)
    assert memory < 1.02 * early[:, 0].max()
    assert threads <= early[:, 1].max() + 1  # one may start late; a leak in 1,000 iterations is hundreds
    assert files <= early[:, 2].max() + 1
    assert held[:, 3].max() == 0  # nothing that others could connect to


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "MemoryError"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore"),
            "OutOfMemoryError: CUDA out of memory.",
        ),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "DefaultCPUAllocator"),
    ],
)
def test_a_full_memory_says_how_large_an_iteration_is(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, calls = Learner.training_tasks, []

    def fails(self: Learner, iteration: int) -> torch.Tensor:
        calls.append(iteration)
        if len(calls) == 2:
            raise error
        return tasks(self, iteration)

    monkeypatch.setattr(Learner, "training_tasks", fails)
    with pytest.raises(WorkerError) as caught:
        meta_train(tiny(tasks=4, episodes=3), tmp_path / "run", quiet=True)
    assert "iteration 1: memory is full, with 4 tasks of 3 episodes, of which 4,096 steps at most are" in str(
        caught.value
    )
    assert said in str(caught.value)
    assert "Use fewer of them in another run; what came before is saved" in str(caught.value)
    assert len(read_metrics(tmp_path / "run")) == 1
    monkeypatch.setattr(Learner, "training_tasks", tasks)
    meta_train(tiny(tasks=4, episodes=3), tmp_path / "run", resume=True, quiet=True)
    assert len(read_metrics(tmp_path / "run")) == 2


def test_a_full_memory_in_few_shot_learning_names_the_key_that_bounds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried")

    monkeypatch.setattr(FewShotLearner, "training_tasks", fails)
    with pytest.raises(WorkerError) as caught:
        meta_train(few_shot_tiny(tasks=4), tmp_path / "run", quiet=True)
    assert "iterations 0 to 1: memory is full, with 4 tasks: OutOfMemoryError: CUDA out" in str(caught.value)
    assert "Continue with --tasks-at-once, as few as 1; what came before is saved" in str(caught.value)
