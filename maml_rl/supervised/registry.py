"""The task distribution that a configuration names."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maml_envs import InputError
from maml_envs.adapters.attribute_tasks import refuse_options
from maml_envs.adapters.named import own_object
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.supervised.images import images
from maml_rl.supervised.omniglot import omniglot
from maml_rl.supervised.sinusoid import Sinusoid
from maml_rl.supervised.splits import read_classes
from maml_rl.supervised.tasks import FewShotTasks

SIZES = ("ways", "shots", "queries")
OWN = ("sinusoid", "omniglot", "images")


def with_classes(config: FewShotConfig) -> FewShotConfig:
    """Return a configuration that has the classes themselves in place of the file of images that names them.

    A run folder says with it which they were, wherever it is read.

    Raises:
        InputError: The file cannot be read.
    """
    classes = config.data_options.get("classes")
    if config.data != "images" or not isinstance(classes, str):
        return config
    return config.model_copy(update={"data_options": config.data_options | {"classes": read_classes(classes)}})


def make(config: FewShotConfig) -> FewShotTasks:
    """Make it, with the configuration's ways, shots and queries.

    Raises:
        InputError: There is no such distribution, or its data is missing.
    """
    if config.data == "sinusoid":
        return Sinusoid(config.shots, config.queries)
    if config.data == "omniglot":
        root = config.root or os.environ.get("OMNIGLOT_ROOT")
        if not root:
            raise InputError(
                "data = 'omniglot' needs the folder with its two zips, or with what they hold: give root = \"...\", or "
                "set OMNIGLOT_ROOT; "
                "`maml-rl download-omniglot FOLDER` fetches them"
            )
        return omniglot(Path(root), config.ways, config.shots, config.queries)
    if config.data == "images":
        if config.root is None:
            raise InputError("data = 'images' needs root = \"...\", a folder with a folder of images for each class")
        refuse_options(images, config.data_options, "data_options")
        return images(config.root, config.ways, config.shots, config.queries, **config.data_options)
    found = _own(config.data)
    made = _called(found, config) if found else None
    if not isinstance(made, FewShotTasks):
        raise InputError(
            f"data = {config.data!r} does not make a FewShotTasks when called: derive a class from "
            "maml_rl.supervised.FewShotTasks with sample_tasks and held_out_tasks, or write a function that returns one"
        )
    return made


def _called(found: Callable[..., object], config: FewShotConfig) -> object:
    """Call what makes a user's tasks, with those of the configuration's sizes, root and options that it takes."""
    given = {size: getattr(config, size) for size in _arguments(found)} | config.data_options
    known = inspect.signature(found).parameters
    if config.root is not None:
        if "root" not in known:
            raise InputError(f"root = {config.root!r} does nothing: data = {config.data!r} takes no argument `root`")
        given["root"] = config.root
    refuse_options(found, config.data_options, "data_options")
    return found(**given)


def sizes_of(path: str) -> tuple[str, ...]:
    """Return those of ``SIZES`` that a distribution goes by: of a user's own, those that are its arguments."""
    if ":" not in path:
        return SIZES
    found = _own(path)
    return _arguments(found) if found else ()


def _arguments(found: Callable[..., object]) -> tuple[str, ...]:
    known = inspect.signature(found).parameters
    return tuple(size for size in SIZES if size in known)


def _own(path: str) -> Callable[..., object] | None:
    where = f"data = {path!r}"
    found: Any = own_object(path, where, f"{where} is neither {', '.join(OWN)} nor 'my_module:MyTasks'")
    return found if callable(found) and not inspect.isabstract(found) else None
