"""Catalogue of all families and presets; ``make docs`` writes docs/reference/environments.md with it."""

import inspect
from contextlib import closing
from typing import NamedTuple

from maml_envs.registry import FAMILIES, make

HEAD = """# Environments

Every family of tasks and its presets: what is observed, done and paid, with units and sources. Made from the classes
by `make docs`.

Returns compare only within a preset; the first is the default. "Beyond" says whether `evaluate --split out` has tasks
outside the training distribution.

A picture of any task of any family, where there is a display, or `MUJOCO_GL` is set to `egl` or `osmesa` before Python
starts:

```python
import gymnasium

env = gymnasium.make("maml_envs:maml_rl/half-cheetah-dir-gymnasium-v0", render_mode="rgb_array")
env.reset(seed=0, options={"task": [-1.0]})  # a row of tasks; without it, one is drawn
env.step(env.action_space.sample())  # its info has the reward terms by name
image = env.render()  # (height, width, 3) uint8
```"""


GENERAL = {"maml_envs.task_env", "maml_envs.robots.mujoco_task"}
"""Modules whose classes explain how an environment is written, not what it is."""


class Preset(NamedTuple):
    """A preset of a family in words, read off its class."""

    name: str
    preset: str
    task: str  # shape of one
    observation: str  # width
    action: str  # width
    horizon: str  # steps
    beyond: str  # whether there are held-out tasks beyond the training distribution


def catalogue() -> list[Preset]:
    """List all presets of all families."""
    rows = []
    for name in FAMILIES:
        for preset in FAMILIES[name].presets:
            with closing(make(name, preset)) as env:
                task = " x ".join(map(str, env.held_out_tasks(1).shape[1:]))
                action = f"one of {env.action_width}" if env.discrete else str(env.action_width)
                try:
                    beyond = "yes" if len(env.held_out_tasks(1, "out")) else "no"
                except ValueError:  # there is no such split
                    beyond = "no"
                observation = str(env.observation_space.shape[0])
                rows.append(Preset(name, preset, task, observation, action, str(env.horizon), beyond))
    return rows


def _table() -> str:
    rows = catalogue()
    names = [field.replace("_", " ") for field in rows[0]._fields]
    lines = [names, ["---"] * len(names), *([f"`{row.name}`", *row[1:]] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def document() -> str:
    """Return the document: the table, then the docstring of every family, each robot's before its first family."""
    parts, told = [HEAD, _table()], set[type]()
    for name, family in FAMILIES.items():
        for kind in reversed(family.__mro__):
            described = kind.__module__.startswith("maml_envs.") and kind.__module__ not in GENERAL
            if described and kind not in told:
                told.add(kind)
                title = f"`{name}`" if kind is family else kind.__name__
                parts.append(f"## {title}\n\n{inspect.getdoc(kind)}")
    return "\n\n".join(parts) + "\n"
