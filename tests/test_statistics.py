"""Interquartile mean by hand, and intervals that cover what they should."""

import numpy as np
import pytest

from maml_rl.statistics import bootstrap, bootstrap_difference, interquartile_mean


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
