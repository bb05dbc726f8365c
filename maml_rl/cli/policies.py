"""The commands that adapt a run's policy to tasks, and film or export it."""

from collections.abc import Sequence
from pathlib import Path

from maml_envs import InputError
from maml_rl.cli.parse import Command, Device, Env, RunOrCheckpoint, Split, Which, WorkerPython, few_shot


class Render(Command):
    """Film held-out tasks before and after adaptation: each gradient step, side by side, as mp4, gif and a picture."""

    folder: RunOrCheckpoint
    steps: int | None = None
    """Gradient steps; None: the configuration's number."""
    tasks: int | None = None
    """Held-out tasks, a row for each; None: two, or as many as vector.vector_size has room for."""
    episodes: int | None = None
    """Episodes to adapt with, for each task and step; None: the configuration's number."""
    split: Split = "in"
    which: Which = "checkpoint"
    out: Path | None = None
    """Folder for the video; None: videos/ in the run folder."""
    fps: int = 20
    """Frames a second, one for each control step."""
    device: Device = None
    env: Env = None
    worker_python: WorkerPython = None

    def run(self) -> None:
        from maml_rl.results.film import render

        if few_shot([self.folder]):
            raise InputError(f"{self.folder} is few-shot learning, which has no episodes to film: use maml-rl plot")
        flags = {key: value for key, value in vars(self).items() if key != "folder"}
        print(*render(self.folder, **flags), sep="\n")


class Export(Command):
    """Adapt to a task, and write the policy to a file: for torch.export (.pt2) or as ONNX (.onnx).

    It takes observations in the environment's own units (bytes of a picture as 0 ... 255), float32, flattened, any
    number of rows, and gives the most probable actions in the environment's units.
    """

    folder: RunOrCheckpoint
    task: tuple[str, ...]
    """The numbers of the task, such as --task 0.3 -0.2; those of vector.task_ranges by name, --task gravity=-3 g=9."""
    out: Path
    """The file, .pt2 or .onnx."""
    steps: int = 1
    """Gradient steps; 0: the policy before adaptation."""
    episodes: int | None = None
    """Episodes to adapt with, for each step; None: the configuration's number."""
    seed: int = 0
    """Of the episodes."""
    which: Which = "checkpoint"
    device: Device = None
    env: Env = None
    worker_python: WorkerPython = None

    def run(self) -> None:
        from maml_rl.evaluate import load_agent
        from maml_rl.machine.export import refuse_file

        refuse_file(self.out)
        here = {"device": self.device, "env": self.env, "worker_python": self.worker_python}
        with load_agent(self.folder, self.which, **here) as agent:
            print(agent.adapt(_task(self.task), self.steps, self.episodes, self.seed).save(self.out))


def _task(words: Sequence[str]) -> list[float] | dict[str, float]:
    """Return the numbers of a task, or its values by name."""
    parts = [word.rpartition("=") for word in words]
    names = [name for name, _, _ in parts if name]
    try:
        values = [float(value) for _, _, value in parts]
    except ValueError:
        values = []
    if len(values) < len(words) or len(names) not in (0, len(words)):
        raise InputError(f"--task {' '.join(words)}: give numbers, or each as name=number")
    if len(set(names)) < len(names):
        raise InputError(f"--task {' '.join(words)}: give each name once")
    return dict(zip(names, values, strict=True)) if names else values
