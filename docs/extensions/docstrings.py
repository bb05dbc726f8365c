"""The package's docstrings on the site: their Markdown for Sphinx, and a directive for all modules of a folder."""

import re
from typing import Any

from docutils import nodes
from house import ROOT
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

LITERAL = re.compile(r"(``.+?``|`[^`]+`)")
SPECIAL = re.compile(r"([*|\\]|_(?=\W|$))")
"""Characters that mean something in reStructuredText, and nothing in these docstrings."""


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
        if line.lstrip().startswith("|"):
            table.append(line)
            continue
        found += _table(table) if table else []
        table = []
        found.append(plain(line))
    return found


def _process(app: Sphinx, what: str, name: str, item: object, options: Any, lines: list[str]) -> None:  # noqa: ANN401
    lines[:] = restructured(lines)


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
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon, at 500
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
