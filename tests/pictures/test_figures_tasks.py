"""Figures of tasks show the returns they were given, read back from matplotlib's artists; no text hides another."""

import matplotlib
import numpy as np
import pytest
from artists import data, legend, overlapping

from maml_rl import pictures as draw
from maml_rl.pictures.tasks import tasks_of

RETURNS = {"MAML": [[1.0, 5.0], [2.0, 1.5], [3.0, 9.0], [4.0, 4.0]], "oracle": [[9.0], [9.0], [9.0], [8.0]]}


def test_a_point_for_every_task_before_against_after() -> None:
    figure = draw.before_after(RETURNS, [[0.0], [1.0], [2.0], [3.0]], "goal velocity (m/s)")
    axes, bar = figure.axes  # the oracle took no step
    (points,) = axes.collections
    np.testing.assert_array_equal(points.get_offsets(), RETURNS["MAML"])
    np.testing.assert_array_equal(points.get_array(), [0, 1, 2, 3])
    assert bar.get_ylabel() == "goal velocity (m/s)"
    assert axes.get_title("left") == "MAML\n25 % of tasks worse"
    assert [text.get_text() for text in axes.texts] == ["worse"]
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("return before adaptation", "return after 1 step")
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.lines[0].get_slope() == 1
    assert axes.lines[0].get_xy1() == (1, 1)


def test_two_kinds_of_tasks_have_two_colours_and_markers() -> None:
    figure = draw.before_after(RETURNS, [[-1.0], [1.0], [-1.0], [1.0]], "direction")
    (axes,) = figure.axes
    backward, forward = axes.collections
    np.testing.assert_array_equal(backward.get_offsets(), [[1, 5], [3, 9]])
    np.testing.assert_array_equal(forward.get_offsets(), [[2, 1.5], [4, 4]])
    assert legend(figure) == ["direction:", "-1", "1"]


def test_return_over_a_number() -> None:
    figure = draw.return_by_task(RETURNS, [[3.0], [1.0], [2.0], [0.0]], "goal velocity (m/s)")
    (axes,) = figure.axes
    before, after, oracle = axes.lines
    np.testing.assert_array_equal(data(before), [[0, 1, 2, 3], [4, 2, 3, 1]])
    np.testing.assert_array_equal(data(after)[1], [4, 1.5, 9, 5])
    np.testing.assert_array_equal(data(oracle)[1], [8, 9, 9, 9])
    assert oracle.get_linestyle() == "--"
    assert figure.get_supxlabel() == "goal velocity (m/s)"
    assert legend(figure) == ["before adaptation", "after 1 step", "oracle"]


def test_return_over_goals_is_on_one_scale_of_colours() -> None:
    goals = [[0.0, 1.0], [1.0, 0.5], [0.5, -1.0], [-1.0, 0.2]]
    figure = draw.return_by_task(RETURNS, goals, "goal position (m)")
    before, after, oracle, room = figure.axes  # the colour bar has the place beside the oracle
    for axes in (before, after, oracle):
        (points,) = axes.collections
        np.testing.assert_array_equal(points.get_offsets(), goals)
        assert (points.norm.vmin, points.norm.vmax) == (1, 9)
        np.testing.assert_array_equal(points.to_rgba([5.0]), matplotlib.colormaps["viridis"]([0.5]))
    shown = [axes.collections[0].get_array().tolist() for axes in (before, after, oracle)]
    assert shown == [[1, 2, 3, 4], [5, 1.5, 9, 4], [9, 9, 9, 8]]
    assert [axes.get_title() for axes in (before, after, oracle)] == [
        "before adaptation\nmean return 2.5",
        "after 1 step\nmean return 4.9",
        "oracle\nmean return 8.8",
    ]
    assert before.get_ylabel() == "MAML"
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("goal position (m), x", "goal position (m), y")
    assert [axes.xaxis.get_tick_params()["labelbottom"] for axes in (before, after, oracle)] == [False, True, True]
    (bar,) = room.child_axes
    assert bar.get_xlabel() == "return (undiscounted)"
    assert bar.get_xlim() == (1, 9)
    assert not overlapping(figure)
    *_, bar = draw.return_by_task({"MAML": RETURNS["MAML"]}, goals).axes
    assert (bar.get_ylabel(), bar.get_ylim()) == ("return (undiscounted)", (1, 9))


def test_maps_of_oracles_share_the_last_row_but_alone_have_a_row_each() -> None:
    goals = [[0.0, 1.0], [1.0, 0.5], [0.5, -1.0], [-1.0, 0.2]]
    figure = draw.return_by_task({"oracle": RETURNS["oracle"], "other": RETURNS["oracle"]}, goals)
    first, second, _ = figure.axes
    assert [axes.get_title().split("\n")[0] for axes in (first, second)] == ["oracle", "other"]
    assert first.get_window_extent().y0 > second.get_window_extent().y1
    figure = draw.return_by_task({"oracle": RETURNS["oracle"], **RETURNS, "other": RETURNS["oracle"]}, goals)
    before, _, first, second, bar = figure.axes
    assert [axes.get_title().split("\n")[0] for axes in (first, second)] == ["oracle", "other"]
    assert before.get_window_extent().y0 > first.get_window_extent().y1
    assert first.get_window_extent().y0 == second.get_window_extent().y0
    assert bar.get_ylabel() == "return (undiscounted)"


def test_angles_are_in_degrees_on_a_scale_that_closes() -> None:
    directions = [[0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]]
    figure = draw.before_after(RETURNS, directions, "direction")
    (points,) = figure.axes[0].collections
    np.testing.assert_allclose(points.get_array(), [90, 180, -90, 0])
    assert (points.norm.vmin, points.norm.vmax) == (-180, 180)
    start, end = points.to_rgba([-180.0, 180.0])
    np.testing.assert_allclose(start, end, atol=0.02)
    assert figure.axes[1].get_ylabel() == "direction, angle (degrees)"
    lines = draw.return_by_task(RETURNS, directions, "direction").axes[0].lines
    np.testing.assert_allclose(data(lines[0]), [[-90, 0, 90, 180], [3, 4, 1, 2]])


def test_two_kinds_of_tasks_stand_side_by_side() -> None:
    figure = draw.return_by_task(RETURNS, [[-1.0], [1.0], [-1.0], [1.0]], "direction")
    (axes,) = figure.axes
    columns = [data(line) for line in axes.lines]  # before, after, oracle; each of -1, then 1
    assert [y.tolist() for _, y in columns] == [[1, 3], [2, 4], [5, 9], [1.5, 4], [9, 9], [9, 8]]
    centres = np.array([x.mean() for x, _ in columns]).reshape(3, 2)
    np.testing.assert_allclose(centres.mean(0), [0, 1], atol=1e-9)
    assert (np.diff(centres, axis=0) > 0.2).all()
    bars = [each.get_segments()[0][0, 1] for each in axes.collections]
    assert bars == [2, 3, 7, 2.75, 9, 8.5]  # the means
    assert [label.get_text() for label in axes.get_xticklabels()] == ["-1", "1"]
    assert legend(figure) == ["before adaptation", "after 1 step", "oracle"]


def test_what_tasks_are_is_seen_from_their_numbers() -> None:
    assert tasks_of([1.0, 2.0, 3.0]).kind == "line"
    assert tasks_of([[1.0], [2.0], [1.0]]).kind == "two"
    assert tasks_of([[0.6, 0.8], [1.0, 0.0], [0.0, -1.0]]).kind == "circle"
    assert tasks_of([[0.6, 0.8], [1.0, 0.1], [0.0, -1.0]]).kind == "plane"
    assert tasks_of(np.zeros((4, 3, 2))).kind == "other"


def several(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    names = [f"MAML, inner.estimator = log_prob, outer.name = promp, seed = {i}" for i in range(count)]
    found = {name: np.cumsum(random.normal(0, 30, (12, 3)), 1) - 100 for name in names}
    return found | {"oracle": random.normal(100, 5, (12, 1)), "oracle, outer.name = adam": np.zeros((12, 1))}


ROWS = {
    "number": np.linspace(0, 3, 12)[:, None],
    "two": np.resize([-1.0, 1.0], (12, 1)),
    "plane": np.random.default_rng(1).normal(size=(12, 2)),
    "other": np.random.default_rng(1).normal(size=(12, 7)),
}


@pytest.mark.parametrize("kind", ROWS)
def test_no_text_lies_on_another(kind: str) -> None:
    name = "direction (1: forward, -1: backward)"
    assert not overlapping(draw.return_by_task(several(2 if kind == "plane" else 4), ROWS[kind], name))
    if kind in ("number", "two"):
        assert not overlapping(draw.before_after(several(4), ROWS[kind], name))


def test_other_tasks_are_sorted_by_their_return_before() -> None:
    returns = {"MAML": [[3.0, 5.0], [1.0, 2.0], [2.0, 9.0]]}
    figure = draw.return_by_task(returns, np.zeros((3, 7)))
    before, after = figure.axes[0].lines
    np.testing.assert_array_equal(data(before)[1], [1, 2, 3])
    np.testing.assert_array_equal(data(after)[1], [2, 9, 5])
    assert figure.get_supxlabel() == "tasks, sorted by return before adaptation"
    links = figure.axes[0].collections[0].get_segments()
    assert [link[:, 1].tolist() for link in links] == [[1, 2], [2, 9], [3, 5]]


def test_groups_without_a_step_are_in_every_panel_and_differ() -> None:
    returns = several(2)
    for width, look in ((1, "get_linestyle"), (7, "get_marker")):
        figure = draw.return_by_task(returns, np.random.default_rng(1).normal(size=(12, width)))
        assert len(figure.axes) == 2
        for axes in figure.axes:
            still = axes.lines[-2:]
            assert [line.get_label() for line in still] == ["oracle", "oracle, outer.name = adam"]
            assert len({getattr(line, look)() for line in still}) == 2
            assert sorted(data(still[0])[1]) == sorted(returns["oracle"][:, 0])


def test_shapes_of_returns_that_do_not_fit_are_named() -> None:
    for draw_one in (draw.before_after, draw.return_by_task):
        with pytest.raises(ValueError, match=r"MAML: wanted returns \(tasks, k\) of 3 tasks, got \(4, 2\)"):
            draw_one(RETURNS, np.zeros((3, 1)))
