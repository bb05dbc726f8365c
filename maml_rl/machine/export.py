"""Torch modules as files that need no part of this package: torch.export's and ONNX."""

import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maml_envs import InputError


def save_module(module: nn.Module, example: Tensor, path: Path | str, names: tuple[str, str]) -> Path:
    """Write a module of one tensor, of any number of rows, to a file: PATH.pt2, or PATH.onnx (extra ``onnx``).

    Args:
        module: The module.
        example: Two rows or more.
        path: The file.
        names: What ONNX calls the input and the output; the first is the name of ``forward``'s argument too.

    Raises:
        InputError: The name ends otherwise, the file is there already, or a package is missing.
    """
    path = refuse_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    module, rows = copy.deepcopy(module).requires_grad_(False), ({0: torch.export.Dim("n")},)
    with _quiet():
        if path.suffix == ".pt2":
            torch.export.save(torch.export.export(module, (example,), dynamic_shapes=rows), path)
            return path
        settings: Any = {"input_names": [names[0]], "output_names": [names[1]], "external_data": False}
        torch.onnx.export(module, (example,), path, dynamo=True, dynamic_shapes=rows, verbose=False, **settings)
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from telling users what it will change in itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def refuse_file(path: Path | str) -> Path:
    """Return the path of a file that a policy can be written to.

    Raises:
        InputError: The name ends otherwise, the file is there already, or a package is missing.
    """
    path = Path(path).expanduser()
    if path.suffix not in (".pt2", ".onnx"):
        raise InputError(f"{path}: give a name that ends in .pt2 (torch.export) or .onnx")
    if path.exists():
        raise InputError(f"{path} is there already: give another name")
    if path.suffix == ".onnx" and any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript")):
        raise InputError(f"{path}: ONNX needs `pip install 'maml_rl[onnx]'`")
    return path
