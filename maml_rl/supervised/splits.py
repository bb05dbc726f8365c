"""Classes for training, validation and test: by number, by name, or as a file says."""

import tomllib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maml_envs import InputError

SPLITS = ("training", "validation", "test")
SPLIT_SEED = 20_170_810
"""Which classes are held out is the same in every run."""

Classes = Sequence[int] | Sequence[Sequence[object]] | Path | str | None
"""Three numbers; three lists of labels; a TOML file of three lists with the names of ``SPLITS``; None for a default."""


def split_classes(classes: Classes, kinds: Sequence[object], ways: int) -> dict[str, Tensor]:
    """Return the numbers of the classes of each split.

    Args:
        classes: See ``Classes``; None for about 70, 10 and 20 % of them, by chance, as with numbers.
        kinds: The label of each class.
        ways: Classes in a task.

    Raises:
        InputError: A label is unknown or twice there, or a split has fewer classes than a task.
    """
    if isinstance(classes, str | Path):
        classes = read_classes(classes)
    count = len(kinds)
    if classes is None:
        classes = (count - count // 10 - count // 5, count // 10, count // 5)
    if isinstance(classes, Mapping) or len(classes) != len(SPLITS):
        raise InputError(f"classes = {classes!r:.80}: give three numbers or lists, for {', '.join(SPLITS)}")
    parts = [int(part) for part in classes if isinstance(part, int | np.integer) and not isinstance(part, bool)]
    if len(parts) < len(SPLITS):
        return _by_name(classes, kinds, ways)
    if sum(parts) > count or min(parts) < ways:
        most = count // len(parts)
        fits = f"[{count - 2 * ways}, {ways}, {ways}]"
        other = f"give classes = {fits} (a configuration: below [data_options]), or fewer ways"
        raise InputError(
            f"{count} classes in parts of {', '.join(map(str, parts))} for training, validation and test: each "
            f"part needs at least ways = {ways}; {other if ways <= most else f'they are enough for {most} ways'}"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return dict(zip(SPLITS, order[: sum(parts)].split(parts), strict=True))


def read_classes(name: str | Path) -> list[list[object]]:
    """Return the lists of labels that a TOML file has for each of ``SPLITS``.

    Raises:
        InputError: It cannot be read, or has others.
    """
    file = Path(name).expanduser()
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"classes = {str(file)!r} cannot be read: {error}") from error
    if set(found) != set(SPLITS) or not all(isinstance(part, list) for part in found.values()):
        raise InputError(f"{file} has {', '.join(found) or 'nothing'}: give it lists called {', '.join(SPLITS)}")
    return [found[name] for name in SPLITS]


def _by_name(parts: Sequence[object], kinds: Sequence[object], ways: int) -> dict[str, Tensor]:
    known = {kind: number for number, kind in enumerate(kinds)}
    found: dict[str, Tensor] = {}
    seen: dict[object, str] = {}
    for split, labels in zip(SPLITS, parts, strict=True):
        if not isinstance(labels, Sequence | np.ndarray) or isinstance(labels, str):
            raise InputError(f"classes for {split} are {labels!r:.80}: give a list of labels, as for the others")
        for label in (each.item() if isinstance(each, np.generic) else each for each in labels):
            if not isinstance(label, Hashable) or label not in known:
                raise InputError(f"classes for {split} name {label!r}, which no example has; there is {kinds[0]!r}")
            if label in seen:
                raise InputError(f"classes: {label!r} is for {seen[label]} and for {split}: leave one of them out")
            seen[label] = split
        if len(labels) < ways:
            raise InputError(f"classes: {len(labels)} for {split}, where a task has ways = {ways}: give more of them")
        found[split] = torch.tensor([known[label] for label in labels])
    return found
