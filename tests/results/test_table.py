"""Tables of a comparison, from numbers that are known."""

import math

import numpy as np
import pytest

from maml_rl.core.statistics import Interval
from maml_rl.pictures.style import after
from maml_rl.results.comparison import Comparison, GroupResult, Point
from maml_rl.results.published import Published
from maml_rl.results.table import Table, clock, count, long_table, wide_table
from maml_rl.runs.measures import number, shown, with_interval


def point(steps: int, value: float, score: Interval | None = None, gap: Interval | None = None) -> Point:
    mean = Interval(value, value - 1, value + 1)
    return Point(steps, Interval(value + 1, 0, 0), mean, value / 2, value / 4, (value,), score, gap)


def row(label: str, method: str, *points: Point, seeds: int = 2) -> GroupResult:
    values = np.zeros((seeds, 1, len(points)))
    cost = (7e4, 1.5e6, 90.0)
    return GroupResult(label, method, ("run",), tuple(range(seeds)), *cost, 0.004, ("machine",), points, values)


def comparison(*rows: GroupResult, published: Published | None = None, measure: str = "return") -> Comparison:
    return Comparison("navigation", measure, "in", 1, np.zeros((1, 1)), rows, published)


def test_numbers_as_a_reader_wants_them() -> None:
    assert [number(value) for value in (0, -9.994, 10.04, -99.97, 999.94, 1234.5)] == (
        ["0.00", "-9.99", "10.0", "-100.0", "999.9", "1234"]
    )
    assert with_interval(Interval(-1, -2, 3)) == "-1.00 (-2.00 to 3.00)"
    assert with_interval(Interval(0.5, -math.inf, math.inf)) == "0.50 (unknown)"
    assert with_interval(Interval(math.nan, 0, 1)) == with_interval(None) == ""
    assert [count(steps) for steps in (0, 999, 1000, 7_240_000, 2.5e9)] == ["0", "999", "1 k", "7.24 M", "2.5 G"]
    assert [clock(seconds) for seconds in (3, 90, 5399, 5400, 90_061)] == (
        ["0.1 min", "1.5 min", "90.0 min", "1:30:00", "1 day, 1:01:01"]
    )
    assert [after(k, "before") for k in range(3)] == ["before", "after 1 step", "after 2 steps"]
    assert after(0) == "before adaptation"
    assert with_interval(Interval(0.25, 0.2, 0.3), "accuracy") == "25.00 % (20.00 % to 30.00 %)"
    assert with_interval(Interval(math.inf, 0.2, math.inf), "error") == shown(math.inf, "error") == "infinite"


def test_a_bar_in_a_cell_stays_in_it() -> None:
    assert Table(("", "a|b"), (("x", "1"),)).markdown() == "|  | a\\|b |\n| --- | --- |\n| x | 1 |"


def test_what_is_known_alone_is_shown() -> None:
    plain = wide_table(comparison(row("MAML", "maml", point(0, 1.0), point(1, 2.0))))
    assert plain.header == ("", "seeds", "before", "after 1 step", "environment steps", "wall clock")
    assert plain.rows == (("MAML", "2", "1.00 (0.00 to 2.00)", "2.00 (1.00 to 3.00)", "1.5 M", "1.5 min"),)


def test_rows_of_methods_and_of_what_was_published() -> None:
    half, whole = Interval(0.5, 0.4, 0.6), Interval(1.0, 1.0, 1.0)
    rows = (
        row("MAML", "maml", point(0, -4.0), point(1, -2.0, half, Interval(0.25, 0.2, 0.3))),
        row("oracle", "oracle", point(0, 0.0, whole), point(1, 0.0, half), seeds=1),
        row("random", "random", point(0, -8.0), point(1, -7.0, Interval(0.0, 0.0, 0.0)), seeds=1),
    )
    known = Published("Paper", (-5.0, -3.0, -1.0), random=(-9.0, -9.0), oracle=(0.0,))
    table = wide_table(comparison(*rows, published=known))
    assert table.header[4:6] == ("normalised score, 1 step", "gap closed by 1 step")
    maml, oracle, random, paper, paper_random, paper_oracle = (table.rows[i] for i in (0, 1, 2, 3, 5, 4))
    assert maml[4:] == ("0.50 (0.40 to 0.60)", "0.25 (0.20 to 0.30)", "1.5 M", "1.5 min")
    assert oracle == ("oracle", "1", *["0.00 (-1.00 to 1.00)"] * 2, "1.00 (1.00 to 1.00)", "", "1.5 M", "1.5 min")
    assert random[4:] == ("0.00 (0.00 to 0.00)", "", "0", "")  # it was not trained
    # (-3 + 9) / (0 + 9) of the way from random, (-3 + 5) / (0 + 5) of the way from before; a third step is not ours
    assert paper == ("MAML, Paper", "", "-5.00", "-3.00", "0.67", "0.40", "", "")
    assert paper_oracle == ("oracle, Paper", "", "0.00", "", "", "", "", "")
    assert paper_random == ("random, Paper", "", "-9.00", "-9.00", "", "", "", "")
    lines = long_table(comparison(*rows, published=known))
    assert lines.header == ("", "seeds", "steps", "mean", "interquartile mean", "Paper", "score", "gap closed")
    assert lines.rows[1] == ("", "", "1", "-2.00 (-3.00 to -1.00)", "-1.00", "-3.00", "0.50", "0.25 (0.20 to 0.30)")
    assert lines.rows[2][:3] == ("oracle", "1", "0")
    assert all(len(line) == len(lines.header) for line in lines.rows)
    assert all(len(line) == len(table.header) for line in table.rows)


def test_an_error_has_what_stands_up_to_outliers_beside_it() -> None:
    known = Published("Paper", (math.nan, 0.67, *[math.nan] * 8, 0.35))
    points = [point(k, k / 10) for k in range(11)]
    few = comparison(row("MAML", "maml", *points), published=known, measure="error")
    table = wide_table(few)
    assert table.header == (
        "mean squared error", "seeds", "before", *(f"after {k} step{'s' * (k > 1)}" for k in (1, 3, 5, 10)),
        "median, after 10 steps", "trimmed mean", "diverged", "iterations", "wall clock",
    )  # fmt: skip
    assert table.rows[0][:3] == ("MAML", "2", "0.000 (-1.000 to 1.000)")
    assert table.rows[0][6:] == ("1.000 (0.000 to 2.000)", "0.250", "0.500", "0.4 %", "70 k", "1.5 min")
    assert table.rows[1] == ("MAML, Paper", "", "", "0.670", "", "", "0.350", "", "", "", "", "")
    lines = long_table(few)
    assert lines.header == ("", "seeds", "steps", "mean", "trimmed mean", "Paper")
    assert lines.rows[10] == ("", "", "10", "1.000 (0.000 to 2.000)", "0.500", "0.350")
    assert lines.rows[2][-1] == ""


def test_an_accuracy_has_every_step_where_they_are_few() -> None:
    table = wide_table(comparison(row("MAML", "maml", *(point(k, 0.5) for k in range(4))), measure="accuracy"))
    assert table.header[0] == "accuracy"
    assert table.header[-3:] == ("after 3 steps", "iterations", "wall clock")
    assert table.rows[0][5] == "50.00 % (-50.00 % to 150.00 %)"


def test_a_table_too_wide_for_the_terminal_comes_in_pieces_with_whole_cells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    cells = ("MAML with a long name", "3", "1", "442.6 (431.6 to 452.2)", "440.9", "0.83 (0.81 to 0.85)")
    table = Table(("", "seeds", "steps", "mean", "interquartile mean", "gap closed"), (cells,))
    assert table.pieces(50, 3) == [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 5]]
    assert table.pieces(200, 3) == [[0, 1, 2, 3, 4, 5]]
    table.show("title", 3)
    shown = capsys.readouterr().out
    assert all(cell in shown for cell in cells[1:])
    assert max(map(len, shown.splitlines())) <= 50
    assert shown.count("seeds") == 3
