"""Metrics against slow and obvious ones, and against scikit-learn where it has them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from rolecall.pipelines.evaluation.metrics import auc, bootstrap, hit_at, ndcg_at, ranks_of, recall_at, reciprocal_rank


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


def test_what_does_not_apply_is_nan_and_not_zero() -> None:
    none = np.zeros(0)
    assert np.isnan([recall_at(none, 5), hit_at(none, 5), reciprocal_rank(none), ndcg_at(none, none, 5)]).all()
    assert np.isnan(auc(np.array([1.0, 2.0]), np.array([True, True])))


def test_the_interval_holds_the_mean_shrinks_with_targets_and_is_the_same_again(random: np.random.Generator) -> None:
    few, many = random.random(30), random.random(3000)
    narrow, wide = (bootstrap(values, rounds=500, seed=1) for values in (many, few))
    assert narrow.low < narrow.mean < narrow.high
    assert narrow.high - narrow.low < wide.high - wide.low
    assert bootstrap(many, rounds=500, seed=1) == narrow


def test_nan_values_are_left_out_and_none_left_is_nan() -> None:
    assert bootstrap(np.array([1.0, np.nan, 3.0]), rounds=100, seed=0).mean == 2
    assert bootstrap(np.array([np.nan]), rounds=100, seed=0).count == 0
