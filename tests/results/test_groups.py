"""Runs that differ in their seed only are one group, with the shortest label that tells it from the others."""

from typing import Any

import pytest

from maml_envs import InputError
from maml_rl.config.base import resumable_keys
from maml_rl.config.rl import Config
from maml_rl.results.runs import Run, grouped


def run(name: str = "", **keys: Any) -> Run:
    """A run of navigation with these keys, called by its seed unless it has a name."""
    config = Config.model_validate({"env": "navigation", "preset": "finn2017", "horizon": 100} | keys)
    return Run(name or f"s{config.seed}", config, [], (), {})


def names(*runs: Run) -> dict[str, list[str]]:
    return {group.label: [each.name for each in group.runs] for group in grouped(runs)}


def test_seeds_are_together_in_the_order_of_their_first() -> None:
    assert names(run(seed=7), run("p", method="pretrained"), run(seed=2), run("o", method="oracle")) == {
        "MAML": ["s7", "s2"],
        "pretrained": ["p"],
        "oracle": ["o"],
    }
    assert [group.method for group in grouped([run(method="random"), run("m")])] == ["random", "maml"]


def test_labels_say_what_differs_within_a_method_and_no_more() -> None:
    narrow, wide = {"policy": {"hidden": [8]}}, {"policy": {"hidden": [8, 16]}, "inner": {"first_order": True}}
    found = names(run("a", **narrow), run("b", **wide), run("c", method="oracle", tasks=3), run("d", tasks=5, **narrow))
    assert found == {
        "MAML, tasks = 10, policy.hidden = [8], inner.first_order = false": ["a"],
        "MAML, tasks = 10, policy.hidden = [8, 16], inner.first_order = true": ["b"],
        "oracle": ["c"],
        "MAML, tasks = 5, policy.hidden = [8], inner.first_order = false": ["d"],
    }


@pytest.mark.parametrize("key", sorted(resumable_keys(Config).keys() - {"iterations"}))
def test_keys_that_may_differ_on_resuming_tell_nothing_apart(key: str) -> None:
    other = {
        "device": "cpu",
        "evaluation": {"tasks": 3},
        "logger": ["csv"],
        "stop": {"minutes": 3.0},
        "vector": {"workers": 1, "worker_timeout": 3.0, "vector_size": 9},
    }.get(key, 9)
    assert names(run(seed=1), run(seed=2, **{key: other})) == {"MAML": ["s1", "s2"]}


def test_runs_of_other_lengths_are_groups_of_their_own() -> None:
    found = names(run(seed=1, iterations=9), run(seed=1, iterations=3))
    assert list(found) == ["MAML, iterations = 9", "MAML, iterations = 3"]


def test_one_seed_twice_is_refused() -> None:
    with pytest.raises(InputError, match="one and two are of the same configuration and seed, 3: leave one out"):
        grouped([run("one", seed=3), run("other", seed=3, tasks=5), run("two", seed=3, threads=9)])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"env": "half-cheetah-dir", "preset": None, "horizon": None}, "b of env = 'half-cheetah-dir'; give"),
        ({"preset": None}, "b of env = 'navigation', horizon = 100; give"),
        ({"horizon": 50}, "b of env = 'navigation', preset = 'finn2017', horizon = 50; give"),
        ({"vector": {"task_ranges": {"g": (1.0, 2.0)}}}, r"horizon = 100, vector.task_ranges.g = \(1.0, 2.0\); give"),
    ],
)
def test_other_environments_are_refused_in_words(keys: dict[str, Any], said: str) -> None:
    first = "within an environment: a is of env = 'navigation', preset = 'finn2017', horizon = 100, "
    with pytest.raises(InputError, match=first + ".*" + said + " runs of one at a time"):
        grouped([run("a"), run("b", **keys)])
