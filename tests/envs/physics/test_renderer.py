"""Off-screen drawing without a display, each case in a process of its own: MuJoCo chooses once in its lifetime."""

import os
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DRAW = """
import mujoco
from maml_envs import InputError
from maml_envs.physics import renderer as opengl
ball = "<mujoco><worldbody><light pos='0 0 3'/><geom size='1' rgba='1 0 0 1'/></worldbody></mujoco>"
model = mujoco.MjModel.from_xml_string(ball)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
try:
    renderer = opengl.renderer(model, 64, 48)
    renderer.update_scene(data)
    image = renderer.render()
    renderer.close()
    print("drawn", *image.shape, int(image[24, 32].argmax()), int(image[24, 32].max()) > 50)
except InputError as error:
    print("refused:", error)
"""


def drawing(code: str = DRAW, **variables: str) -> "subprocess.Popen[str]":
    """A process that draws without a display, with no other variables of OpenGL than these."""
    kept = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")}
    environment = kept | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MuJoCo draws without a display by itself")
def test_without_a_display() -> None:
    # MuJoCo's window library needs a display.
    unset, window = (process.communicate(timeout=60)[0] for process in [drawing(), drawing(MUJOCO_GL="glfw")])
    assert window.startswith(
        "refused: MuJoCo cannot draw here with MUJOCO_GL=glfw: unset the environment variable MUJOCO_GL, or set it to "
        "egl (Debian package libegl1) or osmesa (libosmesa6); its own words: "
    )
    if unset.startswith("refused"):
        assert "there is no display, and neither EGL nor OSMesa works" in unset
        assert "install the Debian package libegl1 or libosmesa6" in unset
        pytest.skip(unset)
    assert unset == "drawn 48 64 3 0 True\n"  # red in the middle


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MuJoCo draws without a display by itself")
def test_without_egl() -> None:
    # PyOpenGL, told to use another platform, lets MuJoCo load neither; then OSMesa alone, as if it was installed since.
    code = f"{DRAW}\nimport os\nos.environ['PYOPENGL_PLATFORM'] = 'osmesa'\n{DRAW}"
    refusal = (
        "refused: MuJoCo cannot draw here: there is no display, and neither EGL nor OSMesa works without one; install "
        "the Debian package libegl1 or libosmesa6"
    )
    out, _ = drawing(code, PYOPENGL_PLATFORM="glx").communicate(timeout=60)
    assert out.splitlines() == [refusal, "drawn 48 64 3 0 True" if find_library("OSMesa") else refusal]
