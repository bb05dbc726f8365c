"""Interquartile mean by hand, and intervals that cover what they should."""

import numpy as np
import pytest

from maml_rl.core.statistics import (
    Interval,
    bootstrap,
    bootstrap_difference,
    half_width,
    improvement,
    in_words,
    interquartile_mean,
    interval,
    mean,
    overall,
    ratio,
    resample,
    strata,
)


def test_the_middle_half_by_hand() -> None:
    assert interquartile_mean(np.array([100.0, 1, 2, 3, -50, 4, 5, 6])) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert interquartile_mean(np.array([1.0, 2, 6])) == 3
    np.testing.assert_allclose(interquartile_mean(np.array([[4.0, 0, 1, 9], [1, 1, 1, 7]])), [2.5, 1])


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Tasks differ in difficulty, and all seeds meet the same ones: drawn anew inside each seed it covers half."""
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        values = 3 + random.normal(size=(1, 40)) + 0.3 * random.normal(size=(5, 1)) + 0.5 * random.normal(size=(5, 40))
        value, low, high = bootstrap(values, resamples=200)
        assert low < value < high
        inside += low < 3 < high
    assert 175 <= inside <= 200


def test_tasks_that_all_seeds_share_are_drawn_for_all_of_them() -> None:
    tasks = np.random.default_rng(3).normal(size=(1, 40))
    one, five = bootstrap(tasks), bootstrap(tasks.repeat(5, 0))
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.1)


def test_seeds_that_differ_widen_it() -> None:
    random = np.random.default_rng(1)
    tasks = random.normal(size=(5, 40))
    alike, apart = bootstrap(tasks), bootstrap(tasks + 5 * np.arange(5)[:, None])
    assert apart.high - apart.low > 5 * (alike.high - alike.low)


def test_one_seed_has_an_interval_over_tasks() -> None:
    value, low, high = bootstrap(np.arange(40.0)[None])
    assert value == 19.5
    assert 12 < low < 19.5 < high < 27


def test_the_same_numbers_every_time() -> None:
    values = np.random.default_rng(2).normal(size=(3, 10))
    assert bootstrap(values) == bootstrap(values)


def test_a_difference_on_shared_tasks_does_not_have_their_spread() -> None:
    random = np.random.default_rng(4)
    tasks = 10 * random.normal(size=(1, 40))
    first, second = (tasks + shift + 0.1 * random.normal(size=(5, 40)) for shift in (1.0, 0.0))
    value, low, high = bootstrap_difference(first, second)
    assert 0.8 < low < value < high < 1.2
    assert bootstrap(first).high - bootstrap(first).low > 2


def test_a_difference_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        tasks = random.normal(size=(1, 40))
        one, two = (tasks + 0.3 * random.normal(size=(5, 1)) + random.normal(size=(5, 40)) for _ in range(2))
        _, low, high = bootstrap_difference(one, two, resamples=200)
        inside += low < 0 < high
    assert 170 <= inside <= 200


def test_a_resample_meets_the_same_tasks_in_every_sample_and_seeds_of_its_own() -> None:
    """Returns that are the task's number in one sample and the seed's in the other show what was drawn."""
    tasks = np.arange(7.0)[None].repeat(3, 0)
    seeds = np.arange(3.0)[:, None].repeat(7, 1)
    of_tasks, again, of_seeds, others = resample([tasks, tasks[:2], seeds, seeds], mean, resamples=300)
    np.testing.assert_allclose(of_tasks, again)
    assert of_tasks.std() == pytest.approx(2 / 7**0.5, rel=0.15)  # the numbers 0 to 6 have a standard deviation of 2
    assert of_seeds.std() == pytest.approx((2 / 3) ** 0.5 / 3**0.5, rel=0.15)
    assert abs(np.corrcoef(of_seeds, others)[0, 1]) < 0.2


def test_a_ratio_covers_the_truth_and_drawing_tasks_anew_is_wide() -> None:
    """(MAML - random) / (oracle - random), all three on tasks that differ far more than the methods' own noise."""
    random = np.random.default_rng(6)
    inside, shared, anew = 0, [], []
    for _ in range(150):
        level = random.normal(size=(1, 30, 1)) * 8
        low, middle, high = (
            at + level + 0.2 * random.normal(size=(4, 1, 1)) + 0.5 * random.normal(size=(4, 30, 1))
            for at in (0.0, 6.0, 10.0)
        )
        over, under = (float(overall(each - low, mean)[0]) for each in (middle, high))
        together = [each[:, 0] for each in resample([low, middle, high], mean, resamples=200)]
        apart = [resample([each], mean, 200, seed)[0][:, 0] for seed, each in enumerate((low, middle, high))]
        for drawn, widths in ((together, shared), (apart, anew)):
            found = ratio(over, under, drawn[1] - drawn[0], drawn[2] - drawn[0])
            widths.append(found.high - found.low)
            inside += drawn is together and found.low < 0.6 < found.high
    assert 128 <= inside <= 150
    assert np.median(shared) < 0.1
    assert np.median(anew) > 4 * np.median(shared)


def test_a_mean_over_tasks_drawn_anew_for_each_seed_covers_too_little() -> None:
    random = np.random.default_rng(7)
    inside = {"shared": 0, "anew": 0}
    for _ in range(150):
        values = random.normal(size=(1, 30)) + 0.2 * random.normal(size=(4, 30))
        each = [resample([row[None]], mean, 200, seed)[0] for seed, row in enumerate(values)]
        wrong = interval(values.mean(), np.mean(each, axis=0))
        right = bootstrap(values, 200, average=mean)
        inside["shared"] += right.low < 0 < right.high
        inside["anew"] += wrong.low < 0 < wrong.high
    assert inside["shared"] >= 132
    assert inside["anew"] < 115


def test_the_percentile_interval_by_hand() -> None:
    assert interval(3, np.arange(1001.0)) == Interval(3.0, 25.0, 975.0)


def test_a_ratio_by_hand() -> None:
    under = np.linspace(1, 2, 1001)
    assert ratio(6, 2, 3 * under, under) == pytest.approx((3, 3, 3))
    assert ratio(6, 2, 3 * under, -under) == pytest.approx((3, -3, -3))
    touching = np.linspace(-0.025, 0.975, 1001)  # 2.5 % of it are below 0
    assert ratio(1, 0.5, under, touching + 1e-6) != Interval(2.0, -np.inf, np.inf)
    assert ratio(1, 0.5, under, touching - 1e-6) == Interval(2.0, -np.inf, np.inf)
    nothing = ratio(1, 0, under, under)
    assert np.isnan(nothing.value)
    assert nothing[1:] == (-np.inf, np.inf)


def test_resamples_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(3, 7, 2))
    whole = resample([values, 2 * values[:2]], mean, resamples=50)
    monkeypatch.setattr("maml_rl.core.statistics.AT_ONCE", 100)
    for part, at_once in zip(resample([values, 2 * values[:2]], mean, resamples=50), whole, strict=True):
        np.testing.assert_array_equal(part, at_once)


def test_an_interval_may_end_at_infinity() -> None:
    drawn = np.arange(1000.0)
    drawn[-100:] = np.inf
    assert interval(3.0, drawn) == Interval(3.0, 24.0, np.inf)
    assert interval(np.inf, np.full(10, np.inf)) == Interval(np.inf, np.inf, np.inf)


def test_equal_tasks_are_a_stratum_and_all_others_one() -> None:
    tasks = np.array([[1.0], [-1.0], [1.0], [0.5], [-1.0], [0.25]])
    of = strata(tasks, 6)
    assert [of.tolist().index(x) for x in of] == [0, 1, 0, 3, 1, 3]
    assert strata(None, 3).tolist() == strata(np.arange(3.0)[:, None], 3).tolist() == [0, 0, 0]


def test_how_many_tasks_in_words() -> None:
    two = np.tile([[1.0], [-1.0]], (20, 1))
    assert in_words(two, 40) == "2 tasks, 20 adaptations each"
    assert in_words(two[:5], 5) == "2 tasks, about 2 adaptations each"
    assert in_words(np.ones((3, 1)), 3) == "1 task, 3 adaptations each"
    assert in_words(np.arange(40.0)[:, None], 40) == in_words(None, 40) == "40 tasks"
    assert in_words(None, 1) == "1 task"


def test_how_many_of_each_task_is_no_chance() -> None:
    """Two tasks, 20 adaptations each, of returns far apart: the interval is that within them."""
    random = np.random.default_rng(0)
    tasks = np.tile([1.0, -1.0], 20)
    values = 100 * tasks + random.normal(0, 1, (3, 40))
    of = strata(tasks[:, None], 40)
    (drawn,) = resample([values], mean, of=of)
    (blind,) = resample([values], mean)
    within = np.sqrt((values.mean(0)[tasks > 0].var() + values.mean(0)[tasks < 0].var()) / 2 / 40)
    assert within < drawn.std() < 3 * within + 0.2
    assert blind.std() > 10
    half = half_width(values[0], of)
    by_hand = 1.96 * np.sqrt(20 * values[0, tasks > 0].var(ddof=1) + 20 * values[0, tasks < 0].var(ddof=1)) / 40
    assert half == pytest.approx(by_hand)
    one = np.zeros(40, np.int64)
    assert half_width(values[0], one) == pytest.approx(1.96 * values[0].std(ddof=1) / 40**0.5)


def test_the_probability_of_improvement_by_hand() -> None:
    ours, theirs = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 5.0]])
    found = improvement(ours, theirs)
    assert found.value == pytest.approx((0 + 1 + 0.5 + 0.5) / 4)
    assert improvement(theirs, ours).value == pytest.approx(1 - found.value)
    assert improvement(ours + 10, theirs) == pytest.approx((1.0, 1.0, 1.0))


def test_the_probability_of_improvement_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of two normal samples that differ by 0.5 standard deviations it is 0.638."""
    random = np.random.default_rng(0)
    found = [improvement(random.normal(0.5, 1, (5, 40)), random.normal(0, 1, (5, 40)), seed=k) for k in range(60)]
    covered = sum(one.low <= 0.638 <= one.high for one in found)
    assert covered >= 52
    assert np.mean([one.value for one in found]) == pytest.approx(0.638, abs=0.02)


def test_a_run_that_is_better_everywhere_by_luck_of_its_seed_leaves_doubt() -> None:
    shift = np.array([[1.0], [-1.0], [1.0]])
    found = improvement(shift + np.zeros((3, 40)), np.zeros((3, 40)))
    assert found == pytest.approx((2 / 3, 0.0, 1.0), abs=1e-12)
