"""Looks at what this machine and installation can do: for `maml-rl doctor`, and for issues that are reported."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

Level = Literal["ok", "missing", "wrong"]

PACKAGES = ("maml_rl", "torch", "numpy", "gymnasium", "mujoco", "tensorboard")
ONNX = ("onnx", "onnxscript")
LOGGERS = ("wandb", "trackio")
"""Libraries of loggers that are extras of this package."""
LEAST_FREE = 1 << 30
"""Bytes of a disk below which a long run may end for want of space."""


class Finding(NamedTuple):
    """A line of the page."""

    level: Level  # missing: something optional is not there; wrong: training or what was asked for fails
    subject: str
    said: str


def examine(out: Path) -> Iterator[Finding]:
    """Yield what was found, a subject each; ``out`` is where run folders go.

    Each look is on its own: one that fails is a finding, and the next goes on.
    """
    for subject, look in LOOKS.items():
        try:
            level, said = look(out)
        except Exception as error:
            level, said = "wrong", f"{type(error).__name__}: {error}"
        yield Finding(level, subject, said)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _versions(_: Path) -> tuple[Level, str]:
    found = {name: _version(name) for name in PACKAGES}
    lacking = [name for name, number in found.items() if number is None]
    said = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    said = f"Python {platform.python_version()}, {said} ({platform.system()} {platform.machine()})"
    return ("wrong", f"{said}; without {', '.join(lacking)}: install again") if lacking else ("ok", said)


def _cores(_: Path) -> tuple[Level, str]:
    from maml_envs.cores import cores

    busy = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return "ok", f"{os.cpu_count()} processors, of which a run uses {cores()} cores{busy}"


def _gpu(_: Path) -> tuple[Level, str]:
    import torch

    if not torch.cuda.is_available():
        return "missing", f"torch {torch.__version__} finds no GPU: device = 'auto' is the CPU"
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    torch.ones(1, device="cuda").add_(1).item()
    said = f"{name}, compute capability {capability[0]}.{capability[1]}{_driver()}"
    if importlib.util.find_spec("mujoco_warp") is None:
        return "missing", f"{said}; without the extra gpu MuJoCo runs on the CPU, and device = 'auto' is the CPU there"
    from maml_envs.physics.gpu_device import lacks

    missing = lacks(torch.device("cuda"))
    return ("missing", f"{said}; {missing}") if missing else ("ok", f"{said}; MuJoCo runs there too")


def _driver() -> str:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return ""
    return f", driver {found[0]}" if found else ""


def _films(_: Path) -> tuple[Level, str]:
    """Draw a picture in a process of its own, which a broken OpenGL may end."""
    code = (
        "import mujoco, os; from maml_envs.physics.renderer import renderer; "
        "renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 8, 8); print(os.environ.get('MUJOCO_GL', 'the display'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        return "ok", f"MuJoCo draws with {done.stdout.strip()}"
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    return "missing", f"no films of robots; the rest works. {last.removeprefix('maml_envs.errors.InputError: ')}"


def _onnx(_: Path) -> tuple[Level, str]:
    found = [f"{name} {number}" for name in ONNX if (number := _version(name))]
    if len(found) < len(ONNX):
        return "missing", "policies are exported as .pt2 alone; for .onnx: pip install 'maml_rl[onnx]'"
    return "ok", f"policies are exported as .pt2 and .onnx ({', '.join(found)})"


def _loggers(_: Path) -> tuple[Level, str]:
    found = {name: _version(name) for name in LOGGERS}
    here = ", ".join(["tensorboard", "csv", *(f"{name} {number}" for name, number in found.items() if number)])
    lacking = [f"for {name}: pip install 'maml_rl[{name}]'" for name, number in found.items() if not number]
    return ("missing" if lacking else "ok"), "; ".join([f"logger may be {here}", *lacking])


def _metaworld(_: Path) -> tuple[Level, str]:
    here = _version("metaworld")
    return ("ok", f"Meta-World {here}") if here else ("missing", "not here; it runs by vector.worker_python")


def _disk(out: Path) -> tuple[Level, str]:
    folder = next(each for each in (out, *out.parents) if each.exists())
    with tempfile.NamedTemporaryFile(dir=folder):
        free = shutil.disk_usage(folder).free
    said = f"{folder} can be written, {free / 1e9:.0f} GB are free"
    return ("wrong", f"{said}: too little for a long run") if free < LEAST_FREE else ("ok", said)


LOOKS: dict[str, Callable[[Path], tuple[Level, str]]] = {
    "versions": _versions,
    "cores": _cores,
    "gpu": _gpu,
    "films": _films,
    "onnx": _onnx,
    "loggers": _loggers,
    "metaworld": _metaworld,
    "disk": _disk,
}
"""What is looked at, by its name, in the order of the page."""
