"""The first minutes on a new GPU: everything that a CPU could not show, in one go, as one JSON object.

A part that fails says why, and the next goes on. Needs the extra ``gpu``; it takes less than eight minutes, most of
them to compile. With ``--device cpu`` mujoco_warp runs on the CPU, to try this script.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import iteration
import torch
import tyro
import worlds

import maml_envs
from common import Arguments, episodes_of, learner_for
from maml_rl.rl import episodes
from maml_rl.rl.data import Trajectory
from maml_rl.rl.learner import Learner
from maml_rl.rl.rollout import Sampler

COMPARED = 10
"""Control steps in which two ways to simulate differ by rounding alone; later, chaos amplifies it."""


@dataclass(frozen=True)
class FirstRun(Arguments):
    """Numbers of worlds, and of seeds in one batch."""

    tasks: int = 40
    hidden: tuple[int, ...] = (64, 64)
    device: str = "cuda"
    worlds: tuple[int, ...] = (800, 4000, 16000)
    seeds: tuple[int, ...] = (1, 10)
    repeats: int = 3
    iterations: int = 3
    """Of the training that is killed and resumed."""


def machine(chosen: FirstRun) -> dict[str, Any]:
    """Return the driver, the GPU and the versions of what computes on it."""
    import warp

    found: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count()}
    found |= {name: version(name) for name in ("torch", "warp-lang", "mujoco", "mujoco-warp")}
    found["warp_devices"] = [f"{each.name}, sm_{each.arch}" for each in warp.get_cuda_devices()]
    if chosen.device == "cuda":
        asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        found["nvidia_smi"] = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        found["solver_loop_on_the_gpu"] = warp.is_conditional_graph_supported()
    return found


def small(chosen: FirstRun) -> Learner:
    """Return a learner of eight worlds of mujoco_warp."""
    few = replace(chosen, tasks=4, episodes=2, horizon=min(chosen.horizon, 50))
    learner = learner_for(few)
    if chosen.device == "cpu":
        learner = replace(learner, sampler=Sampler([worlds.warped(few)], learner.policy))
    return learner


def rollout(learner: Learner) -> Trajectory:
    """Return eight episodes, twice: the second time they are replayed."""
    tasks = learner.env.sample_tasks(4, torch.Generator().manual_seed(0)).to(learner.device)
    episodes_of(learner, tasks, 2)
    return episodes_of(learner, tasks, 2)


@contextmanager
def refusing_to_wait(learner: Learner) -> Iterator[None]:
    """Make torch refuse what waits for the GPU between the reset and the end of episodes."""
    env, reset, look = learner.env, learner.env.reset, learner.env.raise_deferred

    def began(*given: Any) -> Any:
        first = reset(*given)
        torch.cuda.set_sync_debug_mode("error")
        return first

    def ended() -> None:
        torch.cuda.set_sync_debug_mode("default")
        look()

    env.reset, env.raise_deferred = began, ended  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
        del env.reset, env.raise_deferred  # type: ignore[method-assign]


def no_wait(chosen: FirstRun) -> dict[str, Any]:
    """Check that nothing inside an episode waits for the GPU."""
    if chosen.device == "cpu":
        return {"skipped": "a CPU has nothing to wait for"}
    learner = small(chosen)
    rollout(learner)
    with refusing_to_wait(learner):
        rollout(learner)
    learner.close()
    return {"waits": 0}


def recorded(chosen: FirstRun) -> dict[str, Any]:
    """Compare episodes that are replayed from a recording with those of the same steps taken one by one."""
    learner = small(chosen)
    replayed = rollout(learner)
    learner.close()
    record, episodes.recorder = episodes.recorder, lambda device: None
    try:
        plain = small(chosen)
        stepped = rollout(plain)
        plain.close()
    finally:
        episodes.recorder = record
    steps = slice(0, COMPARED)
    difference = (replayed.observations[:, :, steps] - stepped.observations[:, :, steps]).abs().max()
    return {"largest_difference": float(difference), "steps": COMPARED}


def parity(chosen: FirstRun) -> dict[str, Any]:
    """Compare worlds on the device with MuJoCo's: the largest differences after one and after several steps."""
    cpu = maml_envs.make(chosen.env, chosen.preset, threads=1)
    there = torch.device(chosen.device)
    other = worlds.warped(chosen) if there.type == "cpu" else maml_envs.make(chosen.env, chosen.preset, device=there)
    tasks, seeds = cpu.held_out_tasks(8), torch.arange(8)
    cpu.reset(tasks, seeds)
    other.reset(tasks.to(other.device), seeds.to(other.device))
    found = []
    for _ in range(COMPARED):
        action = torch.rand(8, cpu.action_width) * 2 - 1
        cpu.step(action)
        other.step(action.to(other.device))
        states = ((cpu.state.qpos, other.state.qpos), (cpu.state.qvel, other.state.qvel))
        found.append([float((one - two.double().cpu()).abs().max()) for one, two in states])
    cpu.close()
    other.close()
    return {"qpos_qvel_after_1": found[0], f"qpos_qvel_after_{COMPARED}": found[-1]}


def rates(chosen: FirstRun) -> dict[str, Any]:
    """Return steps a second and memory at each number of worlds, physics alone and in closed loop."""
    sizes = worlds.Worlds(**{**vars(chosen_arguments(chosen)), "repeats": 1})
    return {str(count): attempt(lambda count=count: worlds.measure(sizes, count)) for count in chosen.worlds}


def iterations(chosen: FirstRun) -> dict[str, Any]:
    """Return the time of whole iterations, with each number of seeds in one batch."""
    timed = iteration.Iteration(**vars(chosen_arguments(chosen)))
    return {str(seeds): attempt(lambda n=seeds: iteration.measure(replace(timed, seeds=n))) for seeds in chosen.seeds}


def life(chosen: FirstRun) -> dict[str, Any]:
    """Train, kill, resume, evaluate and film through the command line, and say what each printed last."""
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        sizes = ["--tasks", "4", "--episodes", "4", "--horizon", str(chosen.horizon)]
        train = ["train", "half_cheetah_dir", *sizes, "--iterations", str(chosen.iterations), "--out", run]
        train += ["--device", chosen.device]
        began = time.monotonic()
        killed = _command(*train)
        while not (Path(run) / "checkpoint.pt").exists() and killed.poll() is None:
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        found: dict[str, Any] = {"first_checkpoint_seconds": time.monotonic() - began}
        for name, words in {
            "resume": [*train, "--resume"],
            "evaluate": ["evaluate", run, "--tasks", "2"],
            "evaluate_on_the_cpu": ["evaluate", run, "--tasks", "2", "--device", "cpu"],
            "render": ["render", run, "--tasks", "1", "--steps", "1"],
        }.items():
            process = _command(*words)
            out, err = process.communicate(timeout=240)
            last = (out.strip() or err.strip()).splitlines()[-1:]
            found[name] = {"code": process.returncode, "said": last if process.returncode == 0 else err[-2000:]}
    return found


def _command(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "maml_rl", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def chosen_arguments(chosen: FirstRun) -> Arguments:
    """Return what the other benchmarks take."""
    return Arguments(**{name: getattr(chosen, name) for name in Arguments.__dataclass_fields__})


def attempt(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a part found and how long it took, or why it failed."""
    began = time.monotonic()
    try:
        found = part()
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()[-2000:]}
    return found | {"took_seconds": round(time.monotonic() - began, 2)}


PARTS = (machine, no_wait, recorded, parity, rates, iterations, life)


def main() -> None:
    """Take the parts one after the other, and print what they found."""
    chosen = tyro.cli(FirstRun, description=__doc__)
    found = {}
    for part in PARTS:
        found[part.__name__] = attempt(lambda part=part: part(chosen))
        print(json.dumps({part.__name__: found[part.__name__]}), file=sys.stderr, flush=True)  # should a later one hang
    print(json.dumps(found))


if __name__ == "__main__":
    main()
