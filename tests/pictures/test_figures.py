"""The figures show the numbers they were given: read back from matplotlib's artists and from the files."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from artists import data, legend, overlapping
from matplotlib.colors import to_hex
from PIL import Image

from maml_rl import pictures as draw
from maml_rl.pictures import style
from maml_rl.pictures.curves import moving_average
from maml_rl.pictures.optimisation import PANELS
from maml_rl.results.published import Published

ROWS = [
    {"iteration": i, "env_steps": 1000.0 * (i + 1), "return/0": -40.0 + i % 3, "return/1": -30.0 + i * i}
    for i in range(10)
]
MAML = [(-40.0, -44.0, -36.5), (-12.0, -14.0, -10.0), (-4.0, -4.5, -3.5), (-3.5, -3.75, -3.25)]
ORACLE = [(-2.5, -3.0, -2.0)]


def test_learning_curve_draws_the_rows() -> None:
    figure = draw.learning_curve({"nav": [ROWS]}, window=1)
    (axes,) = figure.axes
    steps = [row["env_steps"] for row in ROWS]
    assert len(axes.lines) == 2
    for k, line in enumerate(axes.lines):
        np.testing.assert_array_equal(data(line), [steps, [row[f"return/{k}"] for row in ROWS]])
        assert line.get_alpha() is None
    (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert low < 1000
    assert high > 10_000
    assert bottom < -40
    assert top > 51
    assert legend(figure) == ["before adaptation", "after 1 step"]
    assert axes.get_title(loc="left") == "nav"
    assert "environment steps" in axes.get_xlabel()
    assert axes.get_ylabel() == "return (undiscounted)"
    assert axes.xaxis.get_major_formatter()(2_000_000) == "2 M"


def test_smoothing_is_drawn_on_top_of_the_faint_data() -> None:
    figure = draw.learning_curve({"nav": [ROWS]}, window=3)
    raw, smooth = figure.axes[0].lines[2:]
    squares = np.arange(10.0) ** 2
    np.testing.assert_array_equal(data(raw)[1], squares - 30)
    assert raw.get_alpha() < 0.5
    assert raw.get_zorder() < smooth.get_zorder()
    inner = (squares[:-2] + squares[1:-1] + squares[2:]) / 3 - 30
    np.testing.assert_allclose(data(smooth)[1], [0.5 - 30, *inner, (64 + 81) / 2 - 30])
    np.testing.assert_array_equal(data(smooth)[0], data(raw)[0])


def test_default_window_is_a_twentieth_of_the_run() -> None:
    rows = [{"env_steps": float(i), "return/0": float(i == 50)} for i in range(100)]
    figure = draw.learning_curve({"nav": [rows]})
    _, smooth = figure.axes[0].lines
    np.testing.assert_allclose(data(smooth)[1][47:54], [0, 0.2, 0.2, 0.2, 0.2, 0.2, 0], atol=1e-15)


def test_several_runs_have_a_colour_each_and_a_style_per_step() -> None:
    deeper = [{**row, "return/2": 5.0} for row in ROWS]
    figure = draw.learning_curve({"a": [ROWS], r"b_$\no$": [deeper]}, window=1)
    a0, a1, b0, b1, b2 = figure.axes[0].lines
    assert a0.get_color() == a1.get_color()
    assert b0.get_color() == b1.get_color() == b2.get_color() != a0.get_color()
    # Line2D keeps the dashes in a private place and nowhere else.
    dashes = [line._unscaled_dash_pattern for line in (a0, a1, b0, b1, b2)]
    assert dashes[:2] == dashes[2:4]
    assert len({str(dash) for dash in dashes}) == 3
    assert legend(figure) == ["a", r"b_$\no$", "before adaptation", "after 1 step", "after 2 steps"]
    handles = figure.legends[0].get_lines()
    assert [handle.get_color() for handle in handles[:2]] == [a0.get_color(), b0.get_color()]
    assert [handle._unscaled_dash_pattern for handle in handles[2:]] == [
        a0._unscaled_dash_pattern,
        *dashes[3:],
    ]
    assert len({handle.get_color() for handle in handles}) == 3
    assert not overlapping(figure)


def test_rows_without_a_key_are_left_out_of_its_line() -> None:
    rows = [{"env_steps": 1.0, "return/0": 1.0}, {"env_steps": 2.0, "return/1": 7.0}]
    figure = draw.learning_curve({"nav": [[*rows, {"env_steps": 3.0, "return/0": 2.0}]]})
    before, after = figure.axes[0].lines
    np.testing.assert_array_equal(data(before), [[1, 3], [1, 2]])
    np.testing.assert_array_equal(data(after), [[2], [7]])
    assert after.get_marker() == "o"  # a single point would be no visible line


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({}, "no run given"),
        ({"good": [ROWS], "empty": [[]]}, "empty: nothing to draw.* 0 rows"),
        ({"nav": [[{"env_steps": 1.0, "return/best": 1.0}]]}, "nav: nothing to draw.* 1 rows"),
        ({"nav": [[{"return/0": 1.0}]]}, "nav: .*return/0 and no env_steps"),
    ],
)
def test_learning_curve_says_what_is_missing(metrics: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        draw.learning_curve(metrics)
    assert not list(tmp_path.iterdir())


def test_moving_average_by_hand() -> None:
    values = np.array([3.0, 0.0, 6.0, 9.0])
    np.testing.assert_array_equal(moving_average(values, 1), values)
    np.testing.assert_array_equal(moving_average(values, 3), [1.5, 3.0, 5.0, 7.5])
    np.testing.assert_array_equal(moving_average(values, 2), moving_average(values, 3))
    np.testing.assert_array_equal(moving_average(values, 99), [4.5] * 4)
    np.testing.assert_array_equal(moving_average(values[::-1], 3), [7.5, 5.0, 3.0, 1.5])


@pytest.mark.parametrize("count", [1, 6, 7, 20])
def test_colours_are_all_different(count: int) -> None:
    colours = [to_hex(colour) for colour in style.colours_for(count)]
    assert len(set(colours)) == len(colours) >= count
    assert "#000000" not in colours  # published values


def test_adaptation_curve_draws_mean_and_interval() -> None:
    published = Published("Finn et al. 2017", (-40.4, -11.7, -3.3, -3.2, -3.1), random=(-80.0,), oracle=(-2.3,))
    figure = draw.adaptation_curve({"nav": MAML}, published.curves())
    (axes,) = figure.axes
    (bars,) = axes.containers
    np.testing.assert_array_equal(data(bars[0]), [[0, 1, 2, 3], [value for value, _, _ in MAML]])
    segments = np.array(bars[2][0].get_segments())  # (k, end, xy)
    np.testing.assert_array_equal(segments[:, :, 0], [[k, k] for k in range(4)])
    np.testing.assert_array_equal(segments[:, :, 1], [[-44, -36.5], [-14, -10], [-4.5, -3.5], [-3.75, -3.25]])
    markers, random, oracle = axes.lines[-3:]
    np.testing.assert_array_equal(data(markers), [range(5), published.maml])
    np.testing.assert_array_equal(data(random), [[0], [-80]])
    assert list(data(oracle)[1]) == [-2.3, -2.3]
    assert (markers.get_marker(), markers.get_linestyle(), markers.get_fillstyle()) == ("D", "None", "none")
    assert legend(figure) == ["nav", *(f"Finn et al. 2017: {name}" for name in ("MAML", "random", "oracle"))]
    assert list(axes.get_xticks()) == [0, 1, 2, 3, 4]
    assert axes.get_xlim() == (-0.3, 4.3)
    assert axes.get_ylim()[0] < -80
    assert axes.get_ylim()[1] > -2.3
    assert "gradient steps" in axes.get_xlabel()
    assert axes.get_ylabel().split("\n")[1:] == ["(undiscounted, interquartile mean,", "95 % interval over tasks)"]


def test_runs_stand_apart_and_around_the_step() -> None:
    figure = draw.adaptation_curve({f"s{i}": MAML for i in range(3)})
    x = np.array([data(bars[0])[0] for bars in figure.axes[0].containers])
    np.testing.assert_allclose(x.mean(axis=0), [0, 1, 2, 3], atol=1e-12)
    assert (np.diff(x, axis=0) > 0.05).all()
    assert (abs(x - [0, 1, 2, 3]) < 0.3).all()
    assert len({bars[0].get_marker() for bars in figure.axes[0].containers}) == 3
    assert len({bars[0].get_color() for bars in figure.axes[0].containers}) == 3


def test_a_run_without_adaptation_is_a_level() -> None:
    figure = draw.adaptation_curve({"nav": MAML, "_oracle": ORACLE})
    (axes,) = figure.axes
    level = axes.lines[-1]
    assert list(data(level)[1]) == [-2.5, -2.5]
    assert level.get_linestyle() == "--"
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == (-3.0, -2.0)
    assert axes.get_ylim()[1] > -2
    assert legend(figure) == ["nav", "_oracle"]


def test_long_names_make_the_figure_higher_and_hide_nothing() -> None:
    figures = []
    for count in (1, 9):
        runs = {f"a-long-name-of-a-run-with-all-its-options-{i}": MAML for i in range(count)}
        figures.append(draw.adaptation_curve(runs, Published("Finn et al. 2017", (-40.0,)).curves()))
        assert not overlapping(figures[-1])
    heights = [figure.axes[0].get_window_extent().height for figure in figures]
    assert heights[1] == pytest.approx(heights[0], rel=0.1)


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "no run given"),
        ({"good": MAML, "nav": [(1.0, 2.0)]}, r"nav: wanted value, low and high .* \(1, 2\)"),
        ({"nav": [1.0, 2.0, 3.0]}, r"nav: .*\(3,\)"),
        ({"nav": []}, "nav: "),
    ],
)
def test_adaptation_curve_says_what_is_wrong(curves: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw.adaptation_curve(curves)


def navigation() -> dict[str, Any]:
    """Two tasks, two steps, three episodes of five moves; the last two positions were never visited."""
    goals = np.array([[0.4, 0.2], [-0.3, 0.5]])
    along = np.linspace(0, 1, 6)[:, None]
    episodes = np.array([0.5, 0.8, 1.0])[:, None, None]
    positions = np.stack([np.stack([goal * along * episodes * side for side in (-1, 1)]) for goal in goals])
    mask = np.ones(positions.shape[:4], dtype=bool)
    mask[..., 4:] = False
    positions[..., 4:, :] = 77.0
    return {
        "positions": positions,
        "mask": mask,
        "goals": goals,
        "returns": np.array([[-41.2, -11.68], [0, -2]]),
    }


def test_navigation_paths_draws_what_was_visited() -> None:
    given = navigation()
    figure = draw.navigation_paths(**given)
    grid = np.array(figure.axes).reshape(2, 2)
    for task, k in np.ndindex(2, 2):
        *paths, goal, start = grid[task, k].lines
        assert len(paths) == 3
        for episode, line in enumerate(paths):
            np.testing.assert_array_equal(data(line)[:, :4].T, given["positions"][task, k, episode, :4])
            assert np.isnan(data(line)[:, 4:]).all()
        np.testing.assert_array_equal(data(goal)[:, 0], given["goals"][task])
        assert goal.get_marker() == "*"
        np.testing.assert_array_equal(data(start)[:, 0], [0, 0])
    titles = [[axes.get_title() for axes in row] for row in grid]
    assert titles == [
        ["before adaptation\nreturn -41.2", "after 1 step\nreturn -11.7"],
        ["return 0.0", "return -2.0"],
    ]
    assert [axes.get_ylabel().split("\n") for axes in grid[:, 0]] == [
        ["task 1", "y position"],
        ["task 2", "y position"],
    ]
    assert [axes.get_xlabel() for axes in grid[1]] == ["x position"] * 2
    assert legend(figure) == ["episode", "start", "goal"]
    assert not overlapping(figure)


def test_navigation_panels_share_limits_that_hold_the_data() -> None:
    figure = draw.navigation_paths(**navigation())
    figure.draw_without_rendering()
    limits = {(axes.get_xlim(), axes.get_ylim(), axes.get_aspect()) for axes in figure.axes}
    ((left, right), (bottom, top), aspect) = limits.pop()
    assert not limits
    assert aspect == 1
    assert right - left == pytest.approx(top - bottom)
    # x: -0.4 * 0.6 to the goal at 0.4; y: -0.5 * 0.6 to the goal at 0.5; not the 77 that was never visited.
    assert -1 < left < -0.24
    assert 0.4 < right < 1
    assert -1 < bottom < -0.3
    assert 0.5 < top < 1
    for axes in figure.axes:
        box = axes.get_window_extent()
        assert box.width == pytest.approx(box.height, rel=0.01)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("positions", lambda a: a[0]),
        ("positions", lambda a: a[..., :1]),
        ("mask", lambda a: a[..., 1:]),
        ("mask", np.zeros_like),
        ("goals", lambda a: a[:1]),
        ("returns", lambda a: a.T[:1]),
    ],
)
def test_navigation_paths_wants_shapes_that_fit(key: str, change: Callable[[Any], Any], tmp_path: Path) -> None:
    given = navigation()
    given[key] = change(given[key])
    with pytest.raises(ValueError, match=r"wanted: positions \(tasks, k, episodes, T\+1, 2\).* got: positions "):
        draw.navigation_paths(**given)


@pytest.mark.parametrize("name", ["curve", "curve.png", "curve.svg", "nav.v2"])
def test_both_files_are_written_and_valid(name: str, tmp_path: Path) -> None:
    written = draw.save(draw.learning_curve({"nav": [ROWS]}), tmp_path / "figures" / name)
    stem = "nav.v2" if name == "nav.v2" else "curve"
    assert written == tmp_path / "figures" / f"{stem}.png"
    assert sorted(file.name for file in written.parent.iterdir()) == [f"{stem}.png", f"{stem}.svg"]
    with Image.open(written) as image:
        image.verify()
    with Image.open(written) as image:
        assert 1000 < image.width < 1200  # 5.5 inches at 200 dots each
        assert 500 < image.height < 800
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    blue, vermillion = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in style.OKABE_ITO[:2])
    for colour in (blue, vermillion):
        assert (pixels == colour).all(axis=1).sum() > 100
    assert ElementTree.parse(written.with_name(f"{stem}.svg")).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        draw.save(draw.adaptation_curve({"nav": MAML}), tmp_path / folder / "x")
    for name in ("x.png", "x.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_style_neither_leaks_nor_depends_on_the_users(tmp_path: Path) -> None:
    draw.save(draw.adaptation_curve({"nav": MAML}), tmp_path / "a")
    with matplotlib.rc_context({"axes.spines.top": True, "font.size": 30, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        figure = draw.adaptation_curve({"nav": MAML})
        draw.save(figure, tmp_path / "b")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    spines = figure.axes[0].spines
    assert [spines[side].get_visible() for side in ("left", "bottom", "top", "right")] == [
        True,
        True,
        False,
        False,
    ]


def test_pyplot_stays_away() -> None:
    code = "import sys, maml_rl.pictures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_seeds_are_their_mean_in_the_band_of_their_range() -> None:
    higher = [{**row, "return/1": row["return/1"] + 6.0, "env_steps": row["env_steps"] + 200.0} for row in ROWS]
    figure = draw.learning_curve({"MAML": [ROWS, higher]}, window=1)
    (axes,) = figure.axes
    before, after = axes.lines
    np.testing.assert_array_equal(data(after), [[1100 + 1000 * i for i in range(10)], [i * i - 27 for i in range(10)]])
    band = axes.collections[1].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (-30, 57)
    assert (data(before)[1] == [-40 + i % 3 for i in range(10)]).all()
    assert axes.get_title(loc="left") == "MAML (2 seeds: mean, range)"


def test_a_second_panel_is_over_the_wall_clock() -> None:
    timed = [{**row, "seconds/sampling": 40.0, "seconds/inner": 5.0, "seconds/outer": 15.0} for row in ROWS]
    figure = draw.learning_curve({"nav": [timed]}, window=1)
    steps, minutes = figure.axes
    np.testing.assert_array_equal(data(minutes.lines[1])[0], range(1, 11))
    np.testing.assert_array_equal(data(minutes.lines[1])[1], data(steps.lines[1])[1])
    assert minutes.get_xlabel() == "wall clock (minutes)"


def log(**keys: Callable[[int], float]) -> list[dict[str, float]]:
    """Six rows of metrics; keys with __ for the slash."""
    return [{"iteration": float(i)} | {key.replace("__", "/"): f(i) for key, f in keys.items()} for i in range(6)]


def test_the_optimisation_shows_what_was_logged() -> None:
    rows = log(kl__outer=lambda i: 0.01 / (i + 1), grad__norm=lambda i: 1.0 + i, std__0=lambda i: 1.0)
    figure = draw.optimisation({"MAML": [rows]})
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    assert titles == ["KL of the outer step", "norm of the meta-gradient", "standard deviation"]
    np.testing.assert_allclose(data(figure.axes[0].lines[-1])[1], [row["kl/outer"] for row in rows])
    assert [axes.get_xlabel() for axes in figure.axes] == ["iteration"] * 3
    with pytest.raises(ValueError, match="nothing to draw: none of kl/outer, "):
        draw.optimisation({"MAML": [[{"iteration": 0.0, "return/0": 1.0}]]})


def test_the_optimisation_of_seeds_and_groups() -> None:
    one, other = log(grad__norm=lambda i: 1.0 + i), log(grad__norm=lambda i: 3.0 + i)
    deep = log(std__0=lambda i: 1.0, std__1=lambda i: 0.5, std__2=lambda i: 0.25)
    figure = draw.optimisation({"MAML": [one, other], "deep": [deep]})
    norm, std = figure.axes
    (mean,), (band,) = norm.lines, norm.collections
    assert data(mean)[1].tolist() == [2, 3, 4, 5, 6, 7]
    assert (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()) == (1, 8)
    assert [data(line)[1][0] for line in std.lines] == [1, 0.5, 0.25]
    assert len({str(line._unscaled_dash_pattern) for line in std.lines}) == 3
    assert legend(figure)[:2] == ["MAML (2 seeds: mean, range)", "deep"]
    assert legend(figure)[2:] == ["before adaptation", "after 1 step", "after 2 steps"]
    assert std.lines[0].get_color() != mean.get_color()


def test_a_logarithmic_scale_where_values_are_above_nothing_and_far_apart() -> None:
    cases = {(1, 20): "log", (1, 9): "linear", (0, 20): "linear", (-1, 20): "linear"}
    for (low, high), scale in cases.items():
        rows = log(grad__norm=lambda i, low=low, high=high: low + (high - low) * i / 5)
        (axes,) = draw.optimisation({"MAML": [rows]}).axes
        assert axes.get_yscale() == scale
    (axes,) = draw.optimisation({"MAML": [log(share_worse=lambda i: 0.5, return__1=lambda i: 0.0)]}).axes
    assert axes.get_ylim() == (-0.05, 1.05)


def test_what_only_adaptation_moves_is_not_drawn_of_a_run_without() -> None:
    """Training logs a KL and a share of 0 where no step is taken; drawn, they would be praise."""
    still = log(kl__inner=lambda i: 0.0, share_worse=lambda i: 0.0, kl__outer=lambda i: 0.01)
    moving = log(return__1=lambda i: 1.0, kl__inner=lambda i: 2.0, share_worse=lambda i: 0.25, kl__outer=lambda i: 0.01)
    figure = draw.optimisation({"pretrained": [still], "MAML": [moving]})
    lines = {axes.get_title(): [data(line)[1][0] for line in axes.lines] for axes in figure.axes}
    assert lines == {
        "KL of the outer step": [0.01, 0.01],
        "KL of the inner steps": [2],
        "share of tasks made worse": [0.25],
    }


def test_no_text_of_the_optimisation_lies_on_another() -> None:
    every = {f"{panel.key}/0" if panel.each_step else panel.key for panel in PANELS}
    rows = [{"iteration": 10.0 * i, "return/1": 0.0} | dict.fromkeys(every, 10.0**-i) for i in range(50)]
    figure = draw.optimisation({"MAML, inner.estimator = log_prob": [rows] * 2, "pretrained": [rows]})
    assert len(figure.axes) == len(PANELS)
    assert not overlapping(figure)


def test_a_picture_in_memory_is_a_png() -> None:
    content = draw.png(draw.adaptation_curve({"nav": MAML}))
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        assert 500 < image.width < 620  # 5.5 inches at 100 dots each
