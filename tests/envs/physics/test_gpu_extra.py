"""Which device an environment gets, and what is said where nothing simulates on a GPU."""

import re
from functools import partial
from importlib import util
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny

import maml_envs
from maml_envs import InputError, physics
from maml_envs.navigation import Navigation
from maml_envs.robots.half_cheetah import HalfCheetahDirection, half_cheetah_model
from maml_rl.config.rl import Config
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params
from maml_rl.machine import device
from maml_rl.rl import learner
from maml_rl.rl.data import Trajectory
from maml_rl.rl.policies import GaussianPolicy
from maml_rl.rl.rollout import Sampler

CUDA = torch.device("cuda")


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where torch finds a GPU that computes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "_found", lambda: CUDA)
    device.fall_back.cache_clear()


@pytest.fixture
def no_extra(a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, without mujoco_warp."""
    monkeypatch.setattr(physics, "find_spec", lambda name: None if name == "mujoco_warp" else util.find_spec("os"))


@pytest.mark.usefixtures("no_extra")
@pytest.mark.parametrize("name", [name for name in maml_envs.names() if "-" in name and name != "tabular-mdp"])
def test_a_gpu_needs_the_extra(name: str) -> None:
    family = maml_envs.family(name)
    message = rf"device = 'cuda' for {family.__name__}: mujoco_warp is not installed: pip install 'maml_rl\[gpu\]'; or"
    with pytest.raises(InputError, match=message):
        maml_envs.make(name, device=CUDA)
    with pytest.raises(InputError, match=message):
        learner.build(tiny(env=name, device="cuda"))
    with pytest.raises(InputError, match=message):
        family(device="cuda")


@pytest.mark.usefixtures("no_extra")
def test_without_the_extra_auto_is_the_cpu_and_says_so_once(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        built = learner.build(tiny(env="half-cheetah-dir", device="auto"))
        assert (built.device.type, built.env.device.type) == ("cpu", "cpu")
        built.close()
    assert capfd.readouterr().err == (
        "device = 'auto' is the CPU here, though there is a GPU: mujoco_warp is not installed: pip install "
        "'maml_rl[gpu]'\n"
    )


def test_a_torch_that_cannot_compute_is_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """This torch has no CUDA, or no driver: it fails in earnest."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    device.fall_back.cache_clear()
    built = learner.build(tiny(device="auto"))
    assert built.device.type == "cpu"
    assert "is the CPU here, though there is a GPU: torch cannot compute on it (" in capfd.readouterr().err
    with pytest.raises((RuntimeError, AssertionError)):  # a promise
        learner.build(tiny(device="cuda")).initial_params()


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), "(OutOfMemoryError: CUDA out of memory. Tried)"),
        (
            RuntimeError("Failed to allocate 9 bytes on device 'cuda:0'"),
            "(RuntimeError: Failed to allocate 9 bytes on ",
        ),
        (RuntimeError("CUDA error: no kernel image is available"), "(RuntimeError: CUDA error: no kernel image is"),
        (RuntimeError(), "(RuntimeError)"),
    ],
)
def test_first_steps_that_fail_on_the_gpu_are_taken_on_the_cpu(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    built, closed = learner._built, []

    def fails(config: Config, where: torch.device) -> learner.Learner:
        made = built(config, torch.device("cpu"))
        if where.type == "cuda":
            made.env.device = CUDA
            monkeypatch.setattr(made.sampler, "rollout", lambda *_: (_ for _ in ()).throw(error))
            monkeypatch.setattr(made.sampler, "close", lambda: closed.append(made))
        return made

    monkeypatch.setattr(learner, "_built", fails)
    torch.set_num_threads(1)  # as on a GPU
    made = learner.build_and_try(tiny(device="auto", threads=2))
    assert made not in closed
    assert len(closed) == 1
    assert f"its first steps failed {said}" in (all_said := capfd.readouterr().err)
    assert "more" not in all_said
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_trying_out_is_a_part_of_an_iteration() -> None:
    made = learner.build(tiny(env="half-cheetah-dir", horizon=5))
    seen = []
    whole = made.sampler.rollout

    def rollout(params: Params, tasks: torch.Tensor, noise: torch.Tensor, *more: torch.Tensor) -> Trajectory:
        played = whole(params, tasks, noise, *more)  # type: ignore[arg-type]
        seen.append((played.rewards.shape, tuple(noise.shape)))
        return played

    object.__setattr__(made.sampler, "rollout", rollout)
    learner._try_out(made)
    config = made.config
    assert seen == [((config.tasks, config.episodes, 2), (config.tasks, config.episodes, 2, 6))]
    made.close()


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ([], r"warp finds no CUDA device: its wheel needs an NVIDIA driver of the 580 series or newer; .*\+cu12"),
        ([SimpleNamespace(arch=61, name="GTX 1080")], "warp makes no kernels for GTX 1080, of compute capability 6.1"),
    ],
)
def test_a_driver_or_card_that_is_too_old_is_named(
    devices: list[SimpleNamespace], said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    gpu = pytest.importorskip("maml_envs.physics.gpu")
    monkeypatch.setattr(gpu.wp, "get_cuda_devices", lambda: devices)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with pytest.raises(InputError, match=f"device = 'cuda' for HalfCheetahDirection: {said}"):
        learner.build(tiny(env="half-cheetah-dir", device="cuda"))
    with pytest.raises(InputError, match=f"device = 'cuda': {said}"):
        gpu.GpuPhysics(half_cheetah_model(), 1, CUDA)
    built = learner.build(tiny(env="half-cheetah-dir", device="auto"))
    assert built.env.device.type == "cpu"
    assert re.search(said, capfd.readouterr().err)
    built.close()


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
