"""Every document of the repository: its lines fit, and it begins with what it is about."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "experiments/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_no_line_is_over_120_characters(path: Path) -> None:
    wide = [n for n, line in enumerate((ROOT / path).read_text().splitlines(), 1) if len(line) > 120]
    assert not wide, f"{path}, lines {wide}"


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.parts[0] == "docs"], ids=str)
def test_a_page_begins_with_its_title_and_a_sentence(path: Path) -> None:
    title, first, *_ = re.split(r"\n\n+", (ROOT / path).read_text())
    assert re.fullmatch(r"# \S.*", title)
    assert re.match(r"[A-Z`\[][^.:]*[.:,]", first), first
