"""Exact values, and every estimator at the value that it should have; an estimator in another's place is found out."""

import math

import pytest
import torch
from alone import flatten, unflatten
from torch import Tensor

from maml_envs import InputError
from maml_rl.checks import exact
from maml_rl.checks.estimators import CHOICES, check_estimators, inner_loops, problem, sampled_gradients
from maml_rl.core.tree import Params
from maml_rl.rl.losses import ESTIMATORS
from maml_rl.rl.policies import CategoricalPolicy


def own(seed: int, name: str, horizon: int, steps: int = 1, discount: float = 1.0, weighted: bool = True) -> Tensor:
    chosen = problem(seed, horizon=horizon)
    inner = inner_loops(chosen)[name]
    return flatten(exact.expected_meta_gradient(chosen, inner, discount, steps, discounted_gradient=weighted))


def truth(seed: int, horizon: int, steps: int = 1, discount: float = 1.0) -> Tensor:
    chosen = problem(seed, horizon=horizon)
    return flatten(exact.meta_gradient(chosen, discount, steps))


def off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_value_by_hand() -> None:
    """State 0 pays 1 for action 1, which leads to state 1, where everything pays 10; action 0 stays for nothing."""
    task = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], [[0.0, 1.0, 10.0], [0.0, 1.0, 10.0]]], dtype=torch.float64)
    policy = CategoricalPolicy(2, 2, hidden=())
    params = {"0.weight": torch.zeros(2, 2, dtype=torch.float64), "0.bias": torch.tensor([0.0, math.log(3.0)]).double()}
    # action 1 has probability 3/4; from state 0: 3/4, then 1/4 * 3/4 again or 3/4 * 10
    assert float(exact.value(policy, params, task, 1, 0.5)) == pytest.approx(0.75)
    assert float(exact.value(policy, params, task, 2, 0.5)) == pytest.approx(0.75 + 0.5 * (0.25 * 0.75 + 0.75 * 10))


@pytest.mark.parametrize("discount", [1.0, 0.6])
@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_the_listed_episodes_are_all(horizon: int, discount: float) -> None:
    policy, theta, task, *_ = problem(3, states=3, horizon=horizon)
    batch = exact.every_episode(policy, theta, task, horizon, discount, discounted_gradient=False)
    assert len(batch.weights) == 2**horizon * 3 ** (horizon - 1)
    assert float(batch.weights.sum()) == pytest.approx(1)
    expected = float(exact.value(policy, theta, task, horizon, discount))
    assert float((batch.weights[:, 0] * horizon * batch.advantages[:, 0]).sum()) == pytest.approx(expected)


def test_too_many_episodes_are_refused() -> None:
    policy, theta, task, *_ = problem(0, states=5, actions=5)
    with pytest.raises(InputError, match=r"48,828,125 episodes of 6 steps are too many"):
        exact.every_episode(policy, theta, task, 6, 1.0)


@pytest.mark.parametrize("discount", [1.0, 0.7])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_first_gradient_is_that_of_the_value_if_discounted(estimator: str, discount: float) -> None:
    chosen = problem(1)
    policy, theta, task, horizon, _ = chosen
    gradient = torch.func.grad(lambda p: exact.value(policy, p, task, horizon, discount) / horizon)(theta)

    def found(weighted: bool) -> Tensor:
        post = exact.every_episode(policy, theta, task, horizon, discount, weighted)
        return flatten(exact.sampled_meta_gradient(chosen, inner_loops(chosen)[estimator], [], post))

    torch.testing.assert_close(found(True), flatten(gradient))
    if discount < 1:
        assert off(found(False), flatten(gradient)) > 0.01


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("discount", [1.0, 0.7])
def test_dice_is_exact(seed: int, steps: int, discount: float) -> None:
    torch.testing.assert_close(own(seed, "dice", 4, steps, discount), truth(seed, 4, steps, discount))


def test_the_usual_practice_is_not_the_discounted_gradient() -> None:
    usual = own(0, "dice", 4, discount=0.7, weighted=False)
    assert off(usual, truth(0, 4, discount=0.7)) > 0.05


@pytest.mark.parametrize("seed", range(6))
def test_lvc_is_exact_for_one_step_episodes_and_nearer_than_log_prob_for_longer(seed: int) -> None:
    torch.testing.assert_close(own(seed, "lvc", 1), truth(seed, 1))
    longer = truth(seed, 4)
    assert 1e-4 < off(own(seed, "lvc", 4), longer) < off(own(seed, "log_prob", 4), longer)


@pytest.mark.parametrize("name", ["log_prob", "lvc", "first_order"])
@pytest.mark.parametrize("horizon", [1, 3])
def test_own_values_by_explicit_sums(name: str, horizon: int) -> None:
    """(I + lr H) dV(phi) / T, with H the Hessian that the estimator takes, summed over episodes here."""
    policy, theta, task, _, lr = problem(2, horizon=horizon)
    batch = exact.every_episode(policy, theta, task, horizon, 1.0)

    def log_probs(vector: Tensor) -> Tensor:
        return policy(unflatten(vector, theta), batch.observations).log_prob(batch.actions)

    at = flatten(theta)
    score = torch.autograd.functional.jacobian(log_probs, at)
    gain = batch.weights * batch.advantages
    outer = torch.einsum("btp,btq,bt->pq", score, score, gain)
    curved = torch.autograd.functional.hessian(lambda vector: (log_probs(vector) * gain).sum(), at)
    hessian = {"log_prob": curved, "lvc": curved + outer, "first_order": torch.zeros_like(curved)}[name]
    adapted = at + lr * torch.einsum("btp,bt->p", score, gain)

    def value(vector: Tensor) -> Tensor:
        return exact.value(policy, unflatten(vector, theta), task, horizon, 1.0) / horizon

    after = torch.autograd.functional.jacobian(value, adapted)
    torch.testing.assert_close(own(2, name, horizon), after + lr * hessian @ after)


# A task and policy in which the estimators' values are far apart for their noise.
APART = problem(13, horizon=3)


@pytest.fixture(scope="module")
def samples() -> dict[str, Tensor]:
    return {name: sampled_gradients(APART, inner, 1000, 200, seed=5) for name, inner in inner_loops(APART).items()}


@pytest.mark.parametrize("sampled", CHOICES)
@pytest.mark.parametrize("value", CHOICES)
def test_samples_are_at_their_own_value_and_no_other(sampled: str, value: str, samples: dict[str, Tensor]) -> None:
    expected, found = own(13, value, 3), samples[sampled]
    error = (found.mean(0) - expected).norm()
    allowed = 4 * (found.var(0).sum() / len(found)).sqrt() + 0.02 * expected.norm()
    assert (error <= allowed) == (sampled == value)


@pytest.mark.parametrize("seed", [0, 13])
def test_more_episodes_mean_less_error(seed: int) -> None:
    """The noise falls as one over the root of the number of episodes."""
    chosen = problem(seed, horizon=3)
    dice = inner_loops(chosen)["dice"]
    few, many = (sampled_gradients(chosen, dice, count, 100, seed=1).var(0).sum() for count in (100, 1600))
    assert 2.5 < float((few / many).sqrt()) < 6.5


def test_the_rows_of_the_command() -> None:
    rows = check_estimators(APART, episodes=300, repetitions=60)
    assert [row.name for row in rows] == list(CHOICES)
    assert all(row.verdict == "agrees" for row in rows)
    by_name = {row.name: row for row in rows}
    assert by_name["dice"].bias < 1e-12 < by_name["lvc"].bias < by_name["log_prob"].bias
    assert rows[0]._replace(error=1.0).verdict == "differs"
    assert [row.unbiased for row in rows] == [False, False, True, False]
    assert rows[2]._replace(bias=0.1).verdict == "differs"
    assert rows[0]._replace(error=1.0, standard_error=1.0).verdict == "too noisy"


@pytest.mark.parametrize(
    ("numbers", "problem_of"),
    [({"horizon": 0}, "horizon = 0"), ({"actions": 1}, "actions = 1"), ({"lr": 0.0}, r"lr = 0\.0")],
)
def test_numbers_out_of_range_are_named(numbers: dict[str, float], problem_of: str) -> None:
    with pytest.raises(InputError, match=problem_of):
        problem(0, **numbers)
    with pytest.raises(InputError, match="repetitions = 1, episodes = 5"):
        check_estimators(APART, episodes=5, repetitions=1)


def test_params_are_not_changed() -> None:
    before: Params = {name: value.clone() for name, value in APART.theta.items()}
    sampled_gradients(APART, inner_loops(APART)["lvc"], 5, 2, seed=0)
    assert all(torch.equal(before[name], APART.theta[name]) for name in before)
