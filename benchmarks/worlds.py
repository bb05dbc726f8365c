"""MuJoCo on a GPU at more and more worlds, physics alone and in closed loop, beside MuJoCo on CPU threads.

Needs the extra ``gpu``. With ``--device cpu`` mujoco_warp steps on the CPU, slowly, to try this script without a GPU.
"""

import sys
from dataclasses import dataclass, replace

import torch
import tyro

import maml_envs
from common import Arguments, episodes_of, gpu_memory, learner_for, report, seconds
from maml_envs import TaskEnv
from maml_rl.rl.learner import Learner
from maml_rl.rl.rollout import Sampler


@dataclass(frozen=True)
class Worlds(Arguments):
    """Numbers of worlds, in tasks of ``episodes`` each, and control steps in an episode."""

    worlds: tuple[int, ...] = (400, 800, 4000, 16000, 64000)
    episodes: int = 20
    horizon: int = 200
    hidden: tuple[int, ...] = (64, 64)
    device: str = "cuda"
    repeats: int = 3


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def physics_seconds(learner: Learner, worlds: int, steps: int) -> float:
    """So many control steps of so many worlds, with random actions that are there already; fastest of three."""
    env = learner.env
    tasks = env.sample_tasks(worlds, torch.Generator().manual_seed(0)).to(env.device)
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(8, worlds, env.action_width, generator=generator).to(env.device) * 2 - 1

    def play() -> None:
        for t in range(steps):
            env.step(actions[t % 8])
        wait(env.device)

    def timed() -> float:
        env.reset(tasks, torch.arange(worlds, device=env.device))
        wait(env.device)
        return seconds(play)

    timed()  # captures and compiles
    return min(timed() for _ in range(3))


def closed_loop_seconds(learner: Learner, tasks: int, episodes: int, repeats: int) -> float:
    """A rollout with a policy for each task; fastest of the repeats, after one that warms up."""
    drawn = learner.env.sample_tasks(tasks, torch.Generator().manual_seed(0)).to(learner.device)

    def play() -> None:
        episodes_of(learner, drawn, episodes)
        wait(learner.device)

    play()
    return min(seconds(play) for _ in range(repeats))


def warped(chosen: Worlds) -> TaskEnv:
    """The environment, which mujoco_warp steps on a CPU too."""
    family = maml_envs.family(chosen.env)
    warped_family = type(family.__name__, (family,), {"simulator": "mujoco_warp"})
    return warped_family(chosen.preset, chosen.horizon)


def measure(chosen: Worlds, worlds: int, on_warp: bool = True) -> dict[str, float]:
    """Rates at one number of worlds."""
    learner = learner_for(chosen)
    if on_warp and chosen.device == "cpu":
        learner = replace(learner, sampler=Sampler([warped(chosen)], learner.policy))  # one, as on a GPU
    if learner.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(learner.device)
    alone = physics_seconds(learner, worlds, chosen.horizon)
    closed = closed_loop_seconds(learner, worlds // chosen.episodes, chosen.episodes, chosen.repeats)
    steps = worlds * chosen.horizon
    found = {
        "worlds": worlds,
        "milliseconds_a_control_step": 1e3 * alone / chosen.horizon,
        "control_steps_per_second": steps / alone,
        "closed_loop_steps_per_second": steps / closed,
    }
    found |= gpu_memory(learner.device)
    learner.close()
    return found


def main() -> None:
    """The CPU first, then the device at each number of worlds."""
    chosen = tyro.cli(Worlds, description=__doc__)
    least = min(chosen.worlds)
    if least < chosen.episodes:
        sys.exit(f"--worlds {least} is less than one task of --episodes {chosen.episodes}")
    cpu = measure(replace(chosen, device="cpu"), least, on_warp=False)
    print("MuJoCo on CPU threads")
    report(cpu)
    for worlds in chosen.worlds:
        found = measure(chosen, worlds)
        times = found["closed_loop_steps_per_second"] / cpu["closed_loop_steps_per_second"]
        print(f"mujoco_warp on {chosen.device}")
        report(found | {"times_the_cpu": times})


if __name__ == "__main__":
    main()
