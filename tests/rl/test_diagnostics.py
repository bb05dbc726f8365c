"""The meta-gradient's noise, and its angle to other choices of it on the same data."""

import itertools
from pathlib import Path

import alone
import pytest
import torch
from tiny import rows, tiny

from maml_rl import meta_train
from maml_rl.core.tree import Params, of_one_seed
from maml_rl.rl import diagnostics
from maml_rl.rl.explore import Exploration
from maml_rl.rl.learner import Learner, build
from maml_rl.rl.losses import ESTIMATORS
from maml_rl.rl.method import meta_objective
from maml_rl.rl.outer import Metrics

NAMES = {*(f"cosine/{name}" for name in ESTIMATORS), "cosine/first_order", "gradient/relative_variance"}


def explored(iteration: int = 0, **changes: object) -> tuple[Learner, Params, Exploration]:
    """In float64: the Learner's own policy, from its initial parameters."""
    learner = build(tiny(**changes))
    theta = {name: value.double() for name, value in learner.initial_params().items()}
    return learner, theta, alone.explore_training(learner, theta, iteration)


def compare_gradients(learner: Learner, theta: Params, exploration: Exploration) -> Metrics:
    return alone.first(diagnostics.compare_gradients(meta_objective(learner, exploration), of_one_seed(theta)))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("outer", ["trpo", "promp", "adam"])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_gradient_has_no_angle_to_itself(estimator: str, outer: str, steps: int) -> None:
    row = compare_gradients(
        *explored(episodes=4, inner={"estimator": estimator, "lr": 1.0, "steps": steps}, outer={"name": outer})
    )
    assert set(row) == NAMES
    assert row[f"cosine/{estimator}"] == pytest.approx(1, abs=1e-9)
    for name in {*ESTIMATORS, "first_order"} - {estimator}:
        assert -1 <= row[f"cosine/{name}"] < 1 - 1e-6, name
    assert row["gradient/relative_variance"] > 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_first_order_gradient_has_no_angle_to_first_order(estimator: str) -> None:
    row = compare_gradients(*explored(inner={"estimator": estimator, "lr": 1.0, "first_order": True}))
    assert row["cosine/first_order"] == pytest.approx(1, abs=1e-9)
    for name in ESTIMATORS:
        assert row[f"cosine/{name}"] < 1 - 1e-6, name


def test_without_an_inner_step_all_are_the_same() -> None:
    row = compare_gradients(*explored(method="pretrained"))
    assert [row[name] for name in NAMES if name.startswith("cosine/")] == pytest.approx([1] * 4)


def test_a_small_rate_makes_small_angles() -> None:
    small, large = (compare_gradients(*explored(inner={"lr": lr})) for lr in (1e-3, 0.3))
    for name in ("lvc", "dice", "first_order"):
        assert 1 - small[f"cosine/{name}"] < 0.01 * (1 - large[f"cosine/{name}"])


def test_the_relative_variance_by_hand() -> None:
    """Of gradients a and b of the even and the odd episodes: |a - b|^2 / |a + b|^2."""
    learner, theta, exploration = explored(episodes=4)
    halves = []
    for first in (0, 1):
        batches = []
        for batch in exploration.batches:
            weights = batch.weights[:, [first, first + 2]]
            batches.append(
                type(batch)(
                    batch.observations[:, [first, first + 2]],
                    batch.actions[:, [first, first + 2]],
                    batch.advantages[:, [first, first + 2]],
                    weights / weights.sum((1, 2), keepdim=True),
                    type(batch.behaviour)(*(field[:, [first, first + 2]] for field in batch.behaviour)),
                )
            )
        _, gradient = alone.gradient(meta_objective(learner, exploration._replace(batches=batches)), theta)
        halves.append(torch.cat([gradient[name].flatten() for name in theta]))
    a, b = halves
    expected = float((a - b).norm() ** 2 / (a + b).norm() ** 2)
    assert compare_gradients(learner, theta, exploration)["gradient/relative_variance"] == pytest.approx(expected)


def test_the_relative_variance_falls_with_the_episodes() -> None:
    """As 1 / episodes where the gradient's own size is far above its noise."""

    def mean(episodes: int) -> float:
        found = [
            compare_gradients(
                *explored(iteration, env="probes:Target", horizon=1, episodes=episodes, policy={"hidden": []})
            )["gradient/relative_variance"]
            for iteration in range(30)
        ]
        return sum(found) / len(found)

    few, many = mean(100), mean(1600)
    assert 8 < few / many < 32
    assert few < 0.2


def test_one_episode_has_no_halves() -> None:
    assert set(compare_gradients(*explored(episodes=1))) == NAMES - {"gradient/relative_variance"}


def test_it_is_logged_every_n_iterations_and_trains_the_same(tmp_path: Path) -> None:
    runs = [
        rows(meta_train(tiny(iterations=4, compare_gradients=every), tmp_path / str(every), quiet=True))
        for every in (0, 1, 2, 3)
    ]
    for every, run in enumerate(runs):
        for iteration, row in enumerate(run):
            there = every > 0 and (iteration + 1) % every == 0
            assert row.keys() & NAMES == (NAMES if there else set())
    plain = runs[0]
    for run, (iteration, row) in itertools.product(runs[1:], enumerate(plain)):
        assert {key: value for key, value in run[iteration].items() if key not in NAMES} == row


def test_training_compares_them_where_the_step_begins() -> None:
    learner, theta, exploration = explored(compare_gradients=1, outer={"name": "adam", "lr": 0.3}, inner={"lr": 1.0})
    ((moved, _, row),) = alone.meta_iteration([learner], [(theta, {})], 0)
    for name, value in compare_gradients(learner, theta, exploration).items():
        assert row[name] == pytest.approx(float(value), rel=1e-4, abs=1e-6)
    assert not torch.equal(moved["0.weight"], theta["0.weight"])
    elsewhere = compare_gradients(learner, moved, exploration)
    assert row["cosine/dice"] != pytest.approx(float(elsewhere["cosine/dice"]), rel=1e-2)
