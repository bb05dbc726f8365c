"""Whole episodes beside gymnasium's own robots: the same bits of positions, velocities and endings."""

from pathlib import Path

import pytest
import torch
from robots import assert_same_robot, beside, play

from maml_envs.robots.ant import AntDirection, AntGoal
from maml_envs.robots.half_cheetah import HalfCheetahDirection
from maml_envs.robots.hopper import HopperRandomDynamics
from maml_envs.robots.humanoid import HumanoidDirection
from maml_envs.robots.locomotion import Locomotion
from maml_envs.robots.walker2d import Walker2dDirection, Walker2dRandomDynamics

NO_FORCES = {"contact_cost_weight": 0, "include_cfrc_ext_in_observation": False}
PARTS = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
PLAIN = {f"include_{part}_in_observation": False for part in PARTS} | {"contact_cost_weight": 0}
FEET = {"xml_file": "walker2d.xml"}
EASY = {"healthy_z_range": (0.0, 1.0)}
ROBOTS = {
    "half-cheetah": (HalfCheetahDirection, [1.0], "HalfCheetah-v5", {"ctrl_cost_weight": 0.05}),
    "ant": (AntDirection, [1.0], "Ant-v5", NO_FORCES | EASY),
    "hopper": (HopperRandomDynamics, [1.0] * 41, "Hopper-v5", {"time_step": 0.004}),
    "walker": (Walker2dDirection, [1.0], "Walker2d-v5", FEET),
    "walker-rand": (
        Walker2dRandomDynamics,
        [1.0] * 65,
        "Walker2d-v5",
        {"xml_file": "walker2d.xml", "time_step": 0.004},
    ),
    "humanoid": (HumanoidDirection, [1.0, 0.0], "Humanoid-v5", PLAIN | {"newton": True}),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes a log where it runs when gymnasium loads its half-cheetah: a deprecated attribute."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("robot", ROBOTS)
def test_an_episode_is_gymnasiums(robot: str, threads: int) -> None:
    family, task, name, options = ROBOTS[robot]
    env: Locomotion = family(threads=threads)
    steps = list(play(env, torch.tensor([task, task, task]), 200))
    lengths = []
    for row in range(3):
        theirs = beside(name, steps, row, **{"frame_skip": env.frame_skip} | options)
        assert_same_robot(env, steps, theirs, row)
        lengths.append(len(theirs))
    assert max(lengths) == 200 if robot == "half-cheetah" else 4 < max(lengths) < 200
    env.close()


def test_an_ended_world_stands_still_and_the_others_go_on() -> None:
    env = HopperRandomDynamics(threads=2)
    steps = list(play(env, torch.ones(4, 41), 60))
    ends = torch.stack([played.step.terminated for played in steps])
    first = ends.int().argmax(0)
    assert ends.any(0).all()
    assert len(first.unique()) > 1
    for row, end in enumerate(first.tolist()):
        for played in steps[end:]:
            assert torch.equal(played.after.qpos[row], steps[end].after.qpos[row])
            assert played.step.terminated[row]
    # The next episode begins as any.
    again = list(play(env, torch.ones(4, 41), 60))
    assert torch.equal(again[2].after.qvel, steps[2].after.qvel)
    env.close()


def test_the_goal_of_an_ant_is_the_place_where_it_is() -> None:
    env = AntGoal(threads=1)
    for played in play(env, torch.tensor([[1.0, 0.0]]), 3):
        assert torch.equal(played.step.observation[:, :2], played.after.qpos[:, :2].float())
    env.close()
