"""The task distribution that a configuration names."""

import inspect
import os
from pathlib import Path

from envs import InputError
from envs.own import import_own
from maml_rl.few_shot_config import FewShotConfig
from maml_rl.supervised.omniglot import omniglot
from maml_rl.supervised.sinusoid import Sinusoid
from maml_rl.supervised.tasks import FewShotTasks


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
                "data = 'omniglot' needs the folder with its two zips: give root = \"...\", or set OMNIGLOT_ROOT; "
                "`maml-rl download-omniglot FOLDER` fetches them"
            )
        return omniglot(Path(root), config.ways, config.shots, config.queries)
    return _own(config.data)


def _own(path: str) -> FewShotTasks:
    module_name, _, class_name = path.partition(":")
    if not class_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise InputError(f"data = {path!r} is neither sinusoid, omniglot nor 'my_module:MyTasks'")
    found = getattr(import_own(module_name, f"data = {path!r}"), class_name, None)
    made = found() if callable(found) and not inspect.isabstract(found) else None
    if not isinstance(made, FewShotTasks):
        raise InputError(
            f"data = {path!r} does not make a FewShotTasks when called: derive a class from "
            "maml_rl.supervised.FewShotTasks with sample_tasks and held_out_tasks, or write a function that returns one"
        )
    return made
