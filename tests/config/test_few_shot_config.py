"""A few-shot configuration says what is wrong with it; combinations that do nothing are refused, neighbours are not."""

from typing import Any

import pytest
from few_shot import tiny
from pydantic import BaseModel, ValidationError

from maml_envs import InputError
from maml_rl.config.base import resumable_keys
from maml_rl.config.few_shot import FewShotConfig, FewShotInner
from maml_rl.config.rl import Config
from maml_rl.config.toml import load, of_kind, parse, parse_toml, to_toml


def refusal(**tables: Any) -> list[str]:
    """What is said about a configuration, a line for each problem."""
    with pytest.raises(InputError) as caught:
        parse({"data": "sinusoid"} | tables, "my.toml")
    first, *problems = str(caught.value).split("\n")
    assert first == "my.toml is not a valid configuration:"
    return problems


@pytest.mark.parametrize(
    ("line", "key", "problem"),
    [
        ("shot = 3", "shot", "there is no such key (given: 3)"),
        ("episodes = 3", "episodes", "there is no such key"),
        ("inner.estimator = 'lvc'", "inner.estimator", "there is no such key"),
        ("ways = 1", "ways", "greater than or equal to 2 (given: 1)"),
        ("shots = 0", "shots", "greater than or equal to 1"),
        ("queries = 0", "queries", "greater than or equal to 1"),
        ("tasks = 0", "tasks", "greater than or equal to 1"),
        ("log_every = 0", "log_every", "greater than or equal to 1"),
        ("iterations = 0", "iterations", "greater than or equal to 1"),
        ("inner.lr = 0", "inner.lr", "greater than 0"),
        ("inner.steps = -1", "inner.steps", "greater than or equal to 0"),
        ("inner.adapt = 'context'", "inner.adapt", "'all' or 'last'"),
        ("outer.name = 'trpo'", "outer.name", "'adam' or 'reptile'"),
        ("outer.lr = nan", "outer.lr", "finite number"),
        ("model.name = 'resnet'", "model.name", "'perceptron' or 'convolutional'"),
        ("model.init = 'he'", "model.init", "'glorot' or 'truncated_normal'"),
        ("model.hidden = [8, 0]", "model.hidden.1", "greater than 0"),
        ("evaluation.shots = 0", "evaluation.shots", "greater than or equal to 1"),
        ("evaluation.every = -1", "evaluation.every", "greater than or equal to 0"),
        ("data = 3", "data", "valid string"),
        ("method = 'oracle'", "method", "'maml', 'pretrained' or 'random'"),
    ],
)
def test_a_bad_value_is_named(line: str, key: str, problem: str) -> None:
    text = line if line.startswith("data") else f"data = 'sinusoid'\n{line}"
    with pytest.raises(InputError) as caught:
        parse_toml(text, "my.toml")
    _, found = str(caught.value).split("\n")
    assert found.startswith(f"  {key}: ")
    assert problem in found


NO_STEPS, REPTILE = {"steps": 0}, {"name": "reptile"}
CONTRADICTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"inner": NO_STEPS}, "inner.steps = 0", "use method = 'pretrained'"),
    ({"inner": NO_STEPS | {"learn_lr": True}}, "inner.steps = 0", "use method = 'pretrained'"),
    ({"inner": NO_STEPS | {"adapt": "last"}}, "inner.steps = 0", "use method = 'pretrained'"),
    ({"inner": NO_STEPS | {"first_order": True}}, "inner.steps = 0", "use method = 'pretrained'"),
    ({"inner": NO_STEPS, "outer": REPTILE}, "inner.steps = 0", "use method = 'pretrained'"),
    (
        {"method": "pretrained", "outer": REPTILE},
        "outer.name = 'reptile' with method = 'pretrained'",
        "Reptile learns to adapt, which the baseline does not; use outer.name = 'adam'",
    ),
    ({"inner": {"learn_lr": True}, "outer": REPTILE}, "inner.learn_lr with outer.name = 'reptile'", "use outer.name"),
    ({"inner": {"first_order": True}, "outer": REPTILE}, "inner.first_order with outer.name = 'reptile'", "leave it"),
    ({"inner": {"adapt": "last"}, "outer": REPTILE}, "inner.adapt = 'last' with outer.name = 'reptile'", "be trained"),
    ({"outer": REPTILE | {"lr": 1.5}}, "outer.lr = 1.5 with outer.name = 'reptile'", "give at most 1"),
    ({"model": {"name": "convolutional", "hidden": []}}, "model.hidden = [] with model.name = 'convolutional'", "[64,"),
    (
        {"inner": {"adapt": "last"}, "model": {"hidden": []}},
        "inner.adapt = 'last' with model.hidden = []",
        "whole model",
    ),
    ({"iterations": 150}, "iterations = 150 with log_every = 100", "give a multiple of log_every, such as 200"),
    ({"evaluation": {"every": 50}}, "evaluation.every = 50 with log_every = 100", "such as 100"),
]


@pytest.mark.parametrize(("tables", "problem", "fix"), CONTRADICTIONS)
def test_a_contradiction_is_named_with_its_fix(tables: dict[str, Any], problem: str, fix: str) -> None:
    (line,) = refusal(**tables)
    assert line.startswith(f"  {problem}: ")
    assert fix in line.removeprefix(f"  {problem}: ")


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"method": "random", "outer": REPTILE},
        {"method": "pretrained", "inner": {"learn_lr": True, "first_order": True, "adapt": "last", "steps": 2}},
        {"inner": {"learn_lr": True, "first_order": True, "adapt": "last"}},
        {"outer": REPTILE | {"lr": 1.0}},
        {"outer": {"name": "adam", "lr": 1.5}},
        {"model": {"hidden": []}},
        {"model": {"name": "convolutional", "hidden": [8]}},
        {"iterations": 150, "log_every": 50, "evaluation": {"every": 100}},
        {"evaluation": {"every": 0}},
    ],
)
def test_its_neighbours_are_accepted(tables: dict[str, Any]) -> None:
    assert of_kind(parse({"data": "sinusoid"} | tables, "my.toml"), FewShotConfig, "my.toml").data == "sinusoid"


def test_every_problem_is_listed_at_once() -> None:
    problems = refusal(
        inner=NO_STEPS | {"learn_lr": True, "first_order": True}, outer=REPTILE | {"lr": 2.0}, iterations=7
    )
    keys = [" ".join(line.split()[:5]) for line in problems]
    assert keys == [
        "inner.steps = 0: MAML takes",
        "inner.first_order with outer.name = 'reptile':",
        "inner.learn_lr with outer.name = 'reptile':",
        "outer.lr = 2.0 with outer.name",
        "iterations = 7 with log_every",
    ]


def test_a_configuration_made_in_python_is_checked_too() -> None:
    with pytest.raises(ValidationError, match=r"inner\.steps = 0: MAML takes at least 1"):
        FewShotConfig(data="sinusoid", inner=FewShotInner(steps=0, learn_lr=True))


@pytest.mark.parametrize(
    "config",
    [
        FewShotConfig(data="sinusoid"),
        tiny(root="/some where/é", model={"hidden": []}, inner={"lr": 1e-7}, evaluation={"shots": 2, "every": 2}),
        tiny(data='my "own":Class', outer=REPTILE, seed=2**62 - 1),
    ],
)
def test_toml_and_back(config: FewShotConfig) -> None:
    assert parse_toml(to_toml(config), "again") == config


def test_data_makes_it_few_shot_and_env_does_not() -> None:
    assert isinstance(parse({"data": "sinusoid"}, "a"), FewShotConfig)
    assert isinstance(parse({"env": "navigation"}, "a"), Config)
    with pytest.raises(InputError, match="env: there is no such key"):
        parse({"data": "sinusoid", "env": "navigation"}, "a")


def test_each_kind_is_told_from_the_other() -> None:
    few, reinforced = tiny(), Config(env="navigation")
    assert of_kind(few, FewShotConfig, "x") is few
    assert of_kind(reinforced, Config, "x") is reinforced
    with pytest.raises(InputError, match="x is of few-shot learning; this is for meta-reinforcement learning"):
        of_kind(few, Config, "x")
    with pytest.raises(InputError, match="x is of meta-reinforcement learning; this is for few-shot learning"):
        of_kind(reinforced, FewShotConfig, "x")


def test_load_with_changes_validates_them() -> None:
    changed = load("sinusoid", iterations=200, inner={"lr": 0.2})
    assert isinstance(changed, FewShotConfig)
    assert (changed.iterations, changed.inner.lr, changed.inner.steps) == (200, 0.2, 1)
    with pytest.raises(InputError, match="iterations = 250 with log_every = 100"):
        load("sinusoid", iterations=250)


def test_what_may_differ_on_resuming() -> None:
    of_both = dict.fromkeys(("iterations", "device", "threads", "logger", "evaluation", "stop"), True)
    stepping = dict.fromkeys(("workers", "worker_timeout", "worker_python", "vector_size"), True)
    assert resumable_keys(FewShotConfig) == of_both | {"root": True, "tasks_at_once": True}
    assert resumable_keys(Config) == of_both | {"compare_gradients": True, "vector": stepping}


@pytest.mark.parametrize("kind", [{"env": "navigation"}, {"data": "sinusoid"}])
def test_loggers_are_known_and_each_there_once(kind: dict[str, Any]) -> None:
    assert parse(kind, "").logger == ("tensorboard",)
    assert parse(kind | {"logger": ["csv", "wandb"]}, "").logger == ("csv", "wandb")
    assert parse_toml(to_toml(parse(kind | {"logger": []}, "")), "").logger == ()
    for names, said in ((["csv", "csv"], "each name once"), (["csv", "stone"], "'tensorboard', 'wandb', 'trackio'")):
        with pytest.raises(InputError, match=f"logger.*: Input should (have|be) {said}"):
            parse(kind | {"logger": names}, "")


def test_every_number_has_a_lower_bound_and_every_key_is_described() -> None:
    def fields(model: type[BaseModel]) -> list[tuple[str, Any]]:
        found = []
        for name, field in model.model_fields.items():
            inside = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            found += fields(field.annotation) if inside else [(name, field)]  # type: ignore[arg-type]
        return found

    assert len(fields(FewShotConfig)) > 20
    for name, field in fields(FewShotConfig):
        assert field.description, name
        if field.annotation in (int, float, int | None):
            assert {"ge", "gt"} & {bound for rule in field.metadata for bound in vars(type(rule))}, name
