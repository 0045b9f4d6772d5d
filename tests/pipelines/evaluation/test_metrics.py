"""Metrics against slow and obvious ones, and against scikit-learn where it has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from rolecall.pipelines.evaluation.metrics import (
    METRICS,
    applications_at,
    auc,
    average_precision,
    best_rows,
    hit_at,
    ndcg_at,
    ranks_of,
    recall_at,
    reciprocal_rank,
)

SCORES = st.lists(st.integers(0, 6) | st.just(-1), min_size=1, max_size=50)
"""Few different scores, so many ties; -1 stands for not ranked."""


def scored(values: list[int]) -> np.ndarray:
    return np.where(np.array(values) < 0, -np.inf, np.array(values, np.float64))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(4)


def test_a_rank_counts_jobs_above_and_half_of_the_others_that_tie(random: np.random.Generator) -> None:
    for size in [4] * 50 + [60] * 5:
        scores = random.integers(0, 6, 90).astype(np.float64)
        targets = random.choice(90, size, replace=False)
        expected = [1 + (scores > scores[t]).sum() + ((scores == scores[t]).sum() - 1) / 2 for t in targets]
        assert ranks_of(scores, targets).tolist() == expected


def test_a_job_that_was_not_ranked_is_missed_and_does_not_stand_above_others() -> None:
    scores = np.array([-np.inf, 2.0, 1.0, -np.inf])
    ranks = ranks_of(scores, np.array([0, 2]))
    assert ranks.tolist() == [np.inf, 2.0]
    assert (recall_at(ranks, 2), hit_at(ranks, 1), reciprocal_rank(ranks)) == (0.5, 0.0, 0.5)


def test_ndcg_is_scikit_learns_where_nothing_ties(random: np.random.Generator) -> None:
    for _ in range(30):
        scores, gains = random.permutation(25).astype(np.float64), np.zeros(25)
        relevant = random.choice(25, 5, replace=False)
        gains[relevant] = random.integers(1, 4, 5)
        expected = ndcg_score([2**gains - 1], [scores], k=10)
        assert ndcg_at(ranks_of(scores, relevant), gains[relevant], 10) == pytest.approx(expected)


def test_auc_is_scikit_learns_with_ties(random: np.random.Generator) -> None:
    for _ in range(30):
        scores, positive = random.integers(0, 5, 40).astype(np.float64), random.random(40) < 0.4
        assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_average_precision_is_scikit_learns_where_nothing_ties(random: np.random.Generator) -> None:
    for _ in range(30):
        scores, positive = random.permutation(40).astype(np.float64), random.random(40) < 0.2
        expected = average_precision_score(positive, scores) if positive.any() else float("nan")
        ranks = ranks_of(scores, np.flatnonzero(positive))
        assert average_precision(ranks) == pytest.approx(expected, nan_ok=True)


@given(values=SCORES, data=st.data())
@settings(deadline=None)
def test_no_metric_of_a_share_leaves_zero_to_one_whatever_ties(values: list[int], data: st.DataObject) -> None:
    places = st.lists(st.integers(0, len(values) - 1), min_size=1, unique=True)
    relevant = np.array(data.draw(places))
    gains = np.array(data.draw(st.lists(st.integers(1, 4), min_size=len(relevant), max_size=len(relevant))), float)
    ranks = ranks_of(scored(values), relevant)
    for name, metric in METRICS.items():
        assert 0 <= metric(ranks, gains) <= (len(relevant) if name.startswith("applications") else 1) + 1e-12
    assert average_precision(ranks, 10) <= average_precision(ranks) + 1e-12


@given(values=SCORES, seed=st.integers(0, 99))
@settings(deadline=None)
def test_neither_ranks_nor_lists_depend_on_the_order_of_the_catalogue(values: list[int], seed: int) -> None:
    """Nor on the last bits of a score, where a tolerance says that they mean nothing."""
    random = np.random.default_rng(seed)
    scores, ids = scored(values), np.arange(len(values))
    order = random.permutation(len(values))
    moved = scores[order] + random.uniform(-1e-9, 1e-9, len(values))
    wanted = random.permutation(len(values))[:5]
    places = np.argsort(order)[wanted]
    assert ranks_of(moved, places, tolerance=1e-6).tolist() == ranks_of(scores, wanted).tolist()
    back = np.argsort(order)  # a catalogue is kept in order of id, whatever order it came in
    first = best_rows(moved[back], 7, tolerance=1e-6)
    assert ids[first].tolist() == ids[best_rows(scores, 7)].tolist()


@given(values=SCORES, count=st.integers(1, 60))
@settings(deadline=None)
def test_the_best_are_those_of_a_stable_sort(values: list[int], count: int) -> None:
    ranked = [place for place in range(len(values)) if values[place] >= 0]
    expected = sorted(ranked, key=lambda place: (-values[place], place))[:count]
    assert best_rows(scored(values), count).tolist() == expected


def test_a_constant_score_gains_the_mean_rank_and_nothing_by_its_order() -> None:
    ranks = ranks_of(np.zeros(21), np.array([0, 20]))
    assert ranks.tolist() == [11, 11]
    assert average_precision(ranks) == pytest.approx(1.5 / 11)
    assert average_precision(ranks_of(np.zeros(2), np.array([0, 1]))) == 1


def test_applications_are_counted_and_views_are_not() -> None:
    ranks, labels = np.array([1.0, 3.0, 10.0, 10.5]), np.array([3.0, 1.0, 4.0, 3.0])
    assert applications_at(ranks, labels, 10) == 2
    assert np.isnan(applications_at(np.zeros(0), np.zeros(0), 10))


def test_what_does_not_apply_is_nan_and_not_zero() -> None:
    none = np.zeros(0)
    assert np.isnan([recall_at(none, 5), hit_at(none, 5), reciprocal_rank(none), ndcg_at(none, none, 5)]).all()
    assert np.isnan(auc(np.array([1.0, 2.0]), np.array([True, True])))
