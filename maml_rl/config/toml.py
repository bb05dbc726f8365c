"""Configurations in files: where they are, how they are read, and what is said of one that is not valid."""

import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import ValidationError

from maml_envs import InputError
from maml_rl.config.base import METHODS
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.rl import Config

AnyConfig = Config | FewShotConfig
Kind = TypeVar("Kind", bound=AnyConfig)

MOVED: dict[str, Any] = {"workers": 0, "worker_timeout": 60.0, "vector_size": 64, "task_ranges": {}}
"""Keys of [vector] that were at the top level once, with the defaults that runs of then were saved with."""

UNNAMED: dict[str, Any] = {"advantage_floor": 0.0}
"""Keys that runs of meta-reinforcement learning did not have once, with what they were trained with."""

SAID = 200
"""Letters of a wrong value that are shown of it."""

DOTS = 1000
"""A line of TOML may have so many: tomllib takes time that grows with the square of a dotted key."""


def explain(error: ValidationError, source: str) -> InputError:
    """Say it in our words: each key, what is wrong with it and what was given."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        given = "" if problem["type"] == "missing" else f" (given: {_said(problem['input'])})"
        if problem["type"] == "extra_forbidden" and key in MOVED:
            lines.append(f"  {key}: it is vector.{key} now{given}")
        elif problem["type"] == "extra_forbidden":
            lines.append(f"  {key}: there is no such key{given}; `maml-rl train --help` lists them")
        elif not key:
            lines += [f"  {each}" for each in problem["msg"].removeprefix("Value error, ").splitlines()]
        else:
            lines.append(f"  {key}: {problem['msg']}{given}")
    return InputError("\n".join([f"{source} is not a valid configuration:", *lines]))


def _said(value: object) -> str:
    """A value as Python writes it, cut short; Python refuses integers of over 4300 digits and tables too deep."""
    try:
        said = repr(value)
    except (ValueError, RecursionError):
        return f"{type(value).__name__}, too large to show"
    return said if len(said) <= SAID else f"{said[:SAID]}..."


def parse(values: dict[str, Any], source: str) -> AnyConfig:
    """Validate a table of values, of few-shot learning if it has ``data``; ``source`` names it in errors.

    Raises:
        InputError: Unknown keys, wrong types, values out of range, each by its name.
    """
    try:
        return (FewShotConfig if "data" in values else Config).model_validate(values)
    except ValidationError as error:
        raise explain(error, source) from None


def parse_saved(values: dict[str, Any], source: str) -> AnyConfig:
    """Validate a table of values that a run was saved with, also one from before a key was there or in its place.

    Raises:
        InputError: As for ``parse``.
    """
    if "env" in values and "vector" not in values:
        vector = {key: values[key] for key, default in MOVED.items() if values.get(key, default) != default}
        values = {key: value for key, value in values.items() if key not in MOVED} | {"vector": vector}
    if "env" in values:
        values = UNNAMED | values
    return parse(values, source)


def with_seed(config: Kind, seed: int) -> Kind:
    """The configuration with another seed.

    Raises:
        InputError: It is not in range.
    """
    where = f"seed = {seed}"
    return of_kind(parse(config.model_dump() | {"seed": seed}, where), type(config), where)


def dotted(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a table and of those in it, such as "inner.lr", with its value."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def with_evaluation(config: Kind, where: str, **given: int | None) -> Kind:
    """Return the configuration with [evaluation] settings given in their place; no steps where the task is told.

    Raises:
        InputError: A number is out of range; ``where`` says whose.
    """
    if METHODS[config.method].told and given.get("steps") is None:
        given["steps"] = 0
    section = config.evaluation.model_dump() | {key: n for key, n in given.items() if n is not None}
    return of_kind(parse(config.model_dump() | {"evaluation": section}, where), type(config), where)


def of_kind(config: AnyConfig, kind: type[Kind], source: str) -> Kind:
    """The configuration, if it is one of meta-reinforcement learning or of few-shot learning as asked.

    Raises:
        InputError: It is the other one.
    """
    if not isinstance(config, kind):
        names: dict[type[object], str] = {Config: "meta-reinforcement learning", FewShotConfig: "few-shot learning"}
        raise InputError(f"{source} is of {names[type(config)]}; this is for {names[kind]}")
    return config


def experiments() -> dict[str, Path]:
    """The package's experiments by name: beside the package in a checkout, inside it once installed."""
    return _shipped("*.toml")


def agents() -> dict[str, Path]:
    """The package's trained agents by name, checkpoint files, where its experiments are."""
    return _shipped("agents/*.pt")


def _shipped(pattern: str) -> dict[str, Path]:
    here = Path(__file__).parents[1]
    folders = [here / "experiments", here.parent / "experiments"]
    return {file.stem: file for folder in folders for file in sorted(folder.glob(pattern))}


def find(name: str | Path) -> Path:
    """The file of a configuration: a path, or the name of one of the package's experiments.

    Raises:
        InputError: There is neither; the message lists the experiments.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = experiments()
    if str(name) in shipped:
        return shipped[str(name)]
    near = difflib.get_close_matches(str(name), shipped, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"no configuration file {str(name)!r}, and no experiment of that name: {', '.join(shipped)}{hint}")


def load(name: str | Path, **changes: object) -> AnyConfig:
    """Read a TOML file, or one of the package's experiments by name.

    Args:
        name: The file or the experiment.
        **changes: Keys to replace; a section is a dict, merged into the file's.

    Raises:
        InputError: It is missing, not TOML, or not a valid configuration.
    """
    path = find(name)
    values = _read(path.read_bytes(), str(path), parse).model_dump()
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) and key in values else value
    return parse(values, str(path))


def tables(text: str | bytes) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ValueError: It is not TOML, or nothing that a person would write; the message says why.
    """
    text = text.removeprefix("\ufeff") if isinstance(text, str) else text.decode("utf-8-sig")  # as some editors write
    if any(line.count(".") > DOTS for line in text.split("\n")):
        raise ValueError(f"a line has over {DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deep") from None


def parse_toml(text: str | bytes, source: str) -> AnyConfig:
    """Validate a configuration that a run was saved with, in TOML; ``source`` names it in errors.

    Raises:
        InputError: It is not TOML, or not a valid configuration.
    """
    return _read(text, source, parse_saved)


def _read(text: str | bytes, source: str, validate: Callable[[dict[str, Any], str], AnyConfig]) -> AnyConfig:
    try:
        values = tables(text)
    except ValueError as error:
        raise InputError(f"{source} is not a TOML file: {error}") from None
    if isinstance(values.get("config"), dict):  # a run folder's
        return parse_saved(values["config"], source)
    return validate(values, source)


def to_toml(config: AnyConfig) -> str:
    """The configuration as TOML; keys that are None are left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
