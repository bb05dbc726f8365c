"""A configuration made real: where its random numbers come from, and what does not change them."""

import itertools

import pytest
import torch
from alone import explore_tasks, explore_training, sample_at, stack
from tiny import tiny

from maml_envs import InputError
from maml_rl.core.streams import Purpose
from maml_rl.core.task_axis import TaskAxis
from maml_rl.machine.device import choose_device
from maml_rl.rl.held_out import draw_for
from maml_rl.rl.learner import Learner, build
from maml_rl.rl.method import meta_objective
from maml_rl.train import _learner


@pytest.fixture
def learner() -> Learner:
    return build(tiny(tasks=3, episodes=4))


def test_every_purpose_iteration_and_seed_has_its_own_numbers(learner: Learner) -> None:
    learners = (learner, build(tiny(seed=2)))
    keys = {int(each.key(p, i)) for each, p, i in itertools.product(learners, Purpose, range(50))}
    assert len(keys) == 2 * len(Purpose) * 50
    assert torch.equal(learner.training_tasks(3), learner.training_tasks(3))
    drawn = torch.stack([learner.training_tasks(i) for i in range(20)]).flatten(0, 1)
    assert len(drawn.unique(dim=0)) == 20 * 3


def test_the_initial_parameters_follow_from_the_seed_alone(learner: Learner) -> None:
    one, same, other = (build(c).initial_params() for c in (tiny(), tiny(tasks=9, inner={"lr": 1.0}), tiny(seed=2)))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])
    assert {name: tuple(value.shape) for name, value in one.items()} == {
        "0.weight": (2, 8), "0.bias": (8,), "1.weight": (8, 2), "1.bias": (2,), "log_std": (2,)
    }  # fmt: skip


def test_an_episode_does_not_depend_on_which_others_are_sampled(learner: Learner) -> None:
    theta, tasks = learner.initial_params(), learner.training_tasks(0)
    keys = [learner.key(Purpose.TRAINING, iteration).unsqueeze(0) for iteration in (0, 1)]
    whole = learner.sampler.sample(stack(theta, 3), tasks, 4, keys[0], TaskAxis(3))
    part = learner.sampler.sample(stack(theta, 2), tasks[:2], 3, keys[0], TaskAxis(2))
    assert torch.allclose(part.actions, whole.actions[:2, :3], atol=1e-6)
    assert torch.allclose(part.rewards, whole.rewards[:2, :3], atol=1e-6)
    noise = (whole.actions - whole.behaviour.mean) / whole.behaviour.std()
    assert len(noise.flatten().unique()) == noise.numel()  # no number is used twice
    other = learner.sampler.sample(stack(theta, 3), tasks, 4, keys[1], TaskAxis(3))
    assert not torch.isclose(whole.actions, other.actions).any()


def test_steps_of_one_exploration_have_fresh_episodes(learner: Learner) -> None:
    tasks = learner.training_tasks(0)
    exploration = explore_tasks(learner, learner.initial_params(), tasks, 4, [1e-9, 1e-9])
    draw = draw_for(learner, tasks, 4, Purpose.TRAINING)
    sampled = [sample_at(learner, params, draw, k) for k, params in enumerate(exploration.params_by_step)]
    assert all(torch.equal(t.returns(), o.returns) for t, o in zip(sampled, exploration.outcomes, strict=True))
    noise = torch.stack([(t.actions - t.behaviour.mean) / t.behaviour.std() for t in sampled])
    assert noise.shape == (3, 3, 4, 5, 2)
    assert not torch.isclose(noise[0], noise[1], atol=1e-4).all(-1).any()
    assert not torch.isclose(noise[1], noise[2], atol=1e-4).all(-1).any()


def test_the_configuration_reaches_what_it_names() -> None:
    learner = _learner(tiny(threads=2, horizon=7, policy={"hidden": [3, 4], "init_std": 0.5, "activation": "relu"}))
    assert torch.get_num_threads() == 2
    assert learner.env.horizon == 7
    assert (learner.policy.hidden, learner.policy.activation) == ((3, 4), "relu")
    assert learner.initial_params()["log_std"].exp().tolist() == pytest.approx([0.5, 0.5])
    _learner(tiny())
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("given", "units"), [([4.0], [4.0, 4.0]), ([4.0, 0.5], [4.0, 0.5])])
def test_units_of_observations_are_one_for_all_or_one_each(given: list[float], units: list[float]) -> None:
    assert build(tiny(policy={"observation_units": given})).policy.units.tolist() == units  # type: ignore[union-attr]
    told = build(tiny(method="oracle", policy={"observation_units": given})).policy
    assert told.units.tolist() == [*units, 1.0, 1.0]  # type: ignore[union-attr]


@pytest.mark.parametrize("given", [1e-300, 1e-40, 1e300])
def test_units_that_float32_does_not_hold_are_refused(given: float) -> None:
    with pytest.raises(InputError, match=r"observation_units from .*: beyond what float32 holds"):
        build(tiny(policy={"observation_units": [1.0, given]}))


def test_units_of_another_number_of_observations_are_refused() -> None:
    for given in ([], [1.0, 2.0, 3.0]):
        said = (
            f"observation_units has {len(given)} numbers, and an observation of env = 'navigation' 2: give one number"
        )
        with pytest.raises(InputError, match=said):
            build(tiny(policy={"observation_units": given}))


def test_a_run_in_units_is_the_run_of_an_environment_that_divides() -> None:
    """The policies see the same numbers; baselines see the environment's."""
    ours, theirs = (
        build(tiny(env=env, baseline={"name": "time"}, policy={"observation_units": units}))
        for env, units in (("navigation", [0.25]), ("probes:Finer", [1.0]))
    )
    one, other = (explore_training(learner, learner.initial_params(), 0) for learner in (ours, theirs))
    torch.testing.assert_close(one.params_by_step[1], other.params_by_step[1])
    torch.testing.assert_close(one.batches[1].observations / 0.25, other.batches[1].observations)


@pytest.mark.parametrize("key", ["init_std", "min_std"])
def test_discrete_actions_have_no_standard_deviation(key: str) -> None:
    with pytest.raises(InputError, match=rf"policy.{key} = 0.3 with env = 'bandit'.*leave it out"):
        build(tiny(env="bandit", policy={key: 0.3}))


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "mps", ""):
        with pytest.raises(InputError, match="use auto, cpu or cuda"):
            choose_device(name)


def test_the_e_maml_credit_is_what_the_same_task_reached_less_when_explored_again() -> None:
    learner = build(tiny(tasks=6, episodes=3, outer={"exploration": 0.7}, inner={"estimator": "log_prob"}))
    tasks = learner.training_tasks(0)
    assert torch.equal(tasks[::2], tasks[1::2])
    assert len(tasks.unique(dim=0)) == 3
    exploration = explore_training(learner, learner.initial_params(), 0)
    after = exploration.outcomes[-1]
    reached, divisor = after.returns.mean(-1).tolist(), after.scale.advantages.tolist()
    expected = [0.7 * (reached[k] - reached[k ^ 1]) / (5 * divisor[k]) for k in range(6)]  # episodes of 5 steps
    credit = meta_objective(learner, exploration).credit
    torch.testing.assert_close(credit, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert abs(reached[0] - reached[1]) > 0


def test_without_exploration_every_task_is_another() -> None:
    assert len(build(tiny(tasks=6)).training_tasks(0).unique(dim=0)) == 6
    baseline = tiny(tasks=6, method="pretrained", outer={"exploration": 1.0})
    assert len(build(baseline).training_tasks(0).unique(dim=0)) == 6
