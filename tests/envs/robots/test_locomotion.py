"""What the robots share: the terms of the reward, motion from positions, and when a value is outside."""

import pytest
import torch

from maml_envs.robots.hopper import HopperRandomDynamics
from maml_envs.robots.locomotion import outside
from maml_envs.robots.model import State


def test_the_terms_follow_the_definition() -> None:
    env = HopperRandomDynamics()
    before = State(torch.tensor([[0.25, 0, 0, 0, 0, 0]]), torch.zeros(1, 6))
    after = State(torch.tensor([[0.5, 0, 0, 0, 0, 0]]), torch.full((1, 6), 9.0))
    control = torch.tensor([[1.0, -1.0, 0.5]])
    assert env.change(before, after, 1).position.tolist() == [[0.5]]
    assert env.change(before, after, 1).velocity.tolist() == [[pytest.approx(0.25 / 0.016)]]
    env.definition = env.definition._replace(weight=2.0, control_cost=0.1, survive=3.0)
    terms = env.reward_terms(before, control, after, torch.ones(1, 41))
    expected = {"reward_run": 31.25, "reward_control": -0.225, "reward_survive": 3.0}
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected)
    env.definition = env.definition._replace(survive=0.0)
    assert "reward_survive" not in env.reward_terms(before, control, after, torch.ones(1, 41))


def test_the_ends_of_an_interval_are_inside_and_nan_is_nowhere() -> None:
    values = torch.tensor([0.19, 0.2, 0.5, 1.0, 1.01, float("nan"), float("inf")], dtype=torch.float64)
    assert outside(values, (0.2, 1.0)).tolist() == [True, False, False, False, True, False, True]
    assert not outside(values, (-torch.inf, torch.inf)).any()
