"""Keys of a run that may be said anew where it is read: it was made on another machine, or things have moved."""

import os
from typing import Any, TypedDict

import torch

from maml_envs import InputError
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.rl import Config
from maml_rl.config.toml import AnyConfig


class Elsewhere(TypedDict, total=False):
    """Keys to read a run with, in place of its own; None: its own."""

    device: str | None  # auto, cpu or cuda
    env: str | None  # meta-RL: such as "module:Class", where the module has moved
    data: str | None  # few-shot learning: the same
    root: str | None  # few-shot learning: the folder of Omniglot's zips
    worker_python: str | None  # meta-RL: the Python that runs the workers


def moved(config: AnyConfig, given: Elsewhere) -> dict[str, Any]:
    """Return the keys of a configuration that are replaced here.

    A run of a GPU is read on the CPU where there is none, and OMNIGLOT_ROOT is ahead of the folder that a run names.

    Raises:
        InputError: One has no effect on this kind of learning.
    """
    wanted: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    few_shot = isinstance(config, FewShotConfig)
    kind, others = ("few-shot learning", {"env", "worker_python"}) if few_shot else ("meta-RL", {"data", "root"})
    for key in sorted(others & wanted.keys()):
        raise InputError(f"{key} = {wanted[key]!r} has no effect on {kind}: leave it out")
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        wanted = {"device": "auto"} | wanted
    if (
        isinstance(config, FewShotConfig)
        and config.data == "omniglot"
        and (variable := os.environ.get("OMNIGLOT_ROOT"))
    ):
        wanted = {"root": variable} | wanted
    if "worker_python" in wanted and isinstance(config, Config):
        workers = {"worker_python": wanted.pop("worker_python"), "workers": config.vector.workers or None}
        wanted["vector"] = config.vector.model_dump() | workers
    return wanted
