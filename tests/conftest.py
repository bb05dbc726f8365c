"""``maml-rl`` in this process, for every test of it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import mujoco
import pytest
from robots import Make
from tiny import Command

from maml_envs import InputError
from maml_envs.physics import renderer
from maml_envs.robots.locomotion import Locomotion
from maml_rl.cli import main


@pytest.fixture(scope="session")
def opengl_works() -> None:
    """Skip a test where MuJoCo cannot draw at all."""
    try:
        renderer.renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture
def on_warp() -> Iterator[Make]:
    """Makes a robot whose worlds are mujoco_warp's; skips a test where that is not installed."""
    pytest.importorskip("mujoco_warp")
    made = []

    def make(family: type[Locomotion], preset: str = "gymnasium", **buffers: int) -> Locomotion:
        env = type(family.__name__, (family,), {"simulator": "mujoco_warp", **buffers})(preset)
        made.append(env)
        return env

    yield make
    for env in made:
        env.close()


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs in the ``folder`` of the file that asks: exit code, stdout, stderr; saves the import of torch."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["maml-rl", *map(str, arguments)])
        code = 0
        try:
            main.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run
