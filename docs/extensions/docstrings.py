"""The package's docstrings on the site: their Markdown for Sphinx, and a directive for all modules of a folder."""

import re

from docutils import nodes
from house import ROOT
from numpy.typing import ArrayLike
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata, stringify_annotation

from maml_rl.core.statistics import Floats
from maml_rl.core.tree import Params

LITERAL = re.compile(r"(``.+?``|`[^`]+`)")
SPECIAL = re.compile(r"([*|\\]|_(?=\W|$))")
"""Characters that mean something in reStructuredText, and nothing in these docstrings."""

ALIASES = {
    stringify_annotation(of, "smart"): name
    for name, of in (("Params", Params), ("ArrayLike", ArrayLike), ("Floats", Floats))
}
"""Types that signatures call by their names, as the code does."""


def plain(line: str) -> str:
    """Return a line of a docstring with nothing in it that reStructuredText would take for markup but code."""
    pieces = LITERAL.split(line)
    return "".join(
        f"``{piece.strip('`')}``" if number % 2 else SPECIAL.sub(r"\\\1", piece) for number, piece in enumerate(pieces)
    )


def _table(rows: list[str]) -> list[str]:
    """Return a Markdown table as reStructuredText; a row without a first cell goes on with the row before it."""
    indent = rows[0][: len(rows[0]) - len(rows[0].lstrip())]
    cells = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows]
    merged = [cells[0]]
    for row in cells[2:]:
        if row[0]:
            merged.append(row)
        else:
            merged[-1] = [f"{above} {below}".strip() for above, below in zip(merged[-1], row, strict=True)]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in merged:
        lines += [f"   {'*' if column == 0 else ' '} - {plain(cell)}" for column, cell in enumerate(row)]
    return ["", *(indent + line for line in lines), ""]


def restructured(lines: list[str]) -> list[str]:
    """Return a docstring, Markdown tables and all, as reStructuredText."""
    found: list[str] = []
    table: list[str] = []
    for line in [*lines, ""]:
        if re.fullmatch(r"\s*\|.*\|\s*", line):
            table.append(line)
            continue
        found += _table(table) if table else []
        table = []
        found.append(plain(line))
    return found


class Docstrings:
    """Handlers of autodoc: before napoleon looks at a docstring, and after it."""

    def __init__(self) -> None:
        self._of_values: dict[str, list[str]] = {}

    def before(self, app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
        """Make it reStructuredText."""
        lines[:] = restructured(lines)
        if what in ("attribute", "data", "property"):
            self._of_values[name] = list(lines)

    def after(self, app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
        """Bring back that of a value, whose words up to a colon napoleon takes for a type."""
        lines[:] = self._of_values.pop(name, lines)


def call_by_name(
    app: Sphinx, what: str, name: str, item: object, options: object, given: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Return a signature with the names of types in place of what they stand for."""
    for written, alias in ALIASES.items():
        given, returned = (part and part.replace(written, alias) for part in (given, returned))
    return given, returned


class Modules(SphinxDirective):
    """``modules``: every module of a folder, each under a heading, with all that is public in it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return their documentation."""
        folder = ROOT / self.arguments[0]
        top = next(parent for parent in folder.parents if not (parent / "__init__.py").exists())
        text = []
        for path in sorted(folder.glob("*.py")):
            if path.stem != "__init__":
                self.env.note_dependency(str(path))
                module = ".".join(path.relative_to(top).with_suffix("").parts)
                text += [f"## {path.stem}", f"```{{eval-rst}}\n.. automodule:: {module}\n```"]
        return self.parse_text_to_nodes("\n\n".join(text), allow_section_headings=True)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register it with Sphinx."""
    app.add_directive("modules", Modules)
    app.connect("autodoc-process-signature", call_by_name)
    docstrings = Docstrings()
    app.connect("autodoc-process-docstring", docstrings.before, priority=400)  # napoleon's is 500
    app.connect("autodoc-process-docstring", docstrings.after, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
