"""Import MuJoCo without what it draws with, which is chosen where something is drawn.

MuJoCo loads the OpenGL library that MUJOCO_GL names with its own import, and fails there if it is missing: on a machine
that is to train alone, nothing would run.
"""

import os
import sys

GIVEN = os.environ.get("MUJOCO_GL")
"""The user's choice; None for ours."""

if GIVEN is not None and "mujoco" not in sys.modules:
    os.environ["MUJOCO_GL"] = "disabled"
    try:
        import mujoco as mujoco
    finally:
        os.environ["MUJOCO_GL"] = GIVEN
