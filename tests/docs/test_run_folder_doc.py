"""docs/reference/run_folder.md lists what runs write: no more and no less."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import few_shot
import pytest
from tiny import tiny

from maml_rl.evaluate import evaluate
from maml_rl.runs.evaluation import Evaluation
from maml_rl.runs.folder import read_made_with, read_metrics
from maml_rl.runs.measures import MEASURES
from maml_rl.train import meta_train

DOC = (Path(__file__).parents[2] / "docs/reference/run_folder.md").read_text()
EVALUATED = {"every": 2}
RUNS: dict[str, Any] = {
    "trpo": {"compare_gradients": 1, "evaluation": {"every": 1}, "env": "brought:IsSuccess"},
    "promp": {"outer": {"name": "promp"}},
    "adam": {"outer": {"name": "adam"}},
    "oracle": {"method": "oracle"},
}
FEW_SHOT: dict[str, Any] = {
    "sinusoid": {},
    "reptile": {"outer": {"name": "reptile", "lr": 0.1}},
    "blobs": few_shot.BLOBS_RUN | {"model": {"hidden": [8], "batch_norm": True}},
    "permuted": few_shot.BLOBS_RUN | {"evaluation": EVALUATED | {"permutations": 2}},
}


def section(title: str) -> set[str]:
    """Names that the bullets of a section begin with."""
    text = re.split(r"^## ", DOC.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]
    heads = [re.split(r"[(:]", line, maxsplit=1)[0] for line in text.splitlines() if line.startswith("- **")]
    return {name for head in heads for name in re.findall(r"`([^`]+)`", head)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("columns")
    made = {name: meta_train(tiny(**keys), folder / name, quiet=True) for name, keys in RUNS.items()}
    for name, keys in FEW_SHOT.items():
        config = few_shot.tiny(**{"evaluation": EVALUATED} | keys)
        made[name] = meta_train(config, folder / name, quiet=True)
    return made


def test_the_columns_are_those_of_runs_of_every_kind(runs: dict[str, Path]) -> None:
    found = {re.sub(r"/\d+$", "/k", key) for run in runs.values() for row in read_metrics(run) for key in row}
    assert found == section("metrics.jsonl")


def test_the_fields_of_an_evaluation(runs: dict[str, Path]) -> None:
    written = set(json.loads(evaluate(runs["trpo"]).to_json()))
    assert written == section("evaluation.json")
    assert all(f"`{measure}`" in DOC.split("## evaluation.json")[1] for measure in MEASURES)
    assert written == {"version"} | {field.name for field in fields(Evaluation)} - {"file"}


def test_a_run_says_how_it_was_made(runs: dict[str, Path]) -> None:
    about = DOC.split("\n## config.toml\n")[1]
    assert set(read_made_with(runs["adam"])) <= set(re.findall(r"`(\w+)`", about))


def test_the_files_of_a_run_are_in_the_table(runs: dict[str, Path]) -> None:
    evaluate(runs["adam"])
    named = {name.split("...")[0].rstrip("/") for name in re.findall(r"^\| `([^`]+)`", DOC, re.MULTILINE)}
    for file in runs["adam"].iterdir():
        assert any(file.name.startswith(name) for name in named), file
