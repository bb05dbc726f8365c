"""Contacts and constraint rows that robots need, beside the most there can be: for mujoco_warp's buffers.

Worlds of mujoco_warp, on its CPU device unless another is given, play random actions, half of them none at all; ended
episodes go on, so that robots also lie. Needs the extra ``gpu``.
"""

from dataclasses import dataclass

import torch
import tyro

import maml_envs
from maml_envs import MujocoTask

ROBOTS = ("half-cheetah-dir", "hopper-rand-params", "walker-dir", "ant-dir", "humanoid-dir")


@dataclass(frozen=True)
class Buffers:
    """Families, and how long how many worlds of each are looked at."""

    families: tuple[str, ...] = ROBOTS
    worlds: int = 100
    steps: int = 400
    device: str = "cpu"


def measure(name: str, chosen: Buffers) -> str:
    """Return a row of the table."""
    family = maml_envs.family(name)
    assert issubclass(family, MujocoTask)
    roomy = {"simulator": "mujoco_warp", "max_contacts": None, "max_rows": None}
    env = type(family.__name__, (family,), roomy)(family.presets[0], device=chosen.device)
    tasks, generator = env.held_out_tasks(chosen.worlds), torch.Generator().manual_seed(0)
    env.reset(tasks.to(env.device), torch.arange(chosen.worlds, device=env.device))
    moving = (torch.arange(chosen.worlds) % 2).unsqueeze(-1)
    for _ in range(chosen.steps):
        env.step((moving * torch.randn(chosen.worlds, env.action_width, generator=generator)).to(env.device))
    physics = env._physics
    contacts, rows = int(physics._contacts_seen) / chosen.worlds, int(physics._rows_seen.max())
    given = family.max_contacts or physics._most[0], family.max_rows or physics._most[1]
    env.close()
    most = physics._most
    return f"| {name} | {most[0]} | {contacts:.1f} | {given[0]} | {most[1]} | {rows} | {given[1]} |"


def main() -> None:
    """Print the table."""
    chosen = tyro.cli(Buffers, description=__doc__)
    print("| robot | contacts, most there can be | needed, mean over worlds | room | rows, most | needed | room |")
    print("|---|---|---|---|---|---|---|")
    for name in chosen.families:
        print(measure(name, chosen), flush=True)


if __name__ == "__main__":
    main()
