"""What there is to train on: a row for each preset of each family, read off the classes."""

from contextlib import closing
from typing import NamedTuple

import envs


class Row(NamedTuple):
    """A family's preset, in words."""

    name: str
    preset: str
    task: str  # shape of one
    observation: str  # width
    action: str  # width
    horizon: str  # steps


def catalogue() -> list[Row]:
    """All presets of all families, each made once."""
    rows = []
    for name, preset in [(name, preset) for name in envs.names() for preset in envs.family(name).presets]:
        with closing(envs.make(name, preset, copies=1)[0]) as env:
            task = " x ".join(map(str, env.held_out_tasks(1).shape[1:]))
            action = f"one of {env.action_width}" if env.discrete else str(env.action_width)
            rows.append(Row(name, preset, task, str(env.observation_space.shape[0]), action, str(env.horizon)))
    return rows
