"""The base of both configurations: sections, traits of keys, methods."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError


def resumable(default: Any, **rules: Any) -> Any:  # noqa: ANN401  as pydantic's Field
    """Make a key in which a resumed run may differ from the one that began; arguments as for ``Field``."""
    return Field(default, json_schema_extra={"resumable": True}, **rules)


def only(*users: str, default: Any, description: str, **rules: Any) -> Any:  # noqa: ANN401  as pydantic's Field
    """Make a key that belongs to some values of its section's ``name``; the others refuse it."""
    description = f"{', '.join(users)}: {description}"
    return Field(default, description=description, json_schema_extra={"only": list(users)}, **rules)


def trait(field: FieldInfo, name: str) -> Any:  # noqa: ANN401  whatever the trait holds
    """Return what ``resumable`` or ``only`` noted of a key; None for any other."""
    return field.json_schema_extra.get(name) if isinstance(field.json_schema_extra, dict) else None


def resumable_keys(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the keys in which a resumed run may differ, as the argument ``exclude`` of ``model_dump``."""
    keys: dict[str, Any] = {}
    for key, field in kind.model_fields.items():
        if trait(field, "resumable"):
            keys[key] = True
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            inside = resumable_keys(field.annotation)
            keys |= {key: inside} if inside else {}
    return keys


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


def unused(section: Section, table: str, name: str) -> Iterator[tuple[bool, str, str]]:
    """Yield a contradiction for every key that is made with ``only`` and not for this ``name``; see ``Whole``."""
    for key, field in type(section).model_fields.items():
        users, value = trait(field, "only") or [name], getattr(section, key)
        yield (
            name not in users and value != field.default,
            f"{table}.{key} = {value!r} with {table}.name = {name!r}",
            f"only {' and '.join(users)} {'uses' if len(users) == 1 else 'use'} it; leave it out",
        )


def stands_in(
    section: Section, table: str, key: str, others: tuple[str, ...], said: str
) -> Iterator[tuple[bool, str, str]]:
    """Yield the contradiction of a key that is given, beside others whose place it takes; see ``Whole``."""
    given = [name for name in others if getattr(section, name) != type(section).model_fields[name].default]
    value = getattr(section, key)
    problem = f"{table}.{''.join(given[:1])} with {table}.{key} = {value!r}"
    yield value is not None and bool(given), problem, f"{said}; leave it out"


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("repeated", "Input should have each name once")
    return names


LoggerNames = Annotated[tuple[Literal["tensorboard", "wandb", "trackio", "csv"], ...], AfterValidator(_each_once)]
"""The key ``logger``; what each name stands for is in ``maml_rl.runs.loggers.opened``."""

LOGGER: Any = resumable(
    ("tensorboard",),
    strict=False,
    description="Where metrics, figures and films go beside metrics.jsonl, which is always there; []: nowhere",
)


class Stop(Section):
    """Ends of training before its iterations; a run that is resumed goes on as its keys say then."""

    at: float | None = Field(
        None,
        description="Return at least (few-shot learning: accuracy at least, or error at most) after the last of "
        "evaluation.steps gradient steps, mean of three evaluations in training; None: nothing is good enough",
    )
    minutes: float | None = Field(None, gt=0, description="Time since the command began; None: as long as it takes")


class Whole(Section):
    """A whole configuration, whose keys must make sense together."""

    @abstractmethod
    def contradictions(self) -> Iterator[tuple[bool, str, str]]:
        """Combinations that make no sense: whether it is there, what it is, and the fix."""

    @property
    def judge(self) -> dict[str, Any]:
        """Return the settings of the evaluation that the best parameters go by; none where they go by training."""
        return {}

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

NOT_EVALUATED = (
    "stop.at with evaluation.every = 0",
    "there is no evaluation in training to look at; give evaluation.every",
)


class Method(NamedTuple):
    """A way of training, or of not training."""

    label: str  # in tables, figures and sentences
    trains: bool  # takes outer steps
    adapts: bool  # takes inner steps in training
    told: bool  # observes the task
    tunes: bool = False  # its rate is chosen before it adapts to held-out tasks: it was trained for none


METHODS = {
    "maml": Method("MAML", trains=True, adapts=True, told=False),
    "pretrained": Method("pretrained", trains=True, adapts=False, told=False, tunes=True),
    "random": Method("random", trains=False, adapts=False, told=False),
    "oracle": Method("oracle", trains=True, adapts=False, told=True),
}
"""The rows of ``method``; few-shot learning has no oracle."""
