"""Report pages: a link to a folder of experiments/results leads to the page that `maml-rl report` makes of its runs."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.typing import ExtensionMetadata

from maml_rl.results.report import report

FOLDER = "_reports"
"""Folder of these pages on the site."""

RESULTS = Path(__file__).parents[2] / "experiments/results"


class LinksToRuns(SphinxTransform):
    """Turns links to folders of runs into links to their reports."""

    default_priority = 399  # before LinksToFiles, to which a folder has no page

    def apply(self, **kwargs: Any) -> None:  # noqa: ANN401  as docutils has it
        """Look at every link of a document."""
        here = (Path(self.env.srcdir) / self.env.docname).parent
        for link in list(self.document.findall(pending_xref)):
            target = (here / link["reftarget"].split("#")[0]).resolve()
            if link["reftarget"] and target.is_dir() and target.parent == RESULTS:
                _linked(self.app).add(target.name)
                address = f"{'../' * self.env.docname.count('/')}{FOLDER}/{target.name}.html"
                link.replace_self(nodes.reference("", "", *link.children, refuri=address))


def _linked(app: Sphinx) -> set[str]:
    """Return the folders that documents link to."""
    linked: set[str] = app.env.__dict__.setdefault("linked_runs", set())
    return linked


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the report of every folder that a document links to."""
    if error:
        return
    for name in sorted(_linked(app)):
        page = Path(app.outdir) / FOLDER / f"{name}.html"
        page.parent.mkdir(exist_ok=True)
        page.unlink(missing_ok=True)
        report(sorted(path for path in (RESULTS / name).iterdir() if path.is_dir()), page, films=False)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register it with Sphinx."""
    app.add_transform(LinksToRuns)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
