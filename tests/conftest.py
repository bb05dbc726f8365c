"""``maml-rl`` in this process, for every test of it."""

import sys
from pathlib import Path

import mujoco
import pytest
from tiny import Command

from envs import InputError, opengl
from maml_rl import cli


@pytest.fixture(scope="session")
def opengl_works() -> None:
    """Skip a test where MuJoCo cannot draw at all."""
    try:
        opengl.renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs in the ``folder`` of the file that asks: exit code, stdout, stderr; saves the import of torch."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["maml-rl", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run
