"""Few-shot runs small enough for tests, and a small Omniglot in the layout of the large one."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maml_rl.config.few_shot import FewShotConfig
from maml_rl.core.tree import Params, map_tensors, of_one_seed
from maml_rl.supervised import outer
from maml_rl.supervised.labelled import LabelledTasks
from maml_rl.supervised.learner import FewShotLearner, build
from maml_rl.supervised.tasks import Examples, FewShotTasks, TaskBatch

TINY: dict[str, Any] = {
    "data": "sinusoid",
    "shots": 4,
    "queries": 3,
    "tasks": 3,
    "iterations": 4,
    "log_every": 2,
    "device": "cpu",
    "threads": 1,
    "model": {"hidden": [8]},
    "evaluation": {"tasks": 6, "steps": 2},
}
BLOBS_RUN: dict[str, Any] = {"data": "few_shot:Blobs", "ways": 3, "shots": 2, "queries": 3}
BACKGROUND, EVALUATION = "images_background", "images_evaluation"


def tiny(**changes: Any) -> FewShotConfig:
    """A configuration that trains in a fraction of a second; tables are merged with their defaults here."""
    tables = {key: TINY.get(key, {}) | value for key, value in changes.items() if isinstance(value, dict)}
    return FewShotConfig.model_validate(TINY | changes | tables)


def blobs(shape: tuple[int, ...] = (1, 6, 6), classes: int = 30, each: int = 6) -> tuple[Tensor, Tensor]:
    """Examples with their labels: a random picture for each class, and noise."""
    random = torch.Generator().manual_seed(0)
    centres = torch.rand(classes, 1, *shape, generator=random)
    examples = centres + 0.3 * torch.rand(classes, each, *shape, generator=random)
    return examples.flatten(0, 1), torch.arange(classes).repeat_interleave(each)


class Blobs(LabelledTasks):
    """Three of 30 classes of pictures, 2 shots and 3 queries."""

    def __init__(self, root: str | None = None) -> None:
        super().__init__(*blobs(), 3, 2, 3, rotate=True)


class AsManyAsWays(LabelledTasks):
    """Three training classes, and as many in a task."""

    def __init__(self) -> None:
        super().__init__(*blobs(classes=9), 3, 2, 3, classes=(3, 3, 3))


class Turns(FewShotTasks):
    """The place on a circle, of a radius for each task: two outputs for an angle."""

    def sample_tasks(self, count: int, generator: torch.Generator) -> TaskBatch:
        radius = 1 + torch.rand(count, 1, 1, generator=generator)
        angle = 6 * torch.rand(count, 7, 1, generator=generator)
        place = radius * torch.cat([angle.cos(), angle.sin()], -1)
        return TaskBatch(Examples(angle[:, :4], place[:, :4]), Examples(angle[:, 4:], place[:, 4:]))

    def held_out_tasks(self, count: int, split: str = "test") -> TaskBatch:
        return self.sample_tasks(count, self.held_out_generator(split))


def learner_of(**changes: Any) -> FewShotLearner:
    """The learner of a tiny configuration."""
    return build(tiny(**changes))


def slope_of(learner: FewShotLearner, theta: Params, batch: TaskBatch) -> tuple[Tensor, Params]:
    """The loss and what the outer step goes down, of one run's theta."""
    return map_tensors(lambda x: x[0], outer.gradient(learner, of_one_seed(theta), batch))


def in_double(tree: Any) -> Any:
    """Values in float64, classes as they are."""
    return map_tensors(lambda x: x.double() if x.is_floating_point() else x, tree)


def problem(learner: FewShotLearner) -> tuple[Params, TaskBatch]:
    """Theta, moved off the zeros of its initialisation, and an iteration's tasks, in float64."""
    random = torch.Generator().manual_seed(3)
    theta, batch = in_double((learner.initial_params(), learner.training_tasks(0)))
    return {k: v + 0.1 * torch.randn(v.shape, generator=random, dtype=v.dtype) for k, v in theta.items()}, batch


def drawing(random: np.random.Generator, side: int = 105) -> bytes:
    """A PNG of 1 bit a pixel, a few black strokes on white."""
    paper = np.ones((side, side), bool)
    for _ in range(3):
        row, column = random.integers(side - 10, size=2)
        paper[row : row + 3, :column] = False
        paper[:row, column : column + 3] = False
    buffer = io.BytesIO()
    Image.fromarray(paper).save(buffer, "png")
    return buffer.getvalue()


def entries(alphabets: dict[str, int], folder: str, seed: int = 0) -> dict[str, bytes]:
    """Twenty drawings for each character of alphabets, by their names in a zip."""
    random, found = np.random.default_rng(seed), {}
    for alphabet, characters in alphabets.items():
        for character in range(1, characters + 1):
            for k in range(1, 21):
                name = f"{folder}/{alphabet}/character{character:02}/{character:04}_{k:02}.png"
                found[name] = drawing(random)
    return found


def write_zip(path: Path, content: dict[str, bytes]) -> Path:
    """A zip with these entries, in this order."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def write_omniglot(root: Path, background: int = 40, evaluation: int = 20) -> Path:
    """A folder with two zips of one alphabet each."""
    root.mkdir(parents=True, exist_ok=True)
    write_zip(root / f"{BACKGROUND}.zip", entries({"Latin": background}, BACKGROUND))
    write_zip(root / f"{EVALUATION}.zip", entries({"Greek": evaluation}, EVALUATION, seed=1))
    return root
