"""The tasks that robots share: their distributions, what is held out, what they pay."""

import math

import pytest
import torch

from maml_envs import InputError
from maml_envs.robots.ant import AntDirection, AntDirection2D, AntGoal, AntVelocity
from maml_envs.robots.half_cheetah import HalfCheetahDirection, HalfCheetahVelocity
from maml_envs.robots.humanoid import HumanoidDirection
from maml_envs.robots.locomotion import Locomotion, Motion
from maml_envs.robots.walker2d import Walker2dDirection, Walker2dVelocity

MANY = 4000


def sampled(env: Locomotion) -> torch.Tensor:
    return env.sample_tasks(MANY, torch.Generator().manual_seed(0))


def assert_fixed(env: Locomotion, split: str) -> torch.Tensor:
    """Held-out tasks, that are the same again whatever the global seed."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    tasks = env.held_out_tasks(40, split)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(tasks, env.held_out_tasks(40, split))
    return tasks


@pytest.mark.parametrize("count", [1, 4, 5])
def test_directions_are_drawn_in_balance_and_each_is_a_fair_coin(count: int) -> None:
    env = HalfCheetahDirection()
    generator = torch.Generator().manual_seed(0)
    draws = torch.cat([env.sample_tasks(count, generator) for _ in range(MANY)], -1)  # (count, MANY)
    assert draws.unique().tolist() == [-1, 1]
    assert draws.sum(0).unique().tolist() == ([0] if count % 2 == 0 else [-1, 1])
    # Each place is forward half of the time, and so is the direction that an odd count has once more.
    assert draws.mean(-1).abs().max() < 4.5 / math.sqrt(MANY)
    assert draws.sum(0).mean().abs() < 4.5 / math.sqrt(MANY)
    # Nothing but balance ties two places together: their product has mean -1 / (count - 1), or -1 / count if odd.
    if count > 1:
        tied = -1 / (count - 1) if count % 2 == 0 else -1 / count
        assert (draws[0] * draws[-1]).mean().item() == pytest.approx(tied, abs=4.5 / math.sqrt(MANY))


@pytest.mark.parametrize("family", [AntDirection, HalfCheetahDirection, Walker2dDirection])
def test_forward_or_backward(family: type[Locomotion]) -> None:
    env = family()
    assert env.sample_tasks(6, torch.Generator().manual_seed(0)).shape == (6, 1)
    assert env.held_out_tasks(5).tolist() == [[1.0], [-1.0], [1.0], [-1.0], [1.0]]
    with pytest.raises(InputError, match=f"{family.__name__} has only two tasks, so no split 'out': use split='in'"):
        env.held_out_tasks(4, "out")
    still = torch.zeros(2, 2)
    motion = Motion(still, torch.tensor([[3.0, 7.0], [-2.0, 7.0]]))
    assert env.task_reward(motion, torch.tensor([[1.0], [-1.0]])).tolist() == [3.0, 2.0]


@pytest.mark.parametrize("family", [AntDirection2D, HumanoidDirection])
def test_directions_of_the_plane(family: type[Locomotion]) -> None:
    env = family()
    tasks = sampled(env)
    assert tasks.shape == (MANY, 2)
    torch.testing.assert_close(tasks.norm(dim=-1), torch.ones(MANY))
    assert tasks.mean(0).abs().max() < 4.5 / math.sqrt(2 * MANY)
    # Each eighth of the circle has its share.
    share = torch.histc(torch.atan2(tasks[:, 1], tasks[:, 0]), 8, -math.pi, math.pi) / MANY
    assert (share - 1 / 8).abs().max() < 4.5 * math.sqrt(7 / 64 / MANY)
    half = math.sqrt(0.5)
    around = [[1, 0], [half, half], [0, 1], [-half, half], [-1, 0], [-half, -half], [0, -1], [half, -half]]
    torch.testing.assert_close(env.held_out_tasks(8), torch.tensor(around), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=f"{family.__name__} has tasks all around, so no split 'out': use split='in'"):
        env.held_out_tasks(4, "out")
    motion = Motion(torch.zeros(2, 2), torch.tensor([[3.0, 1.0], [-2.0, 0.5]]))
    reward = env.task_reward(motion, torch.tensor([[0.6, 0.8], [0.0, -1.0]]))
    torch.testing.assert_close(reward, torch.tensor([2.6, -0.5]))


VELOCITIES = [
    (HalfCheetahVelocity, "gymnasium", 3.0),
    (HalfCheetahVelocity, "finn2017", 2.0),
    (AntVelocity, "gymnasium", 3.0),
    (AntVelocity, "finn2017", 3.0),
    (Walker2dVelocity, "gymnasium", 10.0),
]


@pytest.mark.parametrize(("family", "preset", "top"), VELOCITIES)
def test_goal_velocities(family: type[Locomotion], preset: str, top: float) -> None:
    env = family(preset)
    tasks = sampled(env)
    assert tasks.shape == (MANY, 1)
    assert 0 < tasks.min() < 0.005 * top
    assert 0.995 * top < tasks.max() < top
    assert tasks.mean().item() == pytest.approx(top / 2, abs=4.5 * top / math.sqrt(12 * MANY))
    inside, beyond = assert_fixed(env, "in"), assert_fixed(env, "out")
    assert inside.shape == beyond.shape == (40, 1)
    assert ((inside > 0) & (inside < top)).all()
    assert ((beyond > top) & (beyond < top + 1)).all()
    assert beyond.max() - beyond.min() > 0.85
    with pytest.raises(InputError, match=f"{family.__name__} has no held-out tasks with split='far'"):
        env.held_out_tasks(4, "far")
    motion = Motion(torch.zeros(2, 1), torch.tensor([[3.0], [-2.0]]))
    torch.testing.assert_close(env.task_reward(motion, torch.tensor([[2.5], [0.5]])), torch.tensor([-0.5, -2.5]))


def test_goals_in_a_disc_and_in_a_square() -> None:
    disc, square = AntGoal("gymnasium"), AntGoal("finn2017")
    tasks = sampled(disc)
    radius = tasks.norm(dim=-1)
    assert 2.99 < radius.max() < 3
    # Uniform over the area: r^2 / 9 is uniform in (0, 1), and no direction is preferred.
    assert (radius**2 / 9).mean().item() == pytest.approx(0.5, abs=4.5 / math.sqrt(12 * MANY))
    assert (radius**2 / 9).std().item() == pytest.approx(1 / math.sqrt(12), rel=0.05)
    assert tasks.mean(0).abs().max() < 4.5 * 1.5 / math.sqrt(MANY)
    tasks = sampled(square)
    assert tasks.abs().max() < 3
    assert (tasks.abs().amax(0) > 2.99).all()
    assert ((tasks**2).mean(0) / 3 - 1).abs().max() < 4.5 * math.sqrt(0.8 / MANY)
    for env, norm in ((disc, 2), (square, math.inf)):
        inside, beyond = (assert_fixed(env, split).norm(norm, -1) for split in ("in", "out"))
        assert (inside < 3).all()
        assert ((beyond > 3) & (beyond < 4.5)).all()
        assert beyond.max() - beyond.min() > 1
        with pytest.raises(InputError, match="AntGoal has no held-out tasks with split='far'"):
            env.held_out_tasks(4, "far")
    motion = Motion(torch.tensor([[1.0, -2.0]]), torch.full((1, 2), 9.0))
    assert disc.task_reward(motion, torch.tensor([[3.0, 1.0]])).tolist() == [-5.0]
