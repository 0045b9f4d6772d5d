"""Intervals hold the truth as often as they say: skewed values, and visitors who come again."""

from __future__ import annotations

import numpy as np
import pytest

from rolecall.pipelines.evaluation.counterfactual.intervals import mean_by_cluster, standard_error

ROUNDS = 2000


def covered(values: np.ndarray, cluster: np.ndarray, truth: float) -> float:
    """Share of rounds [rounds, n] whose interval holds the truth."""
    intervals = [mean_by_cluster(row, cluster) for row in values]
    return float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


def test_skewed_values_are_covered_on_both_sides() -> None:
    """Rare rewards with weights: 95% intervals of the plain kind miss far more often above than below."""
    random = np.random.default_rng(5)
    values = random.exponential(1.0, (ROUNDS, 60)) * (random.random((ROUNDS, 60)) < 0.5)
    cluster, intervals = np.arange(60), [mean_by_cluster(row, np.arange(60)) for row in values]
    above = np.mean([interval.high < 0.5 for interval in intervals])
    below = np.mean([interval.low > 0.5 for interval in intervals])
    assert covered(values, cluster, 0.5) == pytest.approx(0.95, abs=0.02)
    assert above == pytest.approx(0.025, abs=0.02)
    assert below == pytest.approx(0.025, abs=0.02)


def test_visits_of_one_visitor_count_as_one_observation() -> None:
    random = np.random.default_rng(6)
    cluster = np.repeat(np.arange(50), 8)
    values = np.repeat(random.normal(size=(ROUNDS, 50)), 8, axis=1) + 0.1 * random.normal(size=(ROUNDS, 400))
    assert covered(values, cluster, 0.0) == pytest.approx(0.95, abs=0.02)
    assert covered(values, np.arange(400), 0.0) < 0.6


def test_visitors_with_many_visits_weigh_more_and_are_still_covered() -> None:
    random = np.random.default_rng(7)
    sizes = 1 + np.arange(60) % 5
    cluster = np.repeat(np.arange(60), sizes)
    effect = random.normal(size=(ROUNDS, 60)) + 0.2 * sizes
    truth = float((0.2 * sizes * sizes).sum() / sizes.sum())
    assert covered(effect[:, cluster], cluster, truth) == pytest.approx(0.95, abs=0.025)


def test_symmetric_values_give_students_interval() -> None:
    values = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    interval = mean_by_cluster(values, np.arange(5))
    half = 2.7764451 * values.std(ddof=1) / np.sqrt(5)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.0, -half, half))
    assert standard_error(values, np.arange(5)) == pytest.approx(values.std(ddof=1) / np.sqrt(5))


def test_one_visitor_says_nothing_of_others() -> None:
    interval = mean_by_cluster(np.array([1.0, 2.0]), np.zeros(2, np.int64))
    assert interval.mean == 1.5
    assert np.isnan([interval.low, interval.high, standard_error(np.ones(2), np.zeros(2, np.int64))]).all()


def test_values_that_are_all_equal_have_no_spread() -> None:
    interval = mean_by_cluster(np.full(9, 0.25), np.arange(9))
    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)
