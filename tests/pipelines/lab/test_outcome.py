"""Figures of a simulation: ratios with intervals, and how evenly exposure is spread."""

from __future__ import annotations

import numpy as np
import pytest

from rolecall.pipelines.lab.outcome import COUNTED, Outcome, compare, gini, mean_interval, pool, ratio_interval
from rolecall.platform.errors import InputError

RANDOM = np.random.default_rng(5)


def outcome(arm: str, applications: np.ndarray, visits: np.ndarray) -> Outcome:
    counts = {name: np.zeros(len(visits), np.int64) for name in COUNTED}
    counts |= {"applications": applications, "visits": visits}
    return Outcome(arm=arm, counts=counts, daily=np.zeros(1, np.int64), exposure=np.array([1, 0]))


def test_an_arm_against_itself_is_one_without_doubt() -> None:
    applications = RANDOM.poisson(1.5, 200)
    ratio = ratio_interval(applications, applications, rounds=200)
    assert (ratio.low, ratio.mean, ratio.high) == (1.0, 1.0, 1.0)


def test_pairs_make_the_interval_narrower_than_independent_candidates_would() -> None:
    theirs = RANDOM.poisson(RANDOM.lognormal(0, 1, 400))
    ours = theirs + RANDOM.binomial(1, 0.3, 400)
    paired = ratio_interval(ours, theirs, rounds=2000)
    shuffled = ratio_interval(ours, RANDOM.permutation(theirs), rounds=2000)
    assert paired.high - paired.low < 0.5 * (shuffled.high - shuffled.low)


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        eager = random.lognormal(0, 0.8, 300)
        ratio = ratio_interval(random.poisson(1.5 * eager), random.poisson(eager), rounds=400, seed=seed)
        held += ratio.low <= 1.5 <= ratio.high
    assert 88 <= held <= 100


def test_nothing_to_divide_by_is_infinite_and_not_an_error() -> None:
    ratio = ratio_interval(np.array([1, 2, 1]), np.array([0, 0, 0]), rounds=100)
    assert ratio.low == ratio.mean == np.inf


def test_different_candidates_are_refused() -> None:
    with pytest.raises(InputError, match="same candidates"):
        ratio_interval(np.ones(3), np.ones(4))


def test_seeds_are_pooled_and_candidates_who_never_came_left_out() -> None:
    ours = [outcome("ours", np.array([2, 0, 4]), np.array([1, 0, 3])) for _ in range(2)]
    theirs = [outcome("theirs", np.array([1, 0, 2]), np.array([1, 0, 3])) for _ in range(2)]
    outcomes = list(map(list, zip(ours, theirs, strict=True)))
    assert len(pool(outcomes)["ours"]["visits"]) == 6
    ratio = compare(outcomes, ours="ours")["theirs"]
    assert (ratio.mean, ratio.count) == (2.0, 4)


def test_gini_is_zero_for_equal_shares_and_near_one_for_a_single_winner() -> None:
    assert gini(np.full(50, 3)) == pytest.approx(0.0)
    assert gini(np.eye(1, 200)[0]) == pytest.approx(1 - 1 / 200)
    assert gini(np.zeros(5)) == 0.0


def test_a_mean_lies_inside_its_interval() -> None:
    values = RANDOM.poisson(0.8, 150)
    interval = mean_interval(values, rounds=500)
    assert interval.low < interval.mean < interval.high
    assert interval.mean == values.mean()
