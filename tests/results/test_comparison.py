"""Groups of runs and what they are worth, by numbers that can be derived by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from maml_envs import InputError
from maml_rl.config.rl import Config
from maml_rl.results.comparison import compare, compare_groups, returns_of
from maml_rl.results.runs import grouped, read_runs
from maml_rl.results.statistics import Interval, bootstrap, interval, mean, overall, ratio, resample

TASKS = 8


def write_run(
    folder: Path, returns: list[float], seed: int = 1, spread: float = 0.0, evaluated: bool = True, **keys: Any
) -> Path:
    """A run folder whose evaluation has these mean returns after 0, 1, ... steps, one episode of each task."""
    folder.mkdir(parents=True)
    config = {"env": "navigation", "preset": "finn2017", "horizon": 100, "seed": seed} | keys
    about = {"machine": {"platform": "Linux x86_64", "cores": 2, "threads": 1}}
    (folder / "config.toml").write_text(tomli_w.dumps({"made_with": about, "config": config}))
    spent = {"return/0": 0.0, "seconds/sampling": 1.0, "seconds/outer": 0.5}
    rows = [{"iteration": i, "env_steps": 500 * seed * (i + 1)} | spent for i in range(2)]
    trained = keys.get("method") != "random"
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * trained))
    if evaluated:
        write_evaluation(folder, returns, spread)
    return folder


def write_evaluation(folder: Path, returns: list[float], spread: float = 0.0, name: str = "", **fields: Any) -> None:
    off = np.linspace(-spread, spread, TASKS)
    values = [[[value + each] for value in returns] for each in off.tolist()]
    content = {
        "tasks": [[float(i), 0.0] for i in range(TASKS)],
        "returns": values,
        "split": "in",
        "which": "checkpoint",
    }
    (folder / f"evaluation{name}.json").write_text(json.dumps(content | {"steps": len(returns) - 1} | fields))


def four(folder: Path) -> list[Path]:
    return [
        write_run(folder / "maml", [-40.0, -10.0, -4.0], spread=2.0),
        write_run(folder / "pretrained", [-38.0, -20.0, -8.0], method="pretrained", spread=1.0),
        write_run(folder / "oracle", [-2.0], method="oracle", spread=0.5),
        write_run(folder / "random", [-80.0, -70.0, -60.0], method="random", spread=3.0),
    ]


def test_what_the_four_methods_are_worth(tmp_path: Path) -> None:
    found = compare(four(tmp_path))
    maml, pretrained, oracle, random = found.rows
    assert [row.label for row in found.rows] == ["MAML", "pretrained", "oracle", "random"]
    assert [point.mean.value for point in maml.points] == pytest.approx([-40, -10, -4])
    score, gap = maml.points[1].normalised, maml.points[1].gap_closed
    assert score is not None
    assert gap is not None
    assert score.value == pytest.approx((-10 + 70) / (-2 + 70))  # random after one step too
    assert gap.value == pytest.approx(30 / 38)
    assert score.low < score.value < score.high < 1
    assert maml.points[0].gap_closed is None
    # The oracle is 1 and random 0 in every resample: they share its tasks with themselves.
    assert oracle.points[0].normalised == Interval(1.0, 1.0, 1.0)
    assert [point.normalised for point in random.points] == [Interval(0.0, 0.0, 0.0)] * 3
    assert pretrained.points[2].gap_closed is not None
    assert pretrained.points[2].gap_closed.value == pytest.approx(30 / 36)
    assert (maml.env_steps, maml.seconds, maml.seeds, random.env_steps) == (1000, 3.0, (1,), 0)
    assert found.published is not None
    assert found.published.gap_closed(1) == pytest.approx(0.7537, abs=1e-3)
    assert json.loads(json.dumps(found.as_json()))["rows"][0]["points"][1]["gap_closed"]["value"] == gap.value


def test_without_an_oracle_nothing_is_said_of_it(tmp_path: Path) -> None:
    runs = four(tmp_path)
    (row, _) = compare([runs[0], runs[3]]).rows
    assert [point.normalised for point in row.points] == [None] * 3
    assert [point.gap_closed for point in row.points] == [None] * 3


def test_seeds_are_one_group_with_the_shortest_label(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a1", [0.0, 1.0], seed=1),
        write_run(tmp_path / "b1", [0.0, 5.0], seed=1, inner={"estimator": "dice"}),
        write_run(tmp_path / "a2", [0.0, 3.0], seed=2, threads=2),
    ]
    groups = grouped(read_runs(runs, Config))
    assert [group.label for group in groups] == ["MAML, inner.estimator = log_prob", "MAML, inner.estimator = dice"]
    assert [[run.config.seed for run in group.runs] for group in groups] == [[1, 2], [1]]
    row = compare(runs).rows[0]
    assert (row.points[1].seed_means, row.points[1].mean.value, row.env_steps) == ((1.0, 3.0), 2.0, 1500)
    assert row.points[1].mean.low == 1
    assert row.points[1].mean.high == 3
    assert [row.label for row in compare(runs[:1] + runs[2:]).rows] == ["MAML"]


def test_what_does_not_compare_is_refused_in_words(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "one", [0.0, 1.0]), write_run(tmp_path / "other", [0.0, 1.0], seed=2)
    with pytest.raises(InputError, match=r"one and .*twin are of the same configuration and seed, 1: leave one out"):
        compare([one, write_run(tmp_path / "twin", [0.0, 1.0])])
    with pytest.raises(InputError, match=r"only within an environment: .*horizon = 100, .*horizon = 50; give runs of"):
        compare([one, write_run(tmp_path / "short", [0.0, 1.0], horizon=50)])
    write_evaluation(other, [0.0, 1.0], tasks=[[float(i), 1.0] for i in range(TASKS)])
    with pytest.raises(InputError, match=r"compare only on the same tasks: .*one is evaluated on 8 tasks .* others, 8"):
        compare([one, other])
    (other / "evaluation.json").write_text(json.dumps({"tasks": [[0.0]], "returns": [[]], "split": "in"}))
    with pytest.raises(InputError, match=r"evaluation of .*other does not hold the return of every task"):
        compare([one, other])
    with pytest.raises(InputError, match=r"nothing is evaluated yet: maml-rl evaluate .*blank"):
        compare([write_run(tmp_path / "blank", [], evaluated=False)])


def test_final_and_best_parameters_are_compared_apart(tmp_path: Path) -> None:
    runs = four(tmp_path)
    for run, returns in zip(runs[:3], ([-40.0, -8.0], [-38.0, -19.0], [-1.0]), strict=True):
        write_evaluation(run, returns, name="_2", which="best")
    final, best = compare(runs), compare(runs, "best")
    assert [row.points[-1].mean.value for row in final.rows] == pytest.approx([-4, -8, -2, -60])
    assert [row.points[-1].mean.value for row in best.rows] == pytest.approx([-8, -19, -1, -60])
    with pytest.raises(InputError, match="nothing is evaluated yet"):
        compare(runs, split="out")


def test_runs_that_are_not_evaluated_are_left_out(tmp_path: Path) -> None:
    runs = [*four(tmp_path), write_run(tmp_path / "later", [], seed=2, evaluated=False)]
    assert compare(runs).rows[0].seeds == (1,)


def test_what_the_tasks_make_all_groups_share_is_not_in_a_score(tmp_path: Path) -> None:
    """All three rise and fall by 50 with the task, so MAML is 0.6 of the way whatever tasks are drawn."""
    runs = [
        write_run(tmp_path / "maml", [0.0, 6.0], spread=50.0),
        write_run(tmp_path / "oracle", [10.0], spread=50.0, method="oracle"),
        write_run(tmp_path / "random", [-5.0, 0.0], spread=50.0, method="random"),
    ]
    point = compare(runs).rows[0].points[1]
    assert point.mean.high - point.mean.low > 30
    assert point.normalised == pytest.approx((0.6, 0.6, 0.6))
    assert point.gap_closed == pytest.approx((0.6, 0.6, 0.6))


def test_an_oracle_counts_before_any_step(tmp_path: Path) -> None:
    oracle = write_run(tmp_path / "oracle", [10.0, 99.0], method="oracle")
    (row, _) = compare([write_run(tmp_path / "maml", [0.0, 5.0]), oracle]).rows
    assert row.points[1].gap_closed == Interval(0.5, 0.5, 0.5)


def test_two_groups_of_a_method_are_not_one_scale(tmp_path: Path) -> None:
    runs = [*four(tmp_path), write_run(tmp_path / "wide", [-1.0], method="oracle", policy={"hidden": [8]})]
    assert all(point.gap_closed is None for row in compare(runs).rows for point in row.points)


def test_what_is_not_finite_is_nothing_in_json(tmp_path: Path) -> None:
    maml = write_run(tmp_path / "maml", [-1.0, 0.0], spread=5.0)
    runs = [maml, write_run(tmp_path / "oracle", [0.0], method="oracle", spread=-5.0)]
    assert compare(runs).rows[0].points[1].gap_closed == pytest.approx((1, -np.inf, np.inf))
    content = json.loads(json.dumps(compare(runs).as_json(), allow_nan=False))
    assert content["rows"][0]["points"][1]["gap_closed"] == {"value": pytest.approx(1), "low": None, "high": None}
    write_evaluation(maml, [0.0, 3.0])
    content = json.loads(json.dumps(compare(runs).as_json(), allow_nan=False))
    assert content["rows"][0]["points"][1]["gap_closed"] is None  # this oracle is no better than where it starts
    assert content["rows"][0]["seeds"] == [1]
    assert content["published"]["oracle"] == -2.29


def test_other_parameters_are_refused_but_of_a_policy_that_is_not_trained(tmp_path: Path) -> None:
    groups = grouped(read_runs(four(tmp_path), Config))
    for group, which in zip(groups, ("best", "best", "best", "checkpoint"), strict=True):
        group.runs[0].evaluation["which"] = which
    assert len(compare_groups(groups).rows) == 4
    groups[1].runs[0].evaluation["which"] = "checkpoint"
    with pytest.raises(
        InputError, match=r"maml is evaluated with --which best, .*pretrained with --which checkpoint; "
    ):
        compare_groups(groups)
    groups[1].runs[0].evaluation["split"] = "out"
    with pytest.raises(InputError, match=r"on 8 tasks of split 'in', .*pretrained on 8 tasks of split 'out'; evaluate"):
        compare_groups(groups)


def test_seeds_with_more_steps_than_others_are_cut_to_what_all_have(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", [1.0, 2.0, 9.0]), write_run(tmp_path / "b", [3.0, 4.0], seed=2)]
    (group,) = grouped(read_runs(runs, Config))
    assert returns_of(group).shape == (2, TASKS, 2)
    assert [point.mean.value for point in compare(runs).rows[0].points] == [2, 3]


def test_the_middle_half_and_the_mean_differ(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.0])
    values = [-100.0, -50.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    content = json.loads((run / "evaluation.json").read_text())
    content["returns"] = [[[value - 1, value + 1]] for value in values]  # two episodes
    (run / "evaluation.json").write_text(json.dumps(content))
    (point,) = compare([run]).rows[0].points
    assert (point.iqm.value, point.mean.value) == (2.5, sum(values) / 8)
    assert point.mean.low < point.iqm.low


def test_what_a_run_took_and_on_what(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"s{seed}", [0.0], seed=seed) for seed in (1, 2)]
    content = tomli_w.dumps({"config": {"env": "navigation", "preset": "finn2017", "horizon": 100, "seed": 2}})
    (runs[1] / "config.toml").write_text(content)
    (row,) = compare(runs).rows
    assert (row.env_steps, row.seconds, row.seeds, row.runs) == (1500, 3, (1, 2), tuple(map(str, runs)))
    assert row.hardware == ("Linux x86_64, 2 cores, 1 thread", "unknown")


def test_published_values_are_of_tasks_inside_the_distribution(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.0])
    write_evaluation(run, [0.0], name="_2", split="out")
    assert compare([run]).published is not None
    assert compare([run], split="out").published is None


def test_a_ratio_whose_denominator_may_be_nothing_may_be_anything() -> None:
    random = np.random.default_rng(0)
    over, under = random.normal(3, 0.1, 2000), random.normal(0.5, 1, 2000)
    assert ratio(3, 0.5, over, under) == Interval(6.0, -np.inf, np.inf)
    found = ratio(3, 6, over, random.normal(6, 0.1, 2000))
    assert found.value == 0.5
    assert 0.45 < found.low < 0.5 < found.high < 0.55
    assert np.isnan(ratio(1, 0, over, under).value)


def test_a_ratio_of_the_same_tasks_is_known_better_than_of_others() -> None:
    """Two groups whose returns rise and fall together with the task: their ratio is 1/2 on every resample."""
    tasks = np.random.default_rng(1).normal(10, 3, (1, 40))
    one, two = resample([tasks, 2 * tasks], mean)
    np.testing.assert_allclose(one / two, 0.5)
    apart = np.random.default_rng(2).permutation(two)
    assert interval(0.5, one / apart).high - interval(0.5, one / apart).low > 0.05


def test_another_average_and_more_axes() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(overall(values, mean), values.reshape(6, 4).mean(0))
    (drawn,) = resample([values], mean, resamples=5)
    assert drawn.shape == (5, 4)
    np.testing.assert_allclose(np.diff(drawn, axis=1), 1)  # every column met the same seeds and tasks
    assert bootstrap(values[..., 0], average=mean).value == values[..., 0].mean()
