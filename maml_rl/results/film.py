"""The film of a run."""

from contextlib import closing
from pathlib import Path
from typing import Unpack

from maml_envs import InputError
from maml_rl.config.elsewhere import Elsewhere
from maml_rl.evaluate import load_agent
from maml_rl.machine.files import free_name
from maml_rl.rl.film import FPS, adapt, check, film, settings
from maml_rl.rl.learner import environments

MAX_FPS = 100
"""Frames a second."""


def _name(which: str, split: str) -> str:
    """Name a film: adaptation, and of what, where not of the last parameters on tasks of training's kind."""
    return "-".join(["adaptation", *([which] if which != "checkpoint" else []), *([split] if split != "in" else [])])


def render(
    run: Path | str,
    steps: int | None = None,
    tasks: int | None = None,
    episodes: int | None = None,
    split: str = "in",
    which: str = "checkpoint",
    out: Path | str | None = None,
    fps: int = FPS,
    **elsewhere: Unpack[Elsewhere],
) -> list[Path]:
    """Film how a run adapts: a row for each held-out task, in it the task before adaptation and after each step.

    Adaptation is that of ``evaluate``, with its episodes; actions are sampled. All panels of a task have the same start
    state and noise, so that what differs is the adaptation.

    Args:
        run: A run folder, or a checkpoint file.
        steps: Gradient steps; None for the configuration's number.
        tasks: Held-out tasks, from the first; None for two, or as many as ``vector.vector_size`` has room for.
        episodes: Episodes to adapt with, for each task and step; None for the configuration's number.
        split: "in" for held-out tasks of the training distribution, "out" for tasks beyond it, "validation".
        which: "checkpoint" for the last parameters, "best" for those with the best training return, "initial" for those
            before training.
        out: Folder; None for videos/ in the run folder or beside the file.
        fps: Frames a second, one for each control step.
        **elsewhere: Keys that are others here than where it was trained, such as device; see ``Elsewhere``.

    Returns:
        adaptation.mp4, adaptation.gif and the last frame as adaptation.png, numbered where there are some already; for
        other parameters or another split adaptation-best.mp4, adaptation-out.mp4 ...

    Raises:
        InputError: The run cannot be read, a number is out of range, or the environment cannot be drawn.
    """
    if not 1 <= fps <= MAX_FPS:
        raise InputError(f"fps = {fps}: give 1 to {MAX_FPS} frames a second")
    run = Path(run).expanduser()
    folder = run if run.is_dir() else run.parent
    target = Path(out) if out else folder / "videos"
    if target.exists() and not target.is_dir():
        raise InputError(f"out = {target} is a file: give the name of a folder")
    with load_agent(run, which, **elsewhere) as agent:
        learner = agent.learner
        with closing(environments(learner.config, copies=1, drawn=True)[0]) as env:
            chosen = settings(env, learner.config, f"render {run}", tasks=tasks, episodes=episodes, steps=steps)
            check(env, chosen, split)
            scene = adapt(learner, env, agent.theta, chosen, split)
            with free_name(target, _name(which, split), ".mp4", ".gif", ".png") as file:
                return film(scene, file, fps)
