"""Pages of the repository's own files: links from documents, and from what autodoc describes, lead to their text."""

import importlib
import inspect
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.addnodes import desc_signature, download_reference, pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.typing import ExtensionMetadata

FOLDER = "_files"
"""Folder of these pages on the site."""

NOT_TEXT = {".gif", ".ipynb", ".png", ".pt", ".svg", ".zip"}
"""Endings of files that are fetched as they are."""


class LinksToFiles(SphinxTransform):
    """Turns links to files of the repository into links to their pages, and those to folders into their names."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:  # noqa: ANN401  as docutils has it
        """Look at every link of a document."""
        here = (Path(self.env.srcdir) / self.env.docname).parent
        for link in list(self.document.findall(lambda node: isinstance(node, download_reference | pending_xref))):
            target = (here / link["reftarget"].split("#")[0]).resolve()
            if isinstance(link, download_reference) and target.is_file() and target.suffix not in NOT_TEXT:
                link.replace_self(nodes.reference("", "", *link.children, refuri=_address(self.app, target)))
            elif isinstance(link, pending_xref) and link["reftarget"] and target.is_dir():
                link.replace_self(link.children)


def _linked(app: Sphinx) -> set[str]:
    """Return the files that documents link to, by their paths in the repository."""
    linked: set[str] = app.env.__dict__.setdefault("linked_files", set())
    return linked


def _address(app: Sphinx, file: Path) -> str:
    """Return where the page of a file is, from the document that is read, and see to it that there is one."""
    path = file.relative_to(Path(app.srcdir).resolve())
    _linked(app).add(str(path))
    return f"{'../' * app.env.docname.count('/')}{FOLDER}/{path}.html"


def link_sources(app: Sphinx, document: nodes.document) -> None:
    """Give what autodoc describes a link to the line where it is written."""
    for signature in document.findall(desc_signature):
        if not signature.get("module"):
            continue
        try:
            module = importlib.import_module(signature["module"])
            item: Any = reduce(getattr, signature["fullname"].split("."), module)
            item = inspect.unwrap(getattr(item, "fget", item))
            file, line = Path(inspect.getfile(item)).resolve(), inspect.getsourcelines(item)[1]
        except (AttributeError, TypeError, OSError):  # a value, which no line is known of
            continue
        if file.is_relative_to(Path(app.srcdir).resolve()):
            address = f"{_address(app, file)}#L-{line}"
            signature += nodes.reference(
                "", "", nodes.inline("", "[source]", classes=["viewcode-link"]), refuri=address
            )


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each file that a document links to: its name, its content and its template."""
    for path in sorted(_linked(app)):
        text = (Path(app.srcdir) / path).read_text()
        try:
            language = get_lexer_for_filename(path).aliases[0]
        except ClassNotFound:
            language = "text"
        highlighter = app.builder.highlighter  # type: ignore[attr-defined]
        body = highlighter.highlight_block(text, language, force=True, lineanchors="L")
        heading = f"<h1>{path.replace('/', '/<wbr>')}</h1>"
        yield f"{FOLDER}/{path}", {"title": path, "body": f"{heading}\n{body}", "parents": []}, "page.html"
    yield "index", {}, "to_start.html"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register it with Sphinx."""
    app.add_transform(LinksToFiles)
    app.connect("doctree-read", link_sources)
    app.connect("html-collect-pages", pages)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
