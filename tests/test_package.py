"""The wheel: typed, with the experiments reachable by name, and nothing that belongs to the checkout alone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"maml_rl/py.typed", "maml_envs/py.typed", "maml_rl/experiments/navigation.toml"} <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"maml_rl", "maml_envs"}


def test_experiments_are_found_by_name_once_installed(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "from maml_rl.config import toml as files; "
        "print(files.__file__, files.find('navigation'), files.load('navigation').env)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    module, found, env = done.stdout.split()
    assert Path(module).is_relative_to(tmp_path)
    assert Path(found) == tmp_path / "site/maml_rl/experiments/navigation.toml"
    assert env == "navigation"
