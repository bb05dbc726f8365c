"""The site is built without a warning, every link on it leads somewhere, and it needs no network."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import filelock
import pytest

ROOT = Path(__file__).parents[2]
EXTENSIONS = ROOT / "docs/extensions"


class Page(HTMLParser):
    """Addresses that a page refers to, and anchors in it that can be referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        address = found.get("src") or found.get("href")
        if address:
            (self.links if tag == "a" else self.fetched).add(address)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` does, once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    with filelock.FileLock(f"{folder}.lock"):
        if not (folder / "html/index.html").exists():
            build(folder)
    return folder / "html"


def build(folder: Path) -> None:
    flags = ["--fail-on-warning", "--keep-going", "--nitpicky", "--fresh-env", "--quiet", "-c", "docs"]
    command = [sys.executable, "-m", "sphinx", *flags, "-d", str(folder / "cache"), ".", str(folder / "html")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr


@cache
def page(path: Path) -> Page:
    return Page(path.read_text())


def test_every_link_leads_to_a_page_and_an_anchor_there(site: Path) -> None:
    lost = []
    for path in site.rglob("*.html"):
        for link in page(path).links:
            if re.match(r"[a-z]+:", link):
                continue
            address, _, anchor = unquote(link).partition("#")
            target = (path.parent / address).resolve() if address else path
            there = target.is_file() and (not anchor or target.suffix != ".html" or anchor in page(target).anchors)
            if not there:
                lost.append(f"{path.relative_to(site)}: {link}")
    assert not lost


def test_a_page_needs_no_network(site: Path) -> None:
    fetched = {address for path in site.rglob("*.html") for address in page(path).fetched}
    assert fetched
    assert not {address for address in fetched if re.match(r"(https?:)?//", address)}
    assert not [path for path in site.rglob("*.css") if re.search(r"url\([\"']?(https?:)?//", path.read_text())]


def test_the_search_knows_keys_and_files(site: Path) -> None:
    index = (site / "searchindex.js").read_text()
    found = json.loads(index[len("Search.setIndex(") : -1])
    pages = {found["docnames"][i] for i in _pages_of(found["terms"], "max_kl")}
    assert "docs/reference/configuration" in pages
    assert {"README", "CONTRIBUTING", "experiments/README"} <= set(found["docnames"])


def _pages_of(terms: dict[str, int | list[int]], word: str) -> list[int]:
    pages = terms[word]
    return pages if isinstance(pages, list) else [pages]


def test_a_link_to_a_file_of_the_repository_shows_its_text(site: Path) -> None:
    algorithm = page(site / "docs/explanation/algorithm.html")
    assert "../../_files/maml_rl/core/adapt.py.html" in algorithm.links
    text = re.sub(r"<[^>]+>", "", (site / "_files/maml_rl/core/adapt.py.html").read_text())
    assert "class InnerLoop(Generic[Data]):" in text


def test_what_is_described_links_to_its_line(site: Path) -> None:
    api = (site / "docs/reference/api/core.html").read_text()
    lines = (ROOT / "maml_rl/core/adapt.py").read_text().splitlines()
    number = lines.index("def descend(params: Params, gradients: Params, lr: Rate) -> Params:") + 1
    assert f"_files/maml_rl/core/adapt.py.html#L-{number}" in api


def test_the_first_address_is_that_of_the_start(site: Path) -> None:
    assert "docs/index.html" in page(site / "index.html").links
    assert page(site / "docs/index.html").links


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXTENSIONS))


@pytest.mark.usefixtures("extensions")
def test_a_docstring_is_shown_as_it_was_written() -> None:
    from docstrings import restructured

    lines = ["|b - A x| / |b|, (*batch, n), `name_` of ``a*b``", "", "| a | b |", "|---|---|", "| 1 | x |", "|  | y |"]
    first, *rest = restructured(lines)
    assert first == r"\|b - A x\| / \|b\|, (\*batch, n), ``name_`` of ``a*b``"
    assert [line.strip() for line in rest if line.strip()] == [
        ".. list-table::",
        ":header-rows: 1",
        "* - a",
        "- b",
        "* - 1",
        "- x y",
    ]


@pytest.mark.usefixtures("extensions")
def test_a_notebook_is_shown_with_what_it_left() -> None:
    from notebooks import markdown

    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "Text."]},
        {
            "cell_type": "code",
            "source": ["print(1)\n", "figure"],
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"output_type": "display_data", "data": {"image/png": "aGk=\n", "text/plain": ["<Figure>"]}},
            ],
        },
    ]
    assert markdown({"cells": cells}) == (
        "# Title\n\nText.\n\n```python\nprint(1)\nfigure\n```\n\n```text\n1\n```\n\n"
        "![Output](data:image/png;base64,aGk=)\n"
    )
