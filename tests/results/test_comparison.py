"""Groups of runs and what they are worth, by numbers that can be derived by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from tiny import evaluation_of

from maml_envs import InputError
from maml_rl.core.statistics import Interval, bootstrap, interval, mean, overall, ratio, resample
from maml_rl.results.comparison import compare, comparisons
from maml_rl.results.runs import grouped, read_runs

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
    found = evaluation_of(np.array(returns) + off[:, None], **fields)
    (folder / f"evaluation{name}.json").write_text(found.to_json())


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
    groups = grouped(read_runs(runs))
    assert [group.label for group in groups] == ["MAML, inner.estimator = lvc", "MAML, inner.estimator = dice"]
    assert [[run.config.seed for run in group.runs] for group in groups] == [[1, 2], [1]]
    row = compare(runs).rows[0]
    assert (row.points[1].seed_means, row.points[1].mean.value, row.env_steps) == ((1.0, 3.0), 2.0, 1500)
    assert row.points[1].mean.low == 1
    assert row.points[1].mean.high == 3
    assert [row.label for row in compare(runs[:1] + runs[2:]).rows] == ["MAML"]


@pytest.mark.parametrize("fields", [{"seed": 5}, {"backtracks": 4}, {"shots": 2}], ids=["seed", "backtracks", "shots"])
def test_few_shot_evaluations_of_other_tasks_or_steps_are_not_compared(fields: dict[str, int], tmp_path: Path) -> None:
    runs = []
    for seed, own in ((1, {}), (2, fields)):
        runs.append(tmp_path / str(seed))
        runs[-1].mkdir()
        keys = {"data": "sinusoid", "seed": seed}
        (runs[-1] / "config.toml").write_text(tomli_w.dumps({"config": keys}))
        (runs[-1] / "metrics.jsonl").write_text('{"iteration": 0, "loss": 1.0, "seconds": 1.0}\n')
        found = evaluation_of(np.ones((TASKS, 3)), "error", **({"shots": 10} | own))
        (runs[-1] / "evaluation.json").write_text(found.to_json())
    with pytest.raises(
        InputError, match=r"compare only on the same tasks: .*the same --tasks, --shots, --seed and --ba"
    ):
        compare(runs)
    assert len(compare(runs[:1]).rows) == 1


def test_what_does_not_compare_is_refused_in_words(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "one", [0.0, 1.0]), write_run(tmp_path / "other", [0.0, 1.0], seed=2)
    with pytest.raises(InputError, match=r"one and .*twin are of the same configuration and seed, 1: leave one out"):
        compare([one, write_run(tmp_path / "twin", [0.0, 1.0])])
    with pytest.raises(InputError, match=r"only within an environment: .*horizon = 100, .*horizon = 50; give runs of"):
        compare([one, write_run(tmp_path / "short", [0.0, 1.0], horizon=50)])
    write_evaluation(other, [0.0, 1.0], tasks=np.array([[float(i), 1.0] for i in range(TASKS)]))
    with pytest.raises(InputError, match=r"compare only on the same tasks: .*one is evaluated on 8 tasks .* others, 8"):
        compare([one, other])
    (other / "evaluation.json").write_text(json.dumps({"tasks": [[0.0]], "returns": [[]], "split": "in"}))
    said = r"other/evaluation\.json does not hold an evaluation: return is not a number for each of its tasks, steps"
    with pytest.raises(InputError, match=said):
        compare([one, other])
    write_evaluation(other, [0.0, 1.0], tasks=None)
    with pytest.raises(InputError, match="tasks is not a number for each of its tasks, numbers"):
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


def test_a_gap_that_may_be_nothing_may_be_anything(tmp_path: Path) -> None:
    maml = write_run(tmp_path / "maml", [-1.0, 0.0], spread=5.0)
    runs = [maml, write_run(tmp_path / "oracle", [0.0], method="oracle", spread=-5.0)]
    assert compare(runs).rows[0].points[1].gap_closed == pytest.approx((1, -np.inf, np.inf))
    write_evaluation(maml, [0.0, 3.0])
    found = compare(runs)
    assert found.rows[0].points[1].gap_closed is None  # this oracle is no better than where it starts
    assert found.rows[0].seeds == (1,)
    assert found.published is not None
    assert found.published.oracle == (-2.29,)


def test_other_parameters_are_left_out_but_of_a_policy_that_is_not_trained(tmp_path: Path) -> None:
    runs = four(tmp_path)
    for run in runs[:3]:
        write_evaluation(run, [0.0], which="best")
    groups = grouped(read_runs(runs))
    assert [row.label for row in comparisons(groups, "best")[0].rows] == ["MAML", "pretrained", "oracle", "random"]
    write_evaluation(runs[1], [0.0])
    groups = grouped(read_runs(runs))
    assert [row.label for row in comparisons(groups, "best")[0].rows] == ["MAML", "oracle", "random"]
    assert [row.label for row in comparisons(groups)[0].rows] == ["pretrained", "random"]
    write_evaluation(runs[1], [0.0], split="out")
    assert [row.label for row in compare(runs).rows] == ["random"]


def test_seeds_with_more_steps_than_others_are_cut_to_what_all_have(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", [1.0, 2.0, 9.0]), write_run(tmp_path / "b", [3.0, 4.0], seed=2)]
    assert compare(runs).rows[0].values.shape == (2, TASKS, 2)
    assert [point.mean.value for point in compare(runs).rows[0].points] == [2, 3]


def test_the_middle_half_and_the_mean_differ(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.0])
    values = [-100.0, -50.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    two_episodes = evaluation_of([[[value - 1, value + 1]] for value in values])
    (run / "evaluation.json").write_text(two_episodes.to_json())
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


def write_few_shot(folder: Path, errors: list[float], seed: int = 1, measure: str = "error", **keys: Any) -> Path:
    """A few-shot run folder whose evaluation has these errors of each of 8 tasks after 0, 1, ... steps."""
    folder.mkdir()
    config = {"data": "sinusoid", "seed": seed, "log_every": 1} | keys
    (folder / "config.toml").write_text(tomli_w.dumps({"config": config}))
    trained = keys.get("method") != "random"
    rows = [{"iteration": i, "loss": 1.0, "seconds": 2.0} for i in range(3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * trained))
    found = evaluation_of([errors] * TASKS, measure, shots=5, iteration=3)
    (folder / "evaluation.json").write_text(found.to_json())
    return folder


def test_few_shot_seeds_are_one_group_with_intervals_over_seeds_and_tasks(tmp_path: Path) -> None:
    runs = [write_few_shot(tmp_path / f"s{seed}", [4.0, float(seed)], seed) for seed in (1, 2)]
    runs.append(write_few_shot(tmp_path / "random", [4.0, 4.0], method="random"))
    found = compare(runs)
    maml, random = found.rows
    assert (found.subject, found.measure, found.tasks, found.task_numbers) == ("sinusoid", "error", TASKS, None)
    assert (maml.label, maml.seeds, maml.iterations, maml.seconds) == ("MAML", (1, 2), 3, 6)
    assert (maml.points[1].mean, maml.points[1].seed_means) == (Interval(1.5, 1, 2), (1, 2))
    assert (maml.points[1].median, maml.points[1].trimmed_mean) == (1.5, 1.5)
    assert random.points[1].mean == Interval(4, 4, 4)
    assert found.published is not None
    assert found.published.of("maml")[1] == 0.67


def test_a_task_that_diverged_carries_the_mean_away_and_nothing_else(tmp_path: Path) -> None:
    run = write_few_shot(tmp_path / "run", [1.0, 0.5])
    values = np.tile([1.0, 0.5], (40, 1))
    values[0, 1] = np.inf
    (run / "evaluation.json").write_text(evaluation_of(values, "error", shots=5).to_json())
    (row,) = compare([run]).rows
    assert row.diverged == 1 / 40
    assert (row.points[1].mean.value, row.points[1].mean.high) == (np.inf, np.inf)
    assert row.points[1].mean.low in (0.5, np.inf)
    assert (row.points[1].trimmed_mean, row.points[1].median, row.points[1].iqm) == (0.5, 0.5, (0.5, 0.5, 0.5))


def test_few_shot_results_of_other_data_or_shots_are_refused_in_words(tmp_path: Path) -> None:
    one, other = write_few_shot(tmp_path / "one", [1.0]), write_few_shot(tmp_path / "other", [1.0], 2)
    with pytest.raises(InputError, match=r"errors compare only within the same data: .*one is of data = 'sinusoid'"):
        compare([one, write_few_shot(tmp_path / "images", [1.0], data="omniglot")])
    (other / "evaluation.json").write_text(evaluation_of([[1.0]] * TASKS, "error", shots=7).to_json())
    said = r"one is evaluated on 8 tasks of 5 shots .* other on 8 tasks of 7 shots .*; evaluate both with .* --shots"
    with pytest.raises(InputError, match=said.replace(" other", " .*other")):
        compare([one, other])


def test_every_measure_that_all_have_is_compared(tmp_path: Path) -> None:
    runs = [write_few_shot(tmp_path / f"s{seed}", [0.5], seed, "accuracy", data="omniglot") for seed in (1, 2)]
    assert [found.measure for found in comparisons(grouped(read_runs(runs)))] == ["accuracy"]
    for run in runs:
        found = evaluation_of([[0.5]] * TASKS, "accuracy", shots=1)
        found.values["accuracy_one_by_one"] = np.full((TASKS, 1), 0.25)
        (run / "evaluation.json").write_text(found.to_json())
    both = comparisons(grouped(read_runs(runs)))
    assert [(found.measure, found.rows[0].points[0].mean.value) for found in both] == [
        ("accuracy", 0.5), ("accuracy_one_by_one", 0.25)
    ]  # fmt: skip


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
