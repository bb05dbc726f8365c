"""Combinations of settings that make no sense are refused, with key, value and fix; their neighbours are not."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from maml_envs import InputError
from maml_rl.config.rl import Config, Inner, Outer
from maml_rl.config.toml import parse


def refusal(**tables: Any) -> list[str]:
    """What is said about a configuration, a line for each problem."""
    with pytest.raises(InputError) as caught:
        parse({"env": "bandit"} | tables, "my.toml")
    first, *problems = str(caught.value).split("\n")
    assert first == "my.toml is not a valid configuration:"
    return problems


NO_STEPS = {"steps": 0}
BASELINES = ("pretrained", "oracle", "random")
SETTINGS = [
    ({"inner": NO_STEPS}, "inner.steps = 0", "use method = 'pretrained'"),
    ({"inner": NO_STEPS | {"learn_lr": True}}, "inner.steps = 0", "use method = 'pretrained'"),
    ({"inner": NO_STEPS | {"adapt": "last"}}, "inner.steps = 0", "use method = 'pretrained'"),
    (
        {"inner": NO_STEPS | {"adapt": "context"}, "policy": {"context": 3}},
        "inner.steps = 0",
        "use method = 'pretrained'",
    ),
    ({"inner": NO_STEPS | {"first_order": True}}, "inner.steps = 0", "use method = 'pretrained'"),
    ({"inner": NO_STEPS, "outer": {"exploration": 0.1}}, "inner.steps = 0", "use method = 'pretrained'"),
    ({"inner": NO_STEPS, "method": "pretrained"}, "inner.steps = 0", "MAML takes at least 1"),
    (
        {"inner": {"adapt": "last"}, "policy": {"hidden": []}},
        "inner.adapt = 'last' with policy.hidden = []",
        "use inner.adapt = 'all', or add a hidden layer",
    ),
    (
        {"inner": {"adapt": "context"}},
        "inner.adapt = 'context' with policy.context = 0",
        "give the context a width, such as policy.context = 5",
    ),
    (
        {"inner": {"adapt": "last"}, "policy": {"context": 2}},
        "inner.adapt = 'last' with policy.context > 0",
        "use inner.adapt = 'context' or policy.context = 0",
    ),
    (
        {"tasks": 1, "outer": {"exploration": 0.1}, "inner": {"estimator": "log_prob"}},
        "outer.exploration with tasks = 1",
        "give an even number of tasks",
    ),
    (
        {"tasks": 7, "outer": {"exploration": 0.1}, "inner": {"estimator": "log_prob"}},
        "outer.exploration with tasks = 7",
        "give an even number of tasks",
    ),
    *(
        (
            {"outer": {"exploration": 0.1}, "inner": {"estimator": estimator}},
            f"outer.exploration with inner.estimator = '{estimator}'",
            "use inner.estimator = 'log_prob'",
        )
        for estimator in ("lvc", "dice")
    ),
    (
        {"baseline": {"name": "value_network"}, "episodes": 1},
        "baseline.name = 'value_network' with episodes = 1",
        "use baseline.name = 'linear'",
    ),
    (
        {"baseline": {"name": "value_network"}, "evaluation": {"episodes": 1}},
        "baseline.name = 'value_network' with evaluation.episodes = 1",
        "use baseline.name = 'linear'",
    ),
    (
        {"baseline": {"name": "none"}, "bootstrap_on_truncation": True},
        "bootstrap_on_truncation with baseline.name = 'none'",
        "use baseline.name = 'linear'",
    ),
    (
        {"policy": {"init_std": 0.1, "min_std": 0.2}},
        "policy.min_std = 0.2 above policy.init_std = 0.1",
        "give a lower min_std",
    ),
    (
        {"outer": {"name": "promp", "inner_kl": 0.0, "inner_kl_target": 0.01}},
        "outer.inner_kl_target with outer.inner_kl = 0",
        "give inner_kl a value to start from",
    ),
]

# A value that is not the default of every key of the outer step, and the optimisers that use it.
KEYS = {
    "max_kl": (0.02, {"trpo"}),
    "cg_iterations": (3, {"trpo"}),
    "damping": (0.01, {"trpo"}),
    "backtracks": (4, {"trpo"}),
    "backtrack_ratio": (0.5, {"trpo"}),
    "fisher_subsample": (1, {"trpo"}),
    "lr": (0.01, {"promp", "adam"}),
    "epochs": (2, {"promp"}),
    "clip": (0.1, {"promp"}),
    "inner_kl": (0.2, {"promp"}),
    "inner_kl_target": (0.01, {"promp"}),
}
USES = [(name, key, value) for key, (value, users) in KEYS.items() for name in ("trpo", "promp", "adam")]


@pytest.mark.parametrize(("tables", "problem", "fix"), SETTINGS)
def test_a_contradiction_is_named_with_its_fix(tables: dict[str, Any], problem: str, fix: str) -> None:
    (line,) = refusal(**tables)
    assert line.startswith(f"  {problem}: ")
    assert fix in line.removeprefix(f"  {problem}: ")


@pytest.mark.parametrize(
    "tables",
    [
        {},
        *({"method": method} for method in BASELINES),
        *({"method": method, "inner": {"learn_lr": True, "adapt": "last"}} for method in BASELINES),
        *({"method": method, "inner": {"first_order": True, "steps": 2}} for method in BASELINES),
        *({"method": method, "inner": {"adapt": "context"}, "policy": {"context": 3}} for method in BASELINES),
        *({"method": method, "outer": {"exploration": 0.1}} for method in BASELINES),
        {"inner": {"steps": 1, "learn_lr": True, "first_order": True}},
        {"inner": {"steps": 1, "adapt": "last"}},
        {"inner": {"adapt": "last", "learn_lr": True}, "policy": {"hidden": [8], "context": 0}},
        {"inner": {"adapt": "all"}, "policy": {"hidden": [], "context": 2}},
        {"inner": {"adapt": "context"}, "policy": {"context": 1}},
        {"inner": {"adapt": "context"}, "policy": {"hidden": [], "context": 1}},
        {"outer": {"exploration": 0.1}, "inner": {"estimator": "log_prob"}},
        {"tasks": 2, "outer": {"exploration": 0.1}, "inner": {"first_order": True}},
        {"tasks": 1},
        {"bootstrap_on_truncation": True, "baseline": {"name": "value_network"}},
        {"policy": {"init_std": 0.1, "min_std": 0.1}},
        {"outer": {"name": "promp", "inner_kl": 0.0}},
        {"outer": {"name": "promp", "inner_kl": 1e-6, "inner_kl_target": 0.01}},
        {"outer": {"name": "promp", "inner_kl_target": 0.01}},
    ],
)
def test_its_neighbours_are_accepted(tables: dict[str, Any]) -> None:
    assert parse({"env": "bandit"} | tables, "my.toml").env == "bandit"


def test_every_key_of_the_outer_step_is_someones_here() -> None:
    assert KEYS.keys() | {"name", "exploration"} == Outer.model_fields.keys()


@pytest.mark.parametrize(("name", "key", "value"), USES)
def test_a_key_is_refused_by_the_optimisers_that_do_not_use_it(name: str, key: str, value: float) -> None:
    outer, users = {"name": name, key: value}, KEYS[key][1]
    if name in users:
        assert getattr(parse({"env": "bandit", "outer": outer}, "my.toml").outer, key) == value
        return
    said = f"  outer.{key} = {value} with outer.name = '{name}': only (.*) uses? it; leave it out"
    (line,) = refusal(outer=outer)
    found = re.fullmatch(said, line)
    assert found, line
    assert set(found[1].split(" and ")) == users


@pytest.mark.parametrize("name", ["trpo", "promp", "adam"])
def test_a_default_that_is_written_out_is_accepted(name: str) -> None:
    written = Outer(name=name).model_dump()
    assert parse({"env": "bandit", "outer": written}, "my.toml").outer == Outer(name=name)


def test_every_problem_is_listed_at_once() -> None:
    problems = refusal(
        tasks=1,
        inner=NO_STEPS | {"learn_lr": True, "adapt": "last", "first_order": True},
        outer={"name": "adam", "exploration": 0.5, "clip": 0.1, "max_kl": 0.5},
        policy={"context": 4},
    )
    keys = [line.split()[0] for line in problems]
    assert sorted(keys) == sorted(
        [
            "inner.steps",
            "inner.adapt",  # a context that would never change
            "outer.clip",
            "outer.max_kl",
        ]
    )
    assert all(line.startswith("  ") for line in problems)


def test_a_configuration_made_in_python_is_checked_too() -> None:
    with pytest.raises(ValidationError, match=r"inner\.steps = 0: MAML takes at least 1"):
        Config(env="bandit", inner=Inner(steps=0, learn_lr=True))
