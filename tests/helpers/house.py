"""Rooms, floors and arrows of a package: ``python tests/helpers/house.py`` prints them.

A room is a file or a folder beside others, an arrow an import from one of them to another, and a room's floor is one
above the highest of those that it imports.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {"maml_rl": ROOT / "maml_rl", "maml_envs": ROOT / "envs/maml_envs"}


def modules(package: str) -> dict[str, Path]:
    """Files of a package by dotted name, such as "maml_rl.core.adapt" or "maml_rl.core.__init__"."""
    top = PACKAGES[package]
    return {
        ".".join((package, *path.relative_to(top).with_suffix("").parts)): path for path in sorted(top.rglob("*.py"))
    }


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


def graph(package: str) -> dict[str, set[str]]:
    """For each module, the modules of the package that it imports."""
    names = modules(package)
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        found[name] = set()
        for dotted in imports(path):
            parent = dotted.rpartition(".")[0]
            candidates = (dotted, f"{dotted}.__init__", parent, f"{parent}.__init__")
            found[name] |= {next((other for other in candidates if other in names), name)} - {name}
    return found


def rooms(package: str, folder: str = "") -> dict[str, set[str]]:
    """For each room of a package, or of a folder of it, the other rooms that it imports."""
    prefix = f"{package}.{folder}." if folder else f"{package}."

    def room(name: str) -> str:
        return name.removeprefix(prefix).split(".")[0]

    found: dict[str, set[str]] = {}
    for name, used in graph(package).items():
        if name.startswith(prefix):
            others = {room(other) for other in used if other.startswith(prefix)}
            found.setdefault(room(name), set()).update(others - {room(name)})
    return found


def floors(of: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room, from 1.

    Raises:
        graphlib.CycleError: Rooms import each other in a circle.
    """
    found: dict[str, int] = {}
    for name in TopologicalSorter(of).static_order():
        found[name] = 1 + max((found[other] for other in of[name]), default=0)
    return found


def main() -> None:
    """Print the three counts of each package and of each of its folders."""
    for package, top in PACKAGES.items():
        folders = sorted(path.name for path in top.iterdir() if (path / "__init__.py").exists())
        for folder in ("", *folders):
            of = rooms(package, folder)
            name = f"{package}/{folder}".rstrip("/")
            arrows = sum(map(len, of.values()))
            print(f"{name:<24} rooms {len(of):>3}   floors {max(floors(of).values()):>3}   arrows {arrows:>4}")
    files = [path for package in PACKAGES for path in modules(package).values()]
    print(f"lines {sum(len(path.read_text().splitlines()) for path in files)}")


if __name__ == "__main__":
    main()
