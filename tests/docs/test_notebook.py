"""docs/notebooks/navigation.ipynb runs from its first cell to its last: `make full` has what executes it."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "docs/notebooks/navigation.ipynb"
CELLS = json.loads(FILE.read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
HERE = os.environ.get("NOTEBOOK")  # the iterations that it trains, or its own with 0


def test_it_is_committed_as_written_and_not_as_run() -> None:
    for cell in CELLS:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    for text in CODE:
        compile(text, str(FILE), "exec")
    assert any("ITERATIONS = 30\n" in text for text in CODE)


def test_its_links_lead_somewhere() -> None:
    text = "\n".join("".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    for link in links:
        assert (FILE.parent / link).exists(), link


@pytest.mark.skipif(HERE is None, reason="NOTEBOOK is not set")
def test_it_runs(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    assert importlib.util.find_spec("ipykernel")
    notebook = nbformat.read(FILE, as_version=4)
    for cell in notebook.cells:
        if HERE != "0":
            cell.source = cell.source.replace("ITERATIONS = 30\n", f"ITERATIONS = {HERE}\n")
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [kind for output in shown for kind in output.get("data", {}) if kind.startswith("image/")]
    assert pictures == ["image/png", "image/png", "image/gif"]
    assert "3 steps: return" in "".join(output.get("text", "") for output in shown)
    assert (tmp_path / "runs/notebook/videos/adaptation.mp4").stat().st_size > 1000
