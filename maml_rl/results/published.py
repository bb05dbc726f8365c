"""Published results of both kinds of learning, read from published.toml."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from maml_rl.config.base import METHODS
from maml_rl.config.rl import Config
from maml_rl.config.toml import AnyConfig
from maml_rl.runs.evaluation import Evaluation

Values = tuple[float, ...]


class Published(NamedTuple):
    """Means over held-out tasks after 0, 1, 2, ... gradient steps; NaN or left out where not published."""

    source: str
    maml: Values
    pretrained: Values = ()
    random: Values = ()
    oracle: Values = ()  # without a step
    others: tuple[tuple[str, float], ...] = ()  # methods that are not here, after they have adapted

    def of(self, method: str) -> Values:
        """Return the values of a method."""
        values: Values = getattr(self, method)
        return values

    def curves(self) -> list[tuple[str, Values, bool]]:
        """Return label, values, and whether they are a level, for each method that was published."""
        return [
            (f"{self.source}: {method.label}", self.of(name), method.told)
            for name, method in METHODS.items()
            if self.of(name)
        ]

    def gap_closed(self, steps: int) -> float | None:
        """Return the share of the way from before adaptation to the oracle that so many steps of MAML went."""
        if not (self.oracle and 0 < steps < len(self.maml)):
            return None
        return (self.maml[steps] - self.maml[0]) / (self.oracle[0] - self.maml[0])

    def normalised(self, steps: int) -> float | None:
        """Return where MAML is between random parameters after as many steps, 0, and the oracle, 1."""
        if not (self.oracle and steps < min(len(self.maml), len(self.random))):
            return None
        return (self.maml[steps] - self.random[steps]) / (self.oracle[0] - self.random[steps])


class Entry(NamedTuple):
    """One result of the file."""

    subject: dict[str, Any]  # what it is of
    result: Published


@cache
def entries() -> tuple[Entry, ...]:
    """Read the results that are known."""
    tables = tomllib.loads((Path(__file__).parent / "published.toml").read_text())["result"]
    results = []
    for table in tables:
        values = {key: tuple(table.pop(key)) for key in METHODS if key in table}
        others = tuple(table.pop("others", {}).items())
        result = Published(table.pop("source"), others=others, **values)
        results.append(Entry(table, result))
    return tuple(results)


def find(**subject: object) -> Published | None:
    """Return the published results of a subject, if there are any; horizon = None is the environment's own."""
    for entry in entries():
        own_horizon = {"horizon": None} if "horizon" in entry.subject else {}
        if subject in (entry.subject, entry.subject | own_horizon):
            return entry.result
    return None


def published(config: AnyConfig, evaluation: Evaluation, measure: str) -> Published | None:
    """Return what was published of a run's measure on tasks such as its evaluation's, if something was."""
    if evaluation.split != "in":
        return None
    if isinstance(config, Config):
        return find(env=config.env, preset=config.preset, horizon=config.horizon) if measure == "return" else None
    return find(data=config.data, shots=evaluation.shots, measure=measure)
