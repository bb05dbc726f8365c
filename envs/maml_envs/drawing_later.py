"""Import MuJoCo without what it draws with, which is chosen where something is drawn.

MuJoCo loads the OpenGL library that MUJOCO_GL names with its own import, and fails there if it is missing: on a machine
that is to train alone, nothing would run.
"""

import importlib
import os
import sys
from typing import Any

GIVEN = os.environ.get("MUJOCO_GL")
"""The user's choice; None for ours."""


def _without_drawing(given: str) -> None:
    """Import MuJoCo, whose own drawing, such as a user's mujoco.Renderer, loads OpenGL where it is first asked for."""
    os.environ["MUJOCO_GL"] = "disabled"
    try:
        import mujoco
    finally:
        os.environ["MUJOCO_GL"] = given
    chosen = sys.modules[mujoco.Renderer.__module__].gl_context

    def missing(name: str) -> Any:  # noqa: ANN401  an attribute of the module
        if name != "GLContext":
            raise AttributeError(name)
        importlib.reload(chosen)
        return chosen.__dict__[name]

    chosen.__getattr__ = missing


if GIVEN is not None and "mujoco" not in sys.modules:
    _without_drawing(GIVEN)
