"""Worker processes that raise, die, stall and are interrupted, for real: it ends, says why and leaves nothing."""

import gc
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import gym_probes
import pytest
import torch
from tiny import finish, rows, same_checkpoint, tiny

from maml_envs import GymnasiumTaskEnv, InputError, VectorOptions, WorkerError
from maml_envs.adapters.async_envs import AsyncEnvs
from maml_rl import meta_train
from maml_rl.cli import main
from maml_rl.config.toml import load
from maml_rl.runs import checkpoint

GONE_S = 10.0


def alive(pid: int) -> bool:
    """Whether a process is there and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + GONE_S
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.02)


def started(make: type, timeout: float = 30.0, workers: int = 2) -> GymnasiumTaskEnv:
    return GymnasiumTaskEnv(make, VectorOptions(workers, timeout))


def pids(env: GymnasiumTaskEnv) -> list[int]:
    assert isinstance(env._batch, AsyncEnvs)
    return env._batch.pids


def faulty(fault: int, timeout: float = 30.0) -> tuple[WorkerError, float, list[int]]:
    """Three steps of four environments on two workers, the third with a fault: the error, seconds, process ids."""
    env = started(gym_probes.Faulty, timeout)
    tasks = torch.tensor([[9.0, 0], [9, 0], [9, fault], [9, 0]])
    env.reset(tasks, torch.arange(4))
    known = pids(env)
    env.step(torch.zeros(4, 1))
    env.step(torch.zeros(4, 1))
    began = time.monotonic()
    with pytest.raises(WorkerError) as caught:
        env.step(torch.zeros(4, 1))
    elapsed = time.monotonic() - began
    assert not any(map(exists, known))  # nor a zombie
    # and the next episode has workers of its own
    assert env.reset(tasks, torch.arange(4)).shape == (4, 4)
    assert not set(pids(env)) & set(known)
    env.close()
    return caught.value, elapsed, known


def test_an_error_comes_with_its_own_traceback_task_and_environment() -> None:
    error, _, known = faulty(1)
    said = str(error)
    assert said.startswith(f"worker 1 (process {known[1]}, environments 2 to 3 of the batch) raised an error.")
    assert "gym_probes.py" in said
    assert "1: lambda: 1 / 0" in said
    assert "ZeroDivisionError: division by zero" in said
    assert "in environment 2 of the batch, with task [9.0, 1.0], step 2 (counted from 0)" in said


@pytest.mark.parametrize("fault", [7, 8, 9])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_that_a_lost_parent_would_raise_too_is_the_environments_own(fault: int, workers: int) -> None:
    vector = VectorOptions(workers=workers, worker_timeout=20.0)
    with closing(GymnasiumTaskEnv(gym_probes.Faulty, vector, where="probe")) as env:
        env.reset(torch.tensor([[9.0, 0], [9.0, fault]]), torch.arange(2))
        for _ in range(2):
            env.step(torch.zeros(2, 1))
        with pytest.raises(WorkerError) as caught:
            env.step(torch.zeros(2, 1))
    said = str(caught.value)
    assert "my simulator hung up" in said
    assert "gym_probes.py" in said
    assert f"in environment 1 of the batch, with task [9.0, {fault}.0], step 2 (counted from 0)" in said


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (2, r"died in step: killed by SIGKILL; out of memory\?"),
        (5, r"died in step: killed by SIGSEGV\. Fatal Python error: Segmentation fault\n[\s\S]*gym_probes\.py"),
        (6, r"died in step: it exited with 3\."),
    ],
)
def test_a_worker_that_dies_is_named(fault: int, said: str) -> None:
    error, elapsed, known = faulty(fault)
    assert re.match(rf"worker 1 \(process {known[1]}, environments 2 to 3 of the batch\) {said}", str(error))
    assert elapsed < 20


@pytest.mark.parametrize("fault", [3, 4], ids=["before its answer", "in the middle of its answer"])
def test_a_worker_that_stalls_is_killed_and_shows_where_it_was(fault: int) -> None:
    error, elapsed, _ = faulty(fault, timeout=3.0)
    assert "did not answer step within 3 seconds and was killed" in str(error)
    assert re.search(r"gym_probes\.py\", line \d+ in (step|die_halfway|<lambda>)", str(error))
    assert 3 < elapsed < 20


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_stopped_from_outside(number: signal.Signals) -> None:
    env = started(gym_probes.Counted, timeout=3.0)
    env.reset(torch.full((4, 1), 9.0), torch.arange(4))
    known = pids(env)
    os.kill(known[0], number)
    with pytest.raises(WorkerError, match=r"^worker 0 .* (killed by SIGKILL|did not answer)"):
        env.step(torch.zeros(4, 1))
    assert not any(map(exists, known))


def test_workers_do_not_heed_the_signals_that_ask_their_parent_to_stop() -> None:
    env = started(gym_probes.Counted)
    env.reset(torch.full((2, 1), 9.0), torch.arange(2))
    for pid in pids(env):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert env.step(torch.zeros(2, 1)).observation[:, 1].tolist() == [1, 1]
    env.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_closing_and_forgetting_leave_nothing() -> None:
    env = started(gym_probes.Counted)
    goals = torch.full((4, 1), 9.0)
    env.reset(goals, torch.arange(4))
    env.close()
    env.close()
    before = descriptors()
    seen = []
    one, two = started(gym_probes.Counted), started(gym_probes.Counted, workers=1)  # side by side
    for env in (one, two):
        env.reset(goals, torch.arange(4))
        env.step(torch.zeros(4, 1))
        seen += pids(env)
    assert all(map(alive, seen))
    two.close()
    del env, one  # forgotten, in the middle of an episode
    gc.collect()
    assert not any(map(exists, seen))
    assert descriptors() == before


def fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that threads do not come along
        return os.fork()


def test_a_fork_of_the_parent_does_not_end_the_workers() -> None:
    env = started(gym_probes.Counted)
    env.reset(torch.full((2, 1), 9.0), torch.arange(2))
    if (child := fork()) == 0:
        with suppress(BaseException):
            env.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert env.step(torch.zeros(2, 1)).observation[:, 1].tolist() == [1, 1]
    env.close()


@pytest.mark.parametrize("fault", [0, 3], ids=["waiting", "stalled"])
def test_workers_end_with_a_parent_that_is_killed(fault: int) -> None:
    read, write = os.pipe()
    if (parent := fork()) == 0:
        env = started(gym_probes.Faulty, timeout=1000.0)
        env.reset(torch.tensor([[9.0, fault]] * 2), torch.arange(2))
        os.write(write, repr(pids(env)).encode())
        for _ in range(3):
            env.step(torch.zeros(2, 1))
        time.sleep(1000)
    found = [int(pid) for pid in re.findall(r"\d+", os.read(read, 100).decode())]
    time.sleep(0.5)
    assert [alive(pid) for pid in found] == [True, True]
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    wait_until_gone(found)
    os.close(read)
    os.close(write)


def listening(pid: int) -> set[str]:
    """Inodes of the process's sockets that wait for connections."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    own = {link[8:-1] for link in links if link.startswith("socket:[")}
    unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    tcp = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    waiting = {line[6] for line in unix if int(line[3], 16) & 0x10000} | {line[9] for line in tcp if line[3] == "0A"}
    assert own
    return own & waiting


def test_a_worker_is_light_and_nothing_listens() -> None:
    env = started(gym_probes.Tells)
    env.reset(torch.full((4, 1), 9.0), torch.arange(4))
    told = env.step(torch.zeros(4, 1)).info
    assert told["torch"].tolist() == told["maml_envs"].tolist() == [0] * 4
    assert told["threads"].tolist() == [1] * 4
    assert told["pid"].tolist() == [float(pid) for pid in pids(env) for _ in range(2)]
    assert not any(listening(pid) for pid in pids(env))
    env.close()


def test_what_cannot_be_sent_or_made_says_so() -> None:
    class Needs(gym_probes.Counted):
        made = 0

        def __init__(self) -> None:
            Needs.made += 1
            if "torch" not in sys.modules:
                raise OSError("no licence here")

    with pytest.raises(WorkerError, match=r"raised an error[\s\S]*OSError: no licence here"):
        started(Needs)
    assert Needs.made == 0  # the parent makes none

    class Second(gym_probes.Counted):
        made = 0

        def __init__(self) -> None:
            type(self).made += 1
            if type(self).made > 1:
                raise OSError("one licence only")

    with (
        closing(started(Second, workers=1)) as env,
        pytest.raises(WorkerError, match=r"OSError: one licence only[\s\S]*in environment 1 .* at its reset"),
    ):
        env.reset(torch.full((2, 1), 9.0), torch.arange(2))


# --- Training.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join((str(Path(__file__).parents[1] / "helpers"), os.environ.get("PYTHONPATH", "")))
    )
    return tmp_path


CONFIG = """
env = "gym_probes:Faulty"
vector.workers = 2
vector.worker_timeout = 4.0
tasks = 2
episodes = 2
iterations = 3
threads = 1
[policy]
hidden = [8]
"""


@pytest.mark.parametrize(("fault", "said"), [(1, "ZeroDivisionError"), (2, "SIGKILL"), (3, "did not answer")])
def test_training_that_loses_a_worker_keeps_its_checkpoint(
    fault: int, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "c.toml").write_text(CONFIG)
    monkeypatch.setattr(sys, "argv", ["maml-rl", "train", "c.toml", "--out", "run"])
    monkeypatch.setenv("FAULT", str(fault))
    with pytest.raises(SystemExit) as stop:
        main.main()
    err = capsys.readouterr().err
    assert stop.value.code == 1
    assert "error: iteration 1: worker 1" in err
    assert said in err
    assert err.endswith("what came before is saved; continue with --resume --out run\n")
    assert "Traceback" not in err.replace("own traceback:\nTraceback", "")
    assert checkpoint.load(folder / "run/checkpoint.pt").iteration == 1
    if fault == 2:  # goes on in this process: the number of workers may change
        monkeypatch.delenv("FAULT")
        config = load("c.toml", vector={"workers": 0, "worker_timeout": None})
        meta_train(config, "run", resume=True, quiet=True)
        whole = meta_train(config, "whole", quiet=True)
        assert same_checkpoint(whole / "checkpoint.pt", folder / "run/checkpoint.pt")
        assert rows(whole) == rows(folder / "run")


SCRIPT = """
import os, sys, time
import gym_probes
import maml_rl
from maml_rl.config.rl import Config

class Mine(gym_probes.Counted):  # only here, and there is no guard
    def step(self, action):
        with open("pids", "a") as file:
            file.write(f"{os.getpid()}\\n")
        if os.path.exists("stall"):
            time.sleep(1000)
        return super().step(action)

config = Config(env="__main__:Mine", vector={"workers": 2}, tasks=2, episodes=4, iterations=int(sys.argv[1]), threads=1)
print(maml_rl.meta_train(config, "run"))
"""


@pytest.fixture
def script(folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    (folder / "script.py").write_text(SCRIPT)
    made: list[subprocess.Popen[str]] = []
    yield made
    for process in made:
        process.kill()
        process.communicate()


def begin(script: list[subprocess.Popen[str]], iterations: int) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-W", "error", "script.py", str(iterations)]
    script.append(subprocess.Popen(command, text=True, start_new_session=True, **pipes))
    return script[-1]


def seen_pids(folder: Path) -> list[int]:
    with suppress(FileNotFoundError):
        return sorted({int(line) for line in (folder / "pids").read_text().split("\n")[:-1]})
    return []


def wait_for_workers(folder: Path, process: subprocess.Popen[str], iterations: int = 0) -> list[int]:
    """Process ids of two workers that step, once there is a checkpoint of so many iterations."""
    deadline = time.monotonic() + 40
    while True:
        found = [pid for pid in seen_pids(folder) if pid != process.pid and alive(pid)]
        saved = folder / "run/metrics.jsonl"
        if len(found) == 2 and (not iterations or (saved.exists() and len(rows(folder / "run")) > iterations)):
            return found
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_class_of_a_script_without_a_guard_and_ctrl_c(folder: Path, script: list[subprocess.Popen[str]]) -> None:
    process = begin(script, 1_000_000)
    found = wait_for_workers(folder, process, iterations=1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, _, err = finish(process)
    assert "stopping after this iteration" in err
    assert "maml_rl.runs.loop.Stopped: stopped by SIGINT" in err
    assert "WorkerError" not in err
    assert checkpoint.load(folder / "run/checkpoint.pt").iteration == len(rows(folder / "run"))
    wait_until_gone(found)


def test_a_second_ctrl_c_ends_a_stalled_run_at_once(folder: Path, script: list[subprocess.Popen[str]]) -> None:
    process = begin(script, 1_000_000)
    found = wait_for_workers(folder, process, iterations=1)
    (folder / "stall").touch()
    time.sleep(0.3)
    began = time.monotonic()
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
    _, _, err = finish(process)
    assert "KeyboardInterrupt" in err
    assert time.monotonic() - began < 15
    wait_until_gone(found)
    assert checkpoint.load(folder / "run/checkpoint.pt").iteration >= 1


def test_keys_that_do_nothing_are_refused(tmp_path: Path) -> None:
    for changes, said in (
        ({"workers": 2}, "vector.workers = 2 does nothing for env = 'navigation', which steps its whole batch at once"),
        ({"vector_size": 8}, "vector.vector_size = 8 does nothing for env = 'navigation'"),
        ({"task_ranges": {"g": (1.0, 2.0)}}, "vector.task_ranges does nothing for env = 'navigation'"),
        (
            {"worker_timeout": 5.0},
            "vector.worker_timeout = 5.0 with vector.workers = 0: no worker could take that long",
        ),
    ):
        with pytest.raises(InputError, match=said):
            meta_train(tiny(vector=changes), tmp_path / "run", quiet=True)
    assert not any(tmp_path.iterdir())
