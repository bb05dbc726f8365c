"""metrics.csv is metrics.jsonl as one table, also of columns that come later and of runs that are killed."""

import csv
import json
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import few_shot
import pytest
from logged import KILLED, python
from tiny import tiny

from maml_rl import meta_train
from maml_rl.config.toml import AnyConfig
from maml_rl.runs.folder import RunFolder, read_metrics


def table(run: Path) -> list[dict[str, float]]:
    """Rows without their empty cells; every line has as many cells as the first."""
    with (run / "metrics.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert all(len(line) == len(header) for line in lines)
    return [
        {name: float(cell) for name, cell in zip(header, line, strict=True) if cell not in ("", "nan")}
        for line in lines
    ]


def metrics(run: Path) -> list[dict[str, float]]:
    return [{name: x for name, x in row.items() if not math.isnan(x)} for row in read_metrics(run)]


@pytest.mark.parametrize(
    "config",
    [tiny(iterations=5, compare_gradients=2, logger=["csv"]), few_shot.tiny(logger=["csv"])],
    ids=["reinforcement", "few-shot"],
)
def test_the_table_is_that_of_the_metrics(config: AnyConfig, tmp_path: Path) -> None:
    run = meta_train(config, tmp_path / "run", quiet=True)
    assert table(run) == metrics(run)
    assert (run / "metrics.csv").read_text().startswith("iteration,")
    assert not list(run.glob("*.tmp"))


def test_a_run_that_is_resumed_has_the_table_of_one_that_was_not(tmp_path: Path) -> None:
    whole = meta_train(tiny(iterations=4, compare_gradients=2, logger=["csv"]), tmp_path / "whole", quiet=True)
    run = tmp_path / "run"
    for iterations, logger in ((1, ["csv"]), (3, []), (4, ["csv"])):  # one that was left out catches up
        meta_train(tiny(iterations=iterations, compare_gradients=2, logger=logger), run, resume=True, quiet=True)
    first, second = (
        [{name: x for name, x in row.items() if not name.startswith("seconds/")} for row in table(each)]
        for each in (run, whole)
    )
    assert first == second
    assert [row["iteration"] for row in first] == [0, 1, 2, 3]


def test_a_row_that_a_killed_run_did_not_save_is_replaced(tmp_path: Path) -> None:
    assert python(KILLED, tmp_path / "run", "csv", 0)[0] == -9
    assert [row["return/0"] for row in table(tmp_path / "run")] == [0.0, 1.5, 3.0, 9.0]
    with closing(RunFolder(tmp_path / "run", tiny(logger=["csv"]), True, {}).begin()) as folder:
        assert [row["return/0"] for row in table(tmp_path / "run")] == [0.0, 1.5, 3.0]
        folder.log({"iteration": 3, "return/0": -1.0}, {})
    text = (tmp_path / "run/metrics.csv").read_text()
    assert text == "iteration,return/0,linesearch/accepted\n0,0.0,1\n1,1.5,1\n2,3.0,1\n3,-1.0,\n"


ROWS: list[dict[str, Any]] = [
    {"iteration": 0, "return/0": 0.1},
    {"iteration": 1, "return/0": math.nan, "evaluation/0": -2.5},
    {"iteration": 2, 'a, "b"': 1e-30, "evaluation/0": math.inf},
]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    with closing(RunFolder(tmp_path / "run", tiny(logger=["csv"]), False, {}).begin()) as folder:
        assert (tmp_path / "run/metrics.csv").read_text() == "iteration\n"
        for row in ROWS:
            folder.log(row, {})
    return tmp_path / "run/metrics.csv"


def test_a_column_that_appears_later_is_empty_before(written: Path) -> None:
    header = 'iteration,return/0,evaluation/0,"a, ""b"""\n'
    assert written.read_text() == f"{header}0,0.1,,\n1,nan,-2.5,\n2,,inf,1e-30\n"


def test_pandas_reads_it(written: Path) -> None:
    pandas = pytest.importorskip("pandas")
    found = pandas.read_csv(written)
    assert list(found.columns) == ["iteration", "return/0", "evaluation/0", 'a, "b"']
    assert found["iteration"].tolist() == [0, 1, 2]
    missing = [[name for name in found if pandas.isna(found[name][i])] for i in range(3)]
    assert missing == [["evaluation/0", 'a, "b"'], ["return/0", 'a, "b"'], ["return/0"]]
    assert (found["return/0"][0], found["evaluation/0"][1], found["evaluation/0"][2]) == (0.1, -2.5, math.inf)
    assert {str(found[name].dtype) for name in found if name != "iteration"} == {"float64"}
    assert json.loads((written.parent / "metrics.jsonl").read_text().splitlines()[2])["evaluation/0"] is None
