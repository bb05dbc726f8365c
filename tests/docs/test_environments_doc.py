"""docs/reference/environments.md has every family, and what it shows runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from maml_envs.registry import FAMILIES

DOC = Path(__file__).parents[2] / "docs/reference/environments.md"


def test_every_family_has_its_table_row_and_its_own_words() -> None:
    text = DOC.read_text()
    for name, family in FAMILIES.items():
        assert f"\n## `{name}`\n" in text
        for preset in family.presets:
            assert f"| `{name}` | {preset} |" in text
    assert re.search(r"\| `ant-goal` \| finn2017 \| 2 \| 125 \| 8 \| 200 \| yes \|", text)
    assert re.search(r"\| `ant-dir` \| gymnasium \| 1 \| 27 \| 8 \| 200 \| no \|", text)


def test_the_picture_is_drawn() -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL))
    check = "assert image.shape[-1] == 3 and image.std() > 10"
    errors = []
    for backend in ("egl", "osmesa"):
        environment = os.environ | {"MUJOCO_GL": backend}
        command = [sys.executable, "-c", f"{code}\n{check}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        errors.append(done.stderr)
    no_display = all("OpenGL" in error or "GL" in error.splitlines()[-1] for error in errors)
    assert no_display, errors
    pytest.skip("no OpenGL without a display here, so MuJoCo cannot draw")
