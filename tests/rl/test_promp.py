"""ProMP's outer step: what it climbs, its penalty's coefficient, and the state that it keeps."""

import dataclasses
from pathlib import Path

import alone
import pytest
import torch
from alone import adapt_stacked, outer_step, stack
from tiny import rows, same_checkpoint, tiny

from maml_rl import meta_train
from maml_rl.config.rl import Outer
from maml_rl.core.adapt import InnerLoop, Rates
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params
from maml_rl.rl.losses import ESTIMATORS, inner_loss
from maml_rl.rl.objective import MetaObjective
from maml_rl.runs import checkpoint
from maml_rl.runs.checkpoint import Checkpoint
from synthetic import POLICY, numbers, random_batch, random_params

TASKS = 3
COEFFICIENT = torch.tensor([0.25], dtype=torch.float64)


def problem(estimator: str = "lvc", steps: int = 1) -> tuple[Params, MetaObjective]:
    loss, theta = inner_loss(POLICY, estimator, importance_weighted=True), random_params(0)
    params_by_step, batches = [stack(theta, TASKS)], []
    for k in range(steps + 1):
        batches.append(random_batch(params_by_step[-1], TASKS, seed=40 + k, episodes=10, steps=6))
        if k < steps:
            params_by_step.append(adapt_stacked(loss, params_by_step[-1], [batches[-1]], 0.1))
    return theta, MetaObjective(POLICY, InnerLoop(loss, Rates(0.1)), TaskAxis(TASKS), batches, params_by_step)


def settings(**changes: object) -> Outer:
    return Outer(**({"name": "promp", "lr": 0.01} | changes))


def same(one: Params, other: Params) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_epoch_without_clip_or_penalty_is_adam(estimator: str) -> None:
    (theta, objective), state = problem(estimator), {}
    for _ in range(2):  # the second away from the old parameters, and with moments
        moved, after, _ = outer_step("promp", theta, state, objective, settings(epochs=1, clip=1e9, inner_kl=0.0))
        expected, moments, _ = outer_step("adam", theta, state, objective, Outer(name="adam", lr=0.01))
        assert same(moved, expected)
        assert same(after, moments)
        theta, state = moved, after
    for changes in ({"epochs": 2}, {"clip": 0.01}, {"inner_kl": 10.0}):
        other = outer_step(
            "promp", theta, state, objective, settings(**({"epochs": 1, "clip": 1e9, "inner_kl": 0.0} | changes))
        )
        once = outer_step("adam", theta, state, objective, Outer(name="adam", lr=0.01))
        assert not same(other[0], once[0]), changes


def test_epochs_are_steps_of_adam_on_the_same_data() -> None:
    theta, objective = problem(steps=2)
    moved, after, _ = outer_step("promp", theta, {}, objective, settings(epochs=3, inner_kl=0.25))
    penalised, state = dataclasses.replace(objective, clip=0.3, inner_kl=COEFFICIENT), {}
    for _ in range(3):
        theta, state, _ = outer_step("adam", theta, state, penalised, Outer(name="adam", lr=0.01))
    assert same(moved, theta)
    assert same(after, state)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_more_epochs_climb_higher(estimator: str, steps: int) -> None:
    theta, objective = problem(estimator, steps)
    climbed = dataclasses.replace(objective, clip=0.3, inner_kl=COEFFICIENT)
    before, gains = numbers(alone.values(climbed, theta))[0], [0.0]
    for epochs in (1, 3, 9):
        moved, _, log = outer_step("promp", theta, {}, objective, settings(lr=0.003, epochs=epochs, inner_kl=0.25))
        value, kl, inner_kl = numbers(alone.values(climbed, moved))
        gains.append(value - before)
        assert log["objective/gain"] == pytest.approx(gains[-1], abs=1e-12)
        assert (log["kl/outer"], log["kl/before"]) == pytest.approx((kl, inner_kl), abs=1e-12)
    assert gains == sorted(set(gains))


def test_a_larger_penalty_keeps_the_policy_before_adaptation_closer() -> None:
    theta, objective = problem()
    near, far = (
        outer_step("promp", theta, {}, objective, settings(epochs=20, inner_kl=coefficient))[2]
        for coefficient in (10.0, 1e-6)
    )
    assert near["kl/before"] < 0.5 * far["kl/before"]


@pytest.mark.parametrize(("ratio", "factor"), [(0.1, 2.0), (0.6, 2.0), (0.7, 1.0), (1.4, 1.0), (1.6, 0.5), (9.0, 0.5)])
def test_the_coefficient_follows_its_rule(ratio: float, factor: float) -> None:
    """Halved where the KL is below target / 1.5, doubled where it is above 1.5 target; from the next step on."""
    theta, objective = problem()
    kl = outer_step("promp", theta, {}, objective, settings(inner_kl=0.25))[2]["kl/before"]
    adaptive = settings(inner_kl=0.25, inner_kl_target=ratio * kl)
    moved, state, log = outer_step("promp", theta, {}, objective, adaptive)
    assert log["kl/before"] == kl
    assert log["inner_kl_coefficient"] == 0.25
    assert float(state["inner_kl"]) == 0.25 * factor
    fixed = {name: value for name, value in state.items() if name != "inner_kl"}
    found, _, log = outer_step("promp", moved, state, objective, adaptive)
    expected, _, _ = outer_step("promp", moved, fixed, objective, settings(inner_kl=0.25 * factor))
    assert same(found, expected)
    assert log["inner_kl_coefficient"] == 0.25 * factor


@pytest.mark.parametrize(("target", "coefficients"), [(1e-9, [0.25, 0.5, 1.0, 2.0]), (1e9, [0.25, 0.125, 0.0625])])
def test_the_coefficient_is_carried_from_step_to_step(target: float, coefficients: list[float]) -> None:
    (theta, objective), state, found = problem(), {}, []
    for _ in coefficients:
        theta, state, log = outer_step(
            "promp", theta, state, objective, settings(inner_kl=0.25, inner_kl_target=target, epochs=1)
        )
        found.append(log["inner_kl_coefficient"])
    assert found == coefficients


def test_without_a_target_the_coefficient_stays() -> None:
    theta, objective = problem()
    _, state, log = outer_step("promp", theta, {}, objective, settings(inner_kl=0.25))
    assert log["inner_kl_coefficient"] == 0.25
    assert set(state) == {f"{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq") for name in theta}


def test_the_state_survives_a_checkpoint(tmp_path: Path) -> None:
    theta, objective = problem()
    adaptive = settings(inner_kl_target=1e-5)
    moved, state, _ = outer_step("promp", theta, {}, objective, adaptive)
    checkpoint.save(tmp_path / "it.pt", Checkpoint(moved, 1, 2, 3.0, "", state))
    read = checkpoint.load(tmp_path / "it.pt")
    assert same(read.outer, state)
    assert {float(value) for name, value in state.items() if name.startswith("step.")} == {5.0}  # epochs
    one = outer_step("promp", moved, state, objective, adaptive)
    two = outer_step("promp", read.theta, read.outer, objective, adaptive)
    assert same(one[0], two[0])
    assert same(one[1], two[1])
    assert one[2] == two[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"outer": {"name": "promp", "inner_kl_target": 1e-3}},
        {
            "outer": {"name": "promp", "exploration": 0.1},
            "inner": {"steps": 2, "learn_lr": True, "estimator": "log_prob"},
        },
        {"outer": {"name": "adam"}, "inner": {"estimator": "lvc"}},
    ],
    ids=["target", "exploration", "adam"],
)
def test_resuming_equals_not_having_stopped(changes: dict[str, dict[str, object]], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    meta_train(tiny(iterations=4, **changes), whole, quiet=True)
    for iterations in (1, 3, 4):
        meta_train(tiny(iterations=iterations, **changes), parts, resume=True, quiet=True)
    for name in ("checkpoint.pt", "checkpoint_previous.pt", "best.pt"):
        assert same_checkpoint(whole / name, parts / name), name
        assert same(checkpoint.load(whole / name).outer, checkpoint.load(parts / name).outer), name
    assert rows(whole) == rows(parts)
