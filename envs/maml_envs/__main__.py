"""Writes docs/environments.md: ``python -m maml_envs > docs/environments.md``."""

import inspect

from maml_envs import FAMILIES, catalogue
from maml_envs.task_env import TaskEnv

HEAD = """# Environments

Made from the classes by `python -m maml_envs > docs/environments.md`. Returns compare only within a preset; the first
is the default. "Beyond" says whether `evaluate --split out` has tasks outside the training distribution.

A picture of any task of any family, where there is a display, or `MUJOCO_GL` is set to `egl` or `osmesa` before Python
starts:

```python
import gymnasium

env = gymnasium.make("maml_envs:maml_rl/half-cheetah-dir-gymnasium-v0", render_mode="rgb_array")
env.reset(seed=0, options={"task": [-1.0]})  # a row of tasks; without it, one is drawn
env.step(env.action_space.sample())  # its info has the reward terms by name
image = env.render()  # (height, width, 3) uint8
```
"""


def _table() -> str:
    rows = catalogue()
    names = [field.replace("_", " ") for field in rows[0]._fields]
    lines = [names, ["---"] * len(names), *([f"`{row.name}`", *row[1:]] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def document() -> str:
    """The whole document: the table, then the docstring of every family and, before its first one, of its robot."""
    parts, told = [HEAD, _table()], set[type]()
    for name, family in FAMILIES.items():
        for kind in reversed(family.__mro__):
            described = issubclass(kind, TaskEnv) and kind.__module__ not in GENERAL
            if described and kind not in told:
                told.add(kind)
                title = f"`{name}`" if kind is family else kind.__name__
                parts.append(f"## {title}\n\n{inspect.getdoc(kind)}")
    return "\n\n".join(parts) + "\n"


GENERAL = {"maml_envs.task_env", "maml_envs.mujoco_task"}
"""Classes of these modules say how an environment is written, and not what it is."""

if __name__ == "__main__":
    print(document(), end="")
