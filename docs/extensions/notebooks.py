"""Notebooks as pages: their cells as Markdown, with the text and the pictures that the last run left in them."""

import json
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

SUFFIX = ".ipynb"


def _output(output: dict[str, Any]) -> str:
    """Return what a cell showed: a picture, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![Output](data:image/png;base64,{''.join(data['image/png']).strip()})"
    text = "".join(output.get("text", data.get("text/plain", [])))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


def markdown(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown."""

    def parts() -> Iterator[str]:
        for cell in notebook["cells"]:
            source = "".join(cell["source"])
            yield f"```python\n{source}\n```" if cell["cell_type"] == "code" else source
            yield from (_output(output) for output in cell.get("outputs", []))

    return "\n\n".join(part for part in parts() if part) + "\n"


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    if app.env.doc2path(docname).suffix == SUFFIX:
        content[0] = markdown(json.loads(content[0]))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register it with Sphinx."""
    app.add_source_suffix(SUFFIX, "markdown")
    app.connect("source-read", _read)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
