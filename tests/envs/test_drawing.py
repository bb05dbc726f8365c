"""Drawing is chosen where something is drawn: what is missing stops a film in words, and nothing else."""

import importlib.util
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

import maml_envs
from maml_envs import VectorOptions

DRAW = """
import torch, maml_envs
env = maml_envs.make("half-cheetah-dir")
env.reset(torch.ones(1, 1), torch.zeros(1, dtype=torch.int64))
print("steps", env.step(torch.zeros(1, 6)).reward.isfinite().item())
try:
    print("image", env.render().shape)
except maml_envs.InputError as error:
    print("refused", error)
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the names are those of Linux")
@pytest.mark.parametrize("backend", ["cgl", "nonsense"])
def test_a_backend_that_there_is_not_stops_drawing_alone(backend: str) -> None:
    done = run(DRAW, MUJOCO_GL=backend)
    assert done.returncode == 0, done.stderr
    assert "steps True" in done.stdout
    assert f"refused MuJoCo cannot draw here with MUJOCO_GL={backend}: unset the environment variable" in done.stdout
    command = [sys.executable, "-m", "maml_rl", "envs"]
    listed = subprocess.run(command, env=os.environ | {"MUJOCO_GL": backend}, capture_output=True, check=False)
    assert listed.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the name is one of Linux")
def test_a_renderer_of_the_users_own_still_loads_opengl_where_it_is_made() -> None:
    code = """
import maml_envs, mujoco
renderer = mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8)
print("drawn", renderer.render().shape)
"""
    alone = run(code.replace("maml_envs, ", ""), MUJOCO_GL="egl")
    if alone.returncode:
        pytest.skip("no EGL here")
    assert "drawn (8, 8, 3)" in run(code, MUJOCO_GL="egl").stdout


def test_triton_after_a_picture_is_no_end_of_python() -> None:
    """Software OpenGL, Mesa's, loads LLVM; triton, which torch imports when it likes, has one of its own."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed: make full")
    done = run(DRAW + "import triton._C.libtriton\nprint('alive')")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("alive\n")


@pytest.mark.skipif(sys.platform != "linux", reason="a display of X11")
def test_a_display_that_is_not_there_is_named_for_gymnasiums_robots_too() -> None:
    code = """
import torch, maml_envs
from maml_envs import VectorOptions
env = maml_envs.make("gymnasium:HalfCheetah-v5", vector=VectorOptions(task_ranges={"gravity": (-15, -5)}),
                     render_mode="rgb_array", horizon=20)
env.reset(env.sample_tasks(1, torch.Generator()), torch.zeros(1, dtype=torch.int64))
try:
    env.render()
except maml_envs.InputError as error:
    print("refused", error)
"""
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"DISPLAY": ":99"}, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("refused env = 'gymnasium:HalfCheetah-v5' cannot draw itself here: "), done.stderr


class Inherited(HalfCheetahEnv):
    """No ``__init__`` of its own, so that the render mode is among its parent's options."""

    horizon = 5

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Any:
        return rng.uniform(-1, 1, (count, 1))

    def set_task(self, task: Any) -> None:
        self.goal = task[0]


class Passing(Inherited):
    """Passes everything on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


@pytest.mark.parametrize("kind", ["Inherited", "Passing"])
def test_a_class_that_passes_the_render_mode_on_draws(kind: str) -> None:
    env = maml_envs.make(f"test_drawing:{kind}", vector=VectorOptions(), render_mode="rgb_array")
    env.reset(env.sample_tasks(1, torch.Generator()), torch.zeros(1, dtype=torch.int64))
    assert env._about.draws
    env.close()
