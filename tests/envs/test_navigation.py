"""2D navigation: steps by hand, the box that ends an episode, the fixed evaluation goals."""

import math

import pytest
import torch
from torch import Tensor

from maml_envs import InputError
from maml_envs.navigation import Navigation

HELD_OUT = [[0.2558706, -0.3591373], [-0.0722963, -0.2071548], [0.0073528, -0.070649]]
HELD_OUT_BEYOND = [[0.4850157, -0.6807629], [-0.1771831, -0.507693], [0.061797, -0.5937709]]
GREEN, BLUE, WHITE = [0, 158, 115], [0, 114, 178], [255, 255, 255]


def start(*goals: tuple[float, float]) -> Navigation:
    env = Navigation()
    observation = env.reset(torch.tensor(goals), torch.arange(len(goals)))
    assert torch.equal(observation, torch.zeros(len(goals), 2))
    return env


def assert_equal(actual: Tensor, expected: list) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=1e-6)


def test_spaces_and_defaults() -> None:
    env = Navigation()
    assert (env.horizon, env.copies, env.max_batch, env.preset) == (100, 1, None, "finn2017")
    assert env.observation_space.shape == env.action_space.shape == (2,)
    assert env.action_space.low.tolist() == [-1, -1]
    assert env.action_space.high.tolist() == [1, 1]
    assert Navigation(horizon=7).horizon == 7


def test_two_steps_by_hand() -> None:
    env = start((0.3, 0.1), (-0.4, 0.0))
    step = env.step(torch.tensor([[0.5, -2.0], [0.0, 1.0]]))
    # The moves are 0.1 a, each coordinate clipped to 0.1 on its own.
    assert_equal(step.observation, [[0.05, -0.1], [0.0, 0.1]])
    assert_equal(step.reward, [-math.hypot(0.25, 0.2), -math.hypot(0.4, 0.1)])
    second = env.step(torch.tensor([[3.0, 4.0], [-0.25, -0.5]]))
    assert_equal(second.observation, [[0.15, 0.0], [-0.025, 0.05]])
    assert_equal(second.reward, [-math.hypot(0.15, 0.1), -math.hypot(0.375, 0.05)])
    for flags in (step.terminated, step.truncated, second.terminated, second.truncated):
        assert flags.tolist() == [False, False]
        assert flags.dtype == torch.bool
    # What a step returned is not written over by the next one.
    assert_equal(step.observation, [[0.05, -0.1], [0.0, 0.1]])


def test_the_move_is_clipped_to_a_tenth() -> None:
    env = start(*[(0.0, 0.0)] * 5)
    action = torch.tensor([[1.0, -1.0], [1.01, 0.99], [1e6, -1e6], [math.inf, -math.inf], [0.0, 0.3]])
    expected = [[0.1, -0.1], [0.1, 0.099], [0.1, -0.1], [0.1, -0.1], [0.0, 0.03]]
    assert_equal(env.step(action).observation, expected)


def test_a_nan_action_shows() -> None:
    env = start((0.1, 0.1), (0.1, 0.1))
    step = env.step(torch.tensor([[math.nan, 0.0], [0.0, 0.0]]))
    assert step.reward.isfinite().tolist() == [False, True]
    assert step.observation.isfinite().all(-1).tolist() == [False, True]


@pytest.mark.parametrize(
    ("action", "ends"),
    [
        ((1.0, 0.0), True),
        ((0.905, 0.0), True),
        ((0.905, 0.095), True),  # outside the disc of the same radius: the box counts
        ((0.905, -0.095), True),
        ((0.895, 0.0), False),
        ((1.0, 0.105), False),  # near in x alone
        ((0.0, 0.0), False),  # near in y alone
        ((-1.0, 0.0), False),
    ],
)
def test_an_episode_ends_in_the_box_around_the_goal(action: tuple[float, float], ends: bool) -> None:
    env = start((0.1, 0.0), (0.5, 0.5))
    step = env.step(torch.tensor([action, action]))
    assert step.terminated.tolist() == [ends, False]
    assert step.info["success"].tolist() == [ends, False]
    assert step.truncated.tolist() == [False, False]
    assert step.reward[0].item() == pytest.approx(-math.hypot(0.1 * action[0] - 0.1, 0.1 * action[1]), abs=1e-7)


def test_nothing_resets_by_itself() -> None:
    env = start((0.1, 0.0))
    assert env.step(torch.tensor([[1.0, 0.0]])).terminated.item()
    assert_equal(env.step(torch.tensor([[1.0, 0.5]])).observation, [[0.2, 0.05]])


def test_reset_takes_other_goals_and_another_batch() -> None:
    env = start((0.1, 0.0))
    env.step(torch.ones(1, 2))
    assert torch.equal(env.reset(torch.tensor([[0.0, 0.3], [0.0, -0.2]]), torch.arange(2)), torch.zeros(2, 2))
    assert_equal(env.step(torch.zeros(2, 2)).reward, [-0.3, -0.2])


def test_goals_are_uniform_in_the_square() -> None:
    env = Navigation()
    goals = env.sample_tasks(20000, torch.Generator().manual_seed(5))
    assert goals.shape == (20000, 2)
    assert 0.499 < goals.abs().max() < 0.5
    assert goals.mean(0).abs().max() < 4.5 * math.sqrt(1 / 12 / 20000)
    assert (goals.var(0) - 1 / 12).abs().max() < 4.5 * math.sqrt(1 / 180 / 20000)
    assert abs(torch.corrcoef(goals.T)[0, 1]) < 4.5 / math.sqrt(20000)
    # The mean distance of the unit square from its centre.
    env.reset(goals, torch.arange(20000))
    standing = env.step(torch.zeros(20000, 2)).reward.mean().item()
    assert standing == pytest.approx(-(math.sqrt(2) + math.log(1 + math.sqrt(2))) / 6, abs=4.5 * 0.143 / 141)


@pytest.mark.parametrize("split", ["in", "out"])
def test_held_out_goals_are_fixed(split: str) -> None:
    goals = Navigation().held_out_tasks(40, split)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(Navigation().held_out_tasks(40, split), goals)
    assert torch.equal(torch.get_rng_state(), before)
    assert goals.shape == (40, 2)
    assert goals.unique(dim=0).shape == (40, 2)
    reach = goals.abs().amax(-1)
    assert (reach < 0.5).all() if split == "in" else ((reach > 0.5) & (reach < 0.75)).all()
    # In every quadrant: a fixed set that leans to one side would favour a policy that does.
    assert ((goals > 0).long() @ torch.tensor([1, 2])).unique().tolist() == [0, 1, 2, 3]


def test_held_out_goals_have_not_moved() -> None:
    # Published numbers hold for these goals.
    assert_equal(Navigation().held_out_tasks(40)[:3], HELD_OUT)
    assert_equal(Navigation().held_out_tasks(40, "out")[:3], HELD_OUT_BEYOND)
    assert_equal(Navigation().held_out_tasks(3), HELD_OUT)
    assert_equal(Navigation().held_out_tasks(3, "out"), HELD_OUT_BEYOND)


def test_goals_beyond_the_square_reach_over_its_whole_margin() -> None:
    reach = Navigation().held_out_tasks(2000, "out").abs().amax(-1)
    assert (reach - 0.625).mean().abs() < 4.5 * 0.25 / math.sqrt(12 * 2000)
    assert reach.min() < 0.501
    assert reach.max() > 0.749


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="Navigation has no held-out tasks with split='far'"):
        Navigation().held_out_tasks(4, "far")


def test_render_draws_the_first_environment() -> None:
    env = start((0.5, -0.25), (-0.5, 0.5))

    def color(x: float, y: float) -> list[int]:
        return env.render()[round((1 - y) / 2 * 399), round((1 + x) / 2 * 399)].tolist()

    assert env.render().shape == (400, 400, 3)
    assert env.render().dtype.name == "uint8"
    assert color(0, 0) == BLUE
    assert color(0.5, -0.25) == GREEN
    assert color(-0.5, 0.5) == color(0.5, 0.25) == color(-0.5, -0.25) == WHITE
    for _ in range(5):
        env.step(torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))
    assert color(-0.5, 0.5) == BLUE
    assert color(0, 0) == WHITE
