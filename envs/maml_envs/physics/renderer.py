"""Off-screen rendering with MuJoCo, on machines with a display and without."""

import functools
import importlib
import os
import subprocess
import sys

import mujoco

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

    Raises:
        InputError: Neither works.
    """
    given = [name for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY") if os.environ.get(name)]
    if sys.platform != "linux" or given:
        return
    working = next((backend for backend in ("egl", "osmesa") if _works(backend)), None)
    if working is None:
        raise InputError(
            "MuJoCo cannot draw here: there is no display, and neither EGL nor OSMesa works without one; install the "
            "Debian package libegl1 or libosmesa6"
        )
    os.environ["MUJOCO_GL"] = working
    importlib.reload(sys.modules[mujoco.Renderer.__module__].gl_context)


def renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    """Make a renderer of images of a size in pixels, without shadows and reflections, which take most of the time.

    Raises:
        InputError: MuJoCo cannot draw here.
    """
    choose_backend()
    try:
        images = mujoco.Renderer(model, height, width)
    except Exception as error:
        backend = os.environ.get("MUJOCO_GL")
        raise InputError(
            f"MuJoCo cannot draw here with {f'MUJOCO_GL={backend}' if backend else 'the display'}: set the environment "
            f"variable MUJOCO_GL to {PACKAGES} before Python starts; its own words: {error}"
        ) from error
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        images.scene.flags[flag] = False
    return images
