"""Off-screen rendering with MuJoCo, on machines with a display and without."""

import functools
import importlib
import importlib.util
import os
import subprocess
import sys

import mujoco
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from maml_envs.errors import InputError

_DRAW = """
import mujoco
renderer = mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8)
renderer.render()
renderer.close()
"""
"""Code that a process of its own tries: a backend that failed cannot be unloaded."""

PACKAGES = "egl (Debian package libegl1) or osmesa (libosmesa6)"


def _works(backend: str) -> bool:
    command = [sys.executable, "-P", "-c", _DRAW]
    environment = os.environ | {"MUJOCO_GL": backend}
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


@functools.cache
def choose_backend() -> None:
    """Set ``MUJOCO_GL`` to the first of EGL and OSMesa that works, on Linux without a display where it is not set.

    MuJoCo reads the variable where it is imported; its choice is made anew here, so that this need not come first.
    Triton, which torch brings on Linux, is imported before: where software draws, in Mesa, each has an LLVM of its own,
    and Python ends where Mesa's was loaded first.

    Raises:
        InputError: Neither works, or what ``MUJOCO_GL`` names does not.
    """
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("triton")
    if os.environ.get("MUJOCO_GL"):
        try:
            _reload()
        except Exception as error:
            raise _cannot_draw(error) from error
        return
    if sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        return
    working = next((backend for backend in ("egl", "osmesa") if _works(backend)), None)
    if working is None:
        raise InputError(
            "MuJoCo cannot draw here: there is no display, and neither EGL nor OSMesa works without one; install the "
            "Debian package libegl1 or libosmesa6"
        )
    os.environ["MUJOCO_GL"] = working
    _reload()


def _reload() -> None:
    importlib.reload(sys.modules[mujoco.Renderer.__module__].gl_context)


def _cannot_draw(error: Exception) -> InputError:
    backend = os.environ.get("MUJOCO_GL")
    return InputError(
        f"MuJoCo cannot draw here with {f'MUJOCO_GL={backend}' if backend else 'the display'}: unset the environment "
        f"variable MUJOCO_GL, or set it to {PACKAGES}; its own words: {error}"
    )


def renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    """Make a renderer of images of a size in pixels, without shadows and reflections, which take most of the time.

    Raises:
        InputError: MuJoCo cannot draw here.
    """
    choose_backend()
    try:
        images = mujoco.Renderer(model, height, width)
    except Exception as error:
        raise _cannot_draw(error) from error
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        images.scene.flags[flag] = False
    return images


class Pictures:
    """Pictures of worlds, drawn by a renderer that is kept while size and meshes stay the same."""

    def __init__(self) -> None:
        self._renderer: mujoco.Renderer | None = None
        self._like: mujoco.MjModel | None = None

    def draw(
        self, model: mujoco.MjModel, qpos: Tensor, qvel: Tensor, size: tuple[int, int], like: mujoco.MjModel
    ) -> NDArray[np.uint8]:
        """Draw a world from its model's first camera, or a free one: an RGB image (height, width, 3).

        Args:
            model: Of the world.
            qpos: (nq,).
            qvel: (nv,).
            size: Width and height in pixels.
            like: The model whose meshes and textures are drawn.

        Raises:
            InputError: MuJoCo cannot draw here.
        """
        kept = self._renderer
        if kept is None or (kept.width, kept.height) != size or self._like is not like:
            self.close()
            self._renderer, self._like = renderer(like, *size), like
        assert self._renderer is not None
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_forward(model, data)
        camera = mujoco.MjvCamera()
        if model.ncam:
            camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
        else:
            mujoco.mjv_defaultFreeCamera(model, camera)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, everything, self._renderer.scene)
        image: NDArray[np.uint8] = self._renderer.render()
        return image

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
