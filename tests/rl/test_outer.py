"""Adam's and the trust-region step on a real meta-objective."""

import dataclasses
import math

import alone
import pytest
import torch
from alone import adapt_stacked, flatten, meta_iteration, outer_step, stack, unflatten
from tiny import tiny

from maml_rl.config.rl import Outer
from maml_rl.core.adam import adam_step
from maml_rl.core.adapt import InnerLoop, Rates
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params, of_one_seed
from maml_rl.rl import outer
from maml_rl.rl.fisher import fisher_vector_product
from maml_rl.rl.learner import build
from maml_rl.rl.losses import ESTIMATORS, inner_loss
from maml_rl.rl.method import MetaRL
from maml_rl.rl.objective import MetaObjective, Terms
from maml_rl.rl.outer import OUTER, trpo
from synthetic import POLICY, numbers, random_batch, random_params

TASKS = 3


def problem(estimator: str = "log_prob", steps: int = 1) -> tuple[Params, MetaObjective]:
    loss, theta = inner_loss(POLICY, estimator), random_params(0)
    params_by_step, batches = [stack(theta, TASKS)], []
    for k in range(steps + 1):
        batches.append(random_batch(params_by_step[-1], TASKS, seed=30 + k, episodes=20, steps=10))
        if k < steps:
            params_by_step.append(adapt_stacked(loss, params_by_step[-1], [batches[-1]], 0.1))
    return theta, MetaObjective(POLICY, InnerLoop(loss, Rates(0.1)), TaskAxis(TASKS), batches, params_by_step)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_an_accepted_step_improves_within_the_trust_region(estimator: str, steps: int) -> None:
    theta, objective = problem(estimator, steps)
    moved, _, log = outer_step("trpo", theta, {}, objective, Outer(max_kl=0.01, fisher_subsample=1))
    before, after = numbers(alone.values(objective, theta)), numbers(alone.values(objective, moved))
    assert log["linesearch/accepted"] == 1
    assert after[0] > before[0]
    assert 0 < after[1] <= 0.01
    assert log["kl/outer"] == pytest.approx(after[1])
    assert log["objective/gain"] == pytest.approx(after[0] - before[0])


def test_the_step_solves_the_linear_quadratic_problem() -> None:
    """With a tiny trust region the first try is s = sqrt(2 max_kl / g'H^-1 g) H^-1 g, and its KL is max_kl."""
    theta, objective = problem()
    n = flatten(theta).numel()
    settings = Outer(max_kl=1e-9, cg_iterations=3 * n, damping=1e-3, fisher_subsample=1)
    moved, _, log = outer_step("trpo", theta, {}, objective, settings)
    product = alone.fisher_product(POLICY, objective.inner, theta, objective.batches, objective.params_by_step)
    eye = torch.eye(n, dtype=torch.float64)
    hessian = torch.stack([flatten(product(unflatten(row, theta))) for row in eye]) + 1e-3 * eye
    torch.testing.assert_close(hessian, hessian.mT)
    gradient = flatten(alone.gradient(objective, theta)[1])
    solution = torch.linalg.solve(hessian, gradient)
    step = (2e-9 / gradient.dot(solution)).sqrt() * solution
    torch.testing.assert_close(flatten(moved) - flatten(theta), step, rtol=1e-4, atol=1e-9)
    assert log["linesearch/backtracks"] == 0
    assert log["cg/residual"] < 1e-6


class Hopeless(MetaObjective):
    """Refuses every point of the line search."""

    def values(self, theta: Params) -> Terms:
        return Terms(torch.tensor([math.nan]), torch.zeros(1), torch.zeros(1))


def test_a_refused_step_returns_the_given_parameters() -> None:
    theta, objective = problem()
    before = {name: value.clone() for name, value in theta.items()}
    given = of_one_seed(theta)
    refusing = Hopeless(POLICY, objective.inner, objective.axis, objective.batches, objective.params_by_step)
    moved, _, log = trpo(given, {}, refusing, Outer())
    assert moved is given
    assert all(torch.equal(theta[name], before[name]) for name in theta)
    assert (log["linesearch/accepted"], log["linesearch/backtracks"]) == (0, 15)
    assert (log["kl/outer"], log["objective/gain"]) == (0, 0)


def test_a_gradient_that_is_not_finite_is_named() -> None:
    theta, objective = problem()
    broken = objective.batches[1]._replace(advantages=torch.full_like(objective.batches[1].advantages, torch.nan))
    poisoned = dataclasses.replace(objective, batches=[objective.batches[0], broken])
    with pytest.raises(FloatingPointError, match=r"meta-gradient of task 0 is NaN or infinite in 0\.weight"):
        outer_step("trpo", theta, {}, poisoned, Outer())


def test_subsampled_products_use_fewer_steps_and_find_a_similar_direction() -> None:
    theta, objective = problem()
    steps = [
        flatten(outer_step("trpo", theta, {}, objective, Outer(fisher_subsample=n))[0]) - flatten(theta) for n in (1, 2)
    ]
    assert not torch.equal(*steps)
    assert torch.cosine_similarity(*steps, dim=0) > 0.5


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_products_of_a_run_keep_whole_episodes_where_the_loss_couples_their_steps(
    estimator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = build(tiny(episodes=5, horizon=4, inner={"estimator": estimator}, outer={"fisher_subsample": 3}))
    method, kept, whole = MetaRL([learner]), [], []

    def product(policy: object, inner: object, axis: object, theta: object, batches: list, *rest: object) -> object:
        kept.extend(batches)
        return fisher_vector_product(policy, inner, axis, theta, batches, *rest)

    def seen(theta: Params, state: Params, objective: MetaObjective, settings: Outer) -> object:
        whole.extend(objective.batches)
        return trpo(theta, state, objective, settings)

    monkeypatch.setattr(outer, "fisher_vector_product", product)
    monkeypatch.setitem(OUTER, "trpo", OUTER["trpo"]._replace(step=seen))
    method.iterate(of_one_seed(learner.initial_params()), {}, 0)
    assert len(kept) == len(whole) == 2
    for batch, every in zip(kept, whole, strict=True):
        if estimator == "dice":
            assert torch.equal(batch.actions, every.actions[:, ::3])
        else:
            assert torch.equal(batch.actions[:, :, 0], torch.stack([every.actions[:, b, -b % 3] for b in range(5)], 1))
    learner.close()


def by_hand(
    theta: torch.Tensor, gradient: torch.Tensor, m: torch.Tensor, v: torch.Tensor, t: int, lr: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Algorithm 1 of Kingma and Ba 2015, upwards: theta, first and second moment after step t = 1, 2, ..."""
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    return theta + lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8), m, v


def test_adam_is_kingma_and_bas() -> None:
    theta, objective = problem()
    at, m, v = flatten(theta), torch.zeros_like(flatten(theta)), torch.zeros_like(flatten(theta))
    params, state = theta, {}
    for t in (1, 2, 3):
        start, gradient = alone.gradient(objective, unflatten(at, theta))
        at, m, v = by_hand(at, flatten(gradient), m, v, t, lr=0.01)
        params, state, log = outer_step("adam", params, state, objective, Outer(name="adam", lr=0.01))
        torch.testing.assert_close(flatten(params), at, atol=1e-12, rtol=1e-10)
        value, kl, _ = numbers(alone.values(objective, params))
        assert log["objective/gain"] == pytest.approx(value - float(start), abs=1e-12)
        assert log["kl/outer"] == pytest.approx(kl, abs=1e-12)
        assert log["grad/norm"] == pytest.approx(float(flatten(gradient).norm()))
        assert value > start
    first = outer_step("adam", params, {}, objective, Outer(name="adam", lr=0.01))[0]
    carried = outer_step("adam", params, state, objective, Outer(name="adam", lr=0.01))[0]
    assert not torch.allclose(flatten(first), flatten(carried), rtol=1e-4)  # the state matters


@pytest.mark.parametrize("seeds", [1, 3])
def test_adam_steps_each_of_several_seeds_and_counts_on_the_cpu(seeds: int) -> None:
    theta = {"a": torch.ones(seeds, 2), "b": torch.ones(seeds, 1)}
    gradient = {name: torch.arange(1.0, 1 + value.numel()).reshape(value.shape) for name, value in theta.items()}
    state: Params = {}
    for _ in range(2):
        theta, state = adam_step(theta, state, gradient, 0.1, maximise=False)
    assert {name: value.shape for name, value in state.items() if name.startswith("step")} == {
        "step.a": (seeds,), "step.b": (seeds,)
    }  # fmt: skip
    assert all((state[f"step.{name}"] == 2).all() and state[f"step.{name}"].is_cpu for name in theta)
    for value in theta.values():
        torch.testing.assert_close(value, torch.full_like(value, 0.8), atol=1e-6, rtol=0)


def test_adam_climbs_a_learned_rate_too() -> None:
    start, plain = problem()
    rates = Rates(0.1, learned=True)
    theta = rates.init(start)
    objective = dataclasses.replace(plain, inner=dataclasses.replace(plain.inner, rates=rates))
    moved, _, _ = outer_step("adam", theta, {}, objective, Outer(name="adam", lr=0.01))
    assert list(moved) == list(theta)
    _, gradient = alone.gradient(objective, theta)
    for name, value in moved.items():  # Adam's first step is lr * sign(gradient), but for its 1e-8
        step = 0.01 * gradient[name] / (gradient[name].abs() + 1e-8)
        torch.testing.assert_close(value - theta[name], step, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", OUTER)
def test_what_is_given_is_not_changed(name: str) -> None:
    theta, objective = problem()
    settings = Outer(name=name, inner_kl_target=0.1 if name == "promp" else None)
    _, state, _ = outer_step(name, theta, {}, objective, settings)
    copies = [{key: value.clone() for key, value in given.items()} for given in (theta, state)]
    moved, after, _ = outer_step(name, theta, state, objective, settings)
    for given, copy in zip((theta, state), copies, strict=True):
        assert given.keys() == copy.keys()
        assert all(torch.equal(given[key], copy[key]) for key in copy)
    assert not any(value.requires_grad for value in (*moved.values(), *after.values()))
    assert not torch.equal(flatten(moved), flatten(theta))
    again, same, _ = outer_step(name, theta, state, objective, settings)
    assert all(torch.equal(again[key], moved[key]) for key in moved)
    assert all(torch.equal(same[key], after[key]) for key in after)


@pytest.mark.parametrize("name", OUTER)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_every_outer_step_takes_every_estimator_and_number_of_inner_steps(
    name: str, estimator: str, steps: int
) -> None:
    learner = build(tiny(inner={"estimator": estimator, "steps": steps}, outer={"name": name}))
    theta = learner.initial_params()
    ((moved, state, row),) = meta_iteration([learner], [(theta, {})], 0)
    assert all(math.isfinite(value) for value in row.values()), row
    assert all(value.isfinite().all() for value in (*moved.values(), *state.values()))
    assert name == "trpo" or not torch.equal(flatten(moved), flatten(theta))
    for k in range(1, steps + 1):
        assert row[f"gain/{k}"] == pytest.approx(row[f"return/{k}"] - row[f"return/{k - 1}"], abs=1e-4)
    assert {f"return/{steps + 1}", f"gain/{steps + 1}", "gain/0"}.isdisjoint(row)
