"""Which device an environment gets, and what is said where nothing simulates on a GPU."""

from functools import partial
from importlib import util

import pytest
import torch
from tiny import tiny

import maml_envs
from maml_envs import InputError, physics
from maml_envs.navigation import Navigation
from maml_envs.robots.half_cheetah import HalfCheetahDirection
from maml_rl.core.task_axis import TaskAxis
from maml_rl.rl import learner
from maml_rl.rl.policies import GaussianPolicy
from maml_rl.rl.rollout import Sampler

CUDA = torch.device("cuda")


@pytest.fixture
def no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, without mujoco_warp."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(physics, "find_spec", lambda name: None if name == "mujoco_warp" else util.find_spec("os"))


@pytest.mark.usefixtures("no_extra")
@pytest.mark.parametrize("name", [name for name in maml_envs.names() if "-" in name and name != "tabular-mdp"])
def test_a_gpu_needs_the_extra(name: str) -> None:
    family = maml_envs.family(name)
    message = (
        rf"device = 'cuda': {family.__name__} simulates there with mujoco_warp.*: pip install 'maml_rl\[gpu\]', or"
    )
    with pytest.raises(InputError, match=message):
        maml_envs.make(name, device=CUDA)
    with pytest.raises(InputError, match=message):
        learner.build(tiny(env=name, device="cuda"))
    with pytest.raises(InputError, match=message):
        family(device="cuda")


@pytest.mark.usefixtures("no_extra")
def test_a_gpu_that_was_found_and_not_asked_for_leaves_mujoco_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(learner.maml_envs, "make", lambda *args: asked.append(args[5]) or HalfCheetahDirection())
    built = learner.build(tiny(env="half-cheetah-dir", device="auto"))
    assert built.device == CUDA
    learner.build(tiny(env="navigation", device="auto"))
    monkeypatch.setattr(physics, "find_spec", lambda _: util.find_spec("os"))
    learner.build(tiny(env="half-cheetah-dir", device="auto"))
    assert asked == [torch.device("cpu")] * 2 + [CUDA] * 4


def test_the_device_reaches_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    make = partial(maml_envs.make, "half-cheetah-dir")
    assert [env.device.type for env in maml_envs.make_copies(make)] == ["cpu", "cpu"]
    monkeypatch.setattr(physics, "find_spec", lambda _: util.find_spec("os"))
    made = []
    monkeypatch.setattr(
        HalfCheetahDirection, "__init__", lambda self, **options: (made.append(options), vars(self).update(options))[0]
    )
    maml_envs.make_copies(partial(make, "finn2017", device=CUDA))
    # One copy: there is nothing that two could do side by side.
    assert made == [{"preset": "finn2017", "device": CUDA}]
    env = maml_envs.make("navigation", device=torch.device("meta"))
    assert (type(env), env.device.type) == (Navigation, "meta")


def test_the_oracle_looks_at_its_environments_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr(Navigation, "raise_deferred", lambda self: looked.append(self))
    env, policy = Navigation(), GaussianPolicy(4, 2, (3,))
    params = {name: value.unsqueeze(0) for name, value in policy.init(torch.Generator()).items()}
    seeds = torch.zeros(1, 2, dtype=torch.int64)
    sampler = Sampler([env], policy, observe_task=True)
    sampler.rollout(params, env.held_out_tasks(1), torch.zeros(1, 2, 3, 2), seeds, TaskAxis(1))
    assert looked == [env]
