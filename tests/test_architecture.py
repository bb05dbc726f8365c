"""The house: a folder imports from the floors below its own, and nothing imports itself in a circle."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from house import PACKAGES, graph, imports, modules, rooms

ROOT = Path(__file__).parent.parent
FLOOR = {
    "machine": 1,
    "config": 1,
    "core": 2,
    "pictures": 2,
    "rl": 3,
    "supervised": 3,
    "runs": 3,
    "evaluate": 4,
    "checks": 4,
    "results": 5,
    "train": 5,
    "cli": 6,
    "__init__": 7,
    "__main__": 7,
}
LIBRARIES = {
    "tyro": {"cli/parse.py"},
    "pydantic": {"config", "cli/parse.py"},
    "matplotlib": {"pictures", "results", "runs/evaluation.py"},
    "PIL": {"pictures", "supervised", "runs/loggers"},
    "rich": {"cli", "machine/progress.py", "results/table.py"},
    "filelock": {"runs/folder.py"},
    "imageio": {"pictures/video.py"},
    "imageio_ffmpeg": {"pictures/video.py"},
    "jinja2": {"results/report.py"},
    "tensorboard": {"runs/loggers/tensorboard.py"},
    "wandb": {"runs/loggers/wandb.py"},
    "trackio": {"runs/loggers/trackio.py"},
    "scipy": set(),
}
"""Folders and files of maml_rl that use a library."""


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_a_room_imports_from_lower_floors(room: str) -> None:
    of = rooms("maml_rl")
    assert set(of) == set(FLOOR)
    assert not {other for other in of[room] if FLOOR[other] >= FLOOR[room]}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_module_imports_itself_through_others(package: str) -> None:
    list(TopologicalSorter(graph(package)).static_order())  # raises CycleError


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_does_not_go_through_its_own_address(package: str) -> None:
    used = {name for name, others in graph(package).items() if f"{package}.__init__" in others}
    assert used <= {f"{package}.__main__"}


def test_maml_envs_knows_nothing_of_maml_rl() -> None:
    for path in modules("maml_envs").values():
        assert not {name for name in imports(path) if name.split(".")[0] == "maml_rl"}, path


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_a_library_is_used_in_one_place(library: str) -> None:
    top = PACKAGES["maml_rl"]
    users = {path for path in modules("maml_rl").values() if library in {name.split(".")[0] for name in imports(path)}}
    homes = {top / home for home in LIBRARIES[library]}
    assert not {path for path in users if not homes & {path, *path.parents}}


@pytest.mark.parametrize("folder", ["core", "machine"])
def test_the_core_and_the_machine_know_nothing_of_reinforcement_learning(folder: str) -> None:
    for name, used in graph("maml_rl").items():
        if name.startswith(f"maml_rl.{folder}."):
            assert {other.split(".")[1] for other in used} <= {"core", "machine"}, name


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a process that trains and evaluates has imported."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests/helpers")!r})
import maml_rl
from tiny import tiny
for env in ("navigation", "half-cheetah-dir"):
    run = maml_rl.meta_train(tiny(env=env, iterations=1), env, quiet=True)
    maml_rl.evaluate(run)
print(*sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", code]
    folder = tmp_path_factory.mktemp("imports")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "library",
    [
        "matplotlib",
        "scipy",
        "pandas",
        "tensorflow",
        "PIL",
        "imageio",
        "imageio_ffmpeg",
        "jinja2",
    ],
)
def test_training_imports_no_picture_library(library: str, loaded: set[str]) -> None:
    assert "torch" in loaded
    assert library not in loaded


def test_training_on_a_cpu_does_without_the_extra_gpu(loaded: set[str]) -> None:
    assert not loaded & {"warp", "mujoco_warp", "maml_envs.physics.gpu"}


def test_training_imports_only_the_loggers_that_it_is_asked_for(loaded: set[str]) -> None:
    assert {name for name in loaded if name.startswith("maml_rl.runs.loggers.")} == {
        f"maml_rl.runs.loggers.{name}" for name in ("logger", "opened", "tensorboard")
    }


def test_a_file_is_one_idea() -> None:
    # a second idea has moved in where a file is longer
    for package in PACKAGES:
        for path in modules(package).values():
            assert len(path.read_text().splitlines()) <= 290, path


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_docstring_begins_with_the_verb_or_the_thing_returned(package: str) -> None:
    asks = re.compile(r"(What|Where|Whether|Of|How|Which|Whose|Who)\b")
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for path in modules(package).values():
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
        assert not [first for node in nodes if asks.match(first := ast.get_docstring(node) or "")], path
