"""Finite differences agree for what is right, and find what is wrong."""

from dataclasses import replace
from typing import Any

import pytest
from tiny import tiny

from maml_rl.checks import gradients as module
from maml_rl.checks.gradients import check_gradients
from maml_rl.core.adapt import InnerLoop
from maml_rl.rl import learner, losses
from maml_rl.rl.fisher import fisher_vector_product
from maml_rl.rl.policies import Policy


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"policy": {"activation": "relu"}, "inner": {"estimator": "lvc", "steps": 2}},
        {"inner": {"estimator": "dice", "steps": 3, "learn_lr": True}},
        {"inner": {"first_order": True, "learn_lr": True, "steps": 2}},
        {"inner": {"adapt": "last", "estimator": "lvc"}},
        {"policy": {"context": 3}, "inner": {"adapt": "context", "learn_lr": True}},
        {"method": "pretrained"},
        {
            "outer": {"name": "promp", "exploration": 1.0, "inner_kl": 0.5},
            "inner": {"steps": 2, "estimator": "log_prob"},
        },
        {"outer": {"name": "promp", "inner_kl": 0.5}, "inner": {"estimator": "lvc", "steps": 2}},
        {"outer": {"name": "promp", "exploration": 1.0, "inner_kl": 0.5, "clip": 0.01}, "inner": {"first_order": True}},
        {"outer": {"name": "adam", "exploration": 2.0}, "inner": {"first_order": True, "steps": 2}},
        {"env": "bandit", "inner": {"estimator": "lvc"}},
        {"env": "tabular-mdp", "baseline": {"name": "none"}, "inner": {"estimator": "dice"}},
    ],
    ids=str,
)
def test_all_is_right(changes: dict[str, Any]) -> None:
    rows = check_gradients(tiny(**changes))
    assert all(row.agrees for row in rows), [row for row in rows if not row.agrees]
    quantities = {row.quantity for row in rows}
    assert quantities == {"meta-gradient", "Fisher product"}
    learned = bool(changes.get("inner", {}).get("learn_lr"))
    assert any(row.direction.startswith("lr.") for row in rows) == learned
    assert all(row.computed > 0 for row in rows if row.quantity == "Fisher product" and row.direction == "all")


def test_a_wrong_product_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_order_product(policy: Policy, inner: InnerLoop, *arguments: Any) -> Any:
        return fisher_vector_product(policy, replace(inner, first_order=True), *arguments)

    monkeypatch.setattr(module, "fisher_vector_product", first_order_product)
    rows = check_gradients(tiny(inner={"lr": 1.0}))
    assert all(row.agrees for row in rows if row.quantity == "meta-gradient")
    assert not all(row.agrees for row in rows if row.quantity == "Fisher product")


def test_a_wrong_meta_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.MetaObjective.gradient

    def first_order(objective: module.MetaObjective, *arguments: Any) -> Any:
        return right(replace(objective, inner=replace(objective.inner, first_order=True)), *arguments)

    monkeypatch.setattr(module.MetaObjective, "gradient", first_order)
    rows = check_gradients(tiny(inner={"lr": 1.0}))
    assert not all(row.agrees for row in rows if row.quantity == "meta-gradient")


@pytest.mark.parametrize("left_out", ["clip", "inner_kl", "credit"])
def test_every_term_of_the_outer_objective_is_checked(left_out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.MetaObjective.gradient

    def without(objective: module.MetaObjective, *arguments: Any) -> Any:
        return right(replace(objective, **{left_out: None}), *arguments)

    outer = {"name": "promp", "exploration": 1.0, "inner_kl": 0.5, "clip": 1e-3}
    config = tiny(outer=outer, inner={"estimator": "log_prob"})
    assert all(row.agrees for row in check_gradients(config))
    monkeypatch.setattr(module.MetaObjective, "gradient", without)
    assert not all(row.agrees for row in check_gradients(config) if row.quantity == "meta-gradient")


def test_the_loss_that_is_trained_with_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only the importance-weighted one, of which finite differences are taken."""
    right = losses.inner_loss

    def half_stopped(policy: Policy, estimator: str, importance_weighted: bool = False) -> Any:
        good = right(policy, estimator, importance_weighted)
        return good if importance_weighted else lambda params, batch: 0.5 * good(params, batch)

    monkeypatch.setattr(learner, "inner_loss", half_stopped)
    rows = check_gradients(tiny(inner={"estimator": "lvc", "lr": 1.0}))
    assert not all(row.agrees for row in rows)


def test_derivatives_too_small_for_differences_raise_no_alarm() -> None:
    rows = check_gradients(tiny(env="tabular-mdp", inner={"lr": 20.0, "steps": 2}))
    assert all(row.agrees for row in rows)
