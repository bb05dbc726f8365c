"""Pages of the repository's own files: a link from a document to one leads to its text, also on the site."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.addnodes import download_reference, pending_xref
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
        root, docname = Path(self.env.srcdir).resolve(), self.env.docname
        here = (root / docname).parent
        up = "../" * docname.count("/")
        for link in list(self.document.findall(lambda node: isinstance(node, download_reference | pending_xref))):
            target = here / link["reftarget"].split("#")[0]
            if isinstance(link, download_reference) and target.is_file() and target.suffix not in NOT_TEXT:
                path = str(target.resolve().relative_to(root))
                _linked(self.app).add(path)
                link.replace_self(
                    nodes.reference("", "", *link.children, refuri=f"{up}{FOLDER}/{path}.html", internal=True)
                )
            elif isinstance(link, pending_xref) and link["reftarget"] and target.is_dir():
                link.replace_self(link.children)


def _linked(app: Sphinx) -> set[str]:
    """Return the files that documents link to, by their paths in the repository."""
    linked: set[str] = app.env.__dict__.setdefault("linked_files", set())
    return linked


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each file that a document links to: its name, its content and its template."""
    for path in sorted(_linked(app)):
        text = (Path(app.srcdir) / path).read_text()
        try:
            language = get_lexer_for_filename(path).aliases[0]
        except ClassNotFound:
            language = "text"
        body = app.builder.highlighter.highlight_block(text, language, force=True)  # type: ignore[attr-defined]
        yield f"{FOLDER}/{path}", {"title": path, "body": f"<h1>{path}</h1>\n{body}", "parents": []}, "page.html"
    yield "index", {}, "to_start.html"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register it with Sphinx."""
    app.add_transform(LinksToFiles)
    app.connect("html-collect-pages", pages)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
