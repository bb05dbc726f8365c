"""What configurations have in common."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A table of keys; unknown keys, other types, and numbers that are not finite or too large are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _fits_in_64_bits(cls, value: object) -> object:
        values = value if isinstance(value, tuple) else (value,)
        if any(isinstance(each, int) and each >= 2**63 for each in values):
            raise PydanticCustomError("too_large", "Input should be less than 2**63")
        return value


class Whole(Section):
    """A whole configuration, whose keys must make sense together."""

    @abstractmethod
    def contradictions(self) -> Iterator[tuple[bool, str, str]]:
        """Combinations that make no sense: whether it is there, what it is, and the fix."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        problems = [f"{problem}: {fix}" for holds, problem, fix in self.contradictions() if holds]
        if problems:
            raise ValueError("\n".join(problems))
        return self


NO_STEPS = (
    "inner.steps = 0",
    "MAML takes at least 1; for one model trained on all tasks alike use method = 'pretrained'",
)
"""A contradiction, and its fix."""


class Method(NamedTuple):
    """A way of training, or of not training."""

    label: str  # in tables, figures and sentences
    trains: bool  # takes outer steps
    adapts: bool  # takes inner steps in training
    told: bool  # observes the task

    @property
    def tunes(self) -> bool:
        """Return whether its rate is chosen before it adapts to held-out tasks: it was trained for none."""
        return self.trains and not self.adapts and not self.told


METHODS = {
    "maml": Method("MAML", trains=True, adapts=True, told=False),
    "pretrained": Method("pretrained", trains=True, adapts=False, told=False),
    "random": Method("random", trains=False, adapts=False, told=False),
    "oracle": Method("oracle", trains=True, adapts=False, told=True),
}
"""The rows of ``method``; few-shot learning has no oracle."""
