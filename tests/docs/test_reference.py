"""The pages of docs/reference that the code writes say what the code says."""

import re
from collections.abc import Iterator
from pathlib import Path

import generate
import pytest
from pydantic import BaseModel
from tiny import Command

from maml_rl.cli.main import commands
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.rl import Config

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("help")


@pytest.mark.parametrize("name", generate.FILES)
def test_a_page_is_what_the_code_makes_of_it(name: str) -> None:
    assert (DOCS / name).read_text() == generate.FILES[name](), "run: make docs"


def leaves(kind: type[BaseModel], table: str = "") -> Iterator[str]:
    for key, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{table}{key}.")
        else:
            yield f"{table}{key}"


@pytest.mark.parametrize(("kind", "half"), [(Config, 1), (FewShotConfig, 2)])
def test_every_key_of_a_configuration_is_there_once(kind: type[BaseModel], half: int) -> None:
    text = (DOCS / "reference/configuration.md").read_text().split("\n## ")[half]
    assert re.findall(r"^- \*\*`([^`]+)`\*\*", text, re.MULTILINE) == [
        *(key for key in leaves(kind) if "." not in key),
        *(key for key in leaves(kind) if "." in key),
    ]


def section_of(name: str) -> str:
    return re.split(r"^## ", (DOCS / "reference/commands.md").read_text().split(f"\n## {name}\n")[1], flags=re.M)[0]


@pytest.mark.parametrize("name", commands())
def test_a_command_has_the_flags_of_its_help(name: str, command: Command) -> None:
    code, shown, _ = command(name, "--help")
    assert code == 0
    whole, shared = section_of(name), section_of(name).split("\n*")[0]  # without what a kind of run has besides
    keys = {f"--{key.replace('_', '-')}" for key in leaves(Config)} if "key of the configuration" in whole else set()
    said = set(re.findall(r"^[│ ] (--\w[\w.-]*)", shown, re.MULTILINE)) - keys
    named, always = (set(re.findall(r"\*\*`(--[\w-]+)`\*\*", text)) for text in (whole, shared))
    assert always <= said <= named


def test_a_flag_means_what_its_help_says(command: Command) -> None:
    _, shown, _ = command("render", "--help")
    plain = " ".join(re.sub(r"[│╭╰─╮╯]", " ", shown).split())
    said = "Held-out tasks, a row for each; None: two, or as many as vector.vector_size has room for."
    assert said in plain
    assert said in " ".join(section_of("render").split())


def test_a_published_result_is_there_with_its_source() -> None:
    text = (DOCS / "reference/published.md").read_text()
    part = text.split("## `half-cheetah-dir`, preset finn2017, 200 steps")[1].split("\n## ")[0]
    assert "Source: Finn et al. 2017." in part
    assert "| MAML | -50.69 | 293.19 | 313.48 | 315.65 |" in part
    assert "| oracle | 442.69 |  |  |  |" in part


def test_the_picture_has_every_arrow_that_no_other_implies() -> None:
    from architecture import essential, house

    assert essential({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
    arrows = sum(map(len, essential(house()).values()))
    assert (DOCS / "images/architecture.svg").read_text().count("<line ") == arrows > 15
