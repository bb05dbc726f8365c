"""The layers of the package: a module imports from lower layers or its own, never in a circle."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    {"config", "distributions", "few_shot_config", "types"},
    {
        "adapt",
        "ascent",
        "checkpoint",
        "config_file",
        "distributed",
        "events",
        "files",
        "finite",
        "groups",
        "parallel",
        "payload",
        "perceptron",
        "progress",
        "provenance",
        "published",
        "rates",
        "returns",
        "run_folder",
        "runs",
        "statistics",
        "torchrun",
        "trust_region",
        "video",
    },
    {"baselines", "episodes", "fisher", "losses", "policies", "rollout"},
    {"exact", "learner", "meta", "outer"},
    {"training"},
    {
        "agent",
        "check_estimators",
        "check_gradients",
        "comparison",
        "diagnostics",
        "evaluate",
        "figures",
        "figures.adaptation",
        "figures.curves",
        "figures.learning",
        "figures.maps",
        "figures.optimisation",
        "figures.paths",
        "figures.style",
        "figures.tasks",
        "panels",
        "plot",
        "render",
        "report",
        "table",
        "verdict",
        "train",
    },
    {
        "supervised",
        "supervised.data",
        "supervised.evaluate",
        "supervised.figures",
        "supervised.images",
        "supervised.learner",
        "supervised.models",
        "supervised.omniglot",
        "supervised.plot",
        "supervised.sinusoid",
        "supervised.table",
        "supervised.tasks",
        "supervised.train",
    },
    {"cli", "cli_checks", "cli_results", "flags", "supervised.cli", "__init__"},
    {"__main__"},
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


FOLDERS = {"maml_rl": ROOT / "maml_rl", "maml_envs": ROOT / "envs/maml_envs"}


def modules(package: str) -> dict[str, Path]:
    """Files of a package by dotted name, the package's own ``__init__`` as that."""
    found = {}
    for path in sorted(FOLDERS[package].rglob("*.py")):
        parts = path.relative_to(FOLDERS[package]).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, wherever in it; ``from a import b`` gives a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def inside(package: str) -> dict[str, set[str]]:
    """For each module of a package, the modules of the package that it imports."""
    names = modules(package)
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        graph[name] = set()
        for dotted in imports(path):
            top, _, rest = dotted.partition(".")
            if top == package:
                candidates = (rest, rest.rpartition(".")[0], "__init__")
                graph[name].add(next(each for each in candidates if each in names))
    return graph


def test_every_module_has_a_layer_and_every_layer_its_modules() -> None:
    assert set(modules("maml_rl")) == set(LAYER)


@pytest.mark.parametrize("name", sorted(LAYER))
def test_a_module_imports_from_lower_layers_or_its_own(name: str) -> None:
    above = {other for other in inside("maml_rl")[name] if LAYER[other] > LAYER[name]}
    assert not above


OUTSIDE = {"__init__", "__main__", "gymnasium_env"}
"""Modules of maml_envs that use the package as others do."""


@pytest.mark.parametrize("package", ["maml_rl", "maml_envs"])
def test_no_module_imports_itself_through_others(package: str) -> None:
    graph = inside(package)
    if package == "maml_envs":  # its modules name their errors from maml_envs.errors, and not from maml_envs
        assert all("__init__" not in used for name, used in graph.items() if name not in OUTSIDE)
        graph["gymnasium_env"].discard("__init__")
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_maml_envs_knows_nothing_of_maml_rl() -> None:
    for path in modules("maml_envs").values():
        assert not {name for name in imports(path) if name.split(".")[0] == "maml_rl"}, path


@pytest.mark.parametrize(
    ("library", "where"),
    [
        (
            "matplotlib",
            {
                *(name for name in LAYER if name.split(".")[-2:][0] == "figures"),
                "evaluate",
                "plot",
                "supervised.figures",
                "supervised.plot",
            },
        ),
        ("tyro", {"flags"}),
        ("rich", {"cli", "cli_checks", "cli_results", "progress", "supervised.cli", "table"}),
        ("pydantic", {"config", "config_file", "few_shot_config", "flags"}),
        ("filelock", {"run_folder"}),
        ("scipy", set()),
        ("imageio", {"video"}),
        ("imageio_ffmpeg", {"video"}),
        ("jinja2", {"report"}),
        ("PIL", {"events", "panels", "supervised.images", "supervised.omniglot", "video"}),
    ],
)
def test_a_library_is_used_in_one_place(library: str, where: set[str]) -> None:
    users = {name for name, path in modules("maml_rl").items() if library in {n.split(".")[0] for n in imports(path)}}
    assert users <= where


@pytest.mark.parametrize("name", ["adapt", "trust_region"])
def test_the_inner_loop_and_the_trust_region_know_nothing_of_reinforcement_learning(name: str) -> None:
    assert inside("maml_rl")[name] <= {"types"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a process that trains and evaluates has imported."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
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


def test_a_file_is_one_idea() -> None:
    # a second idea has moved in where a file is longer
    for package in FOLDERS:
        for path in modules(package).values():
            assert len(path.read_text().splitlines()) <= 280, path
