"""What lists do to a catalogue, as properties and against slow and obvious forms."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.features.job_vectors import JobVectors
from rolecall.pipelines.evaluation.exposure import (
    Popularity,
    Shown,
    catalogue_metrics,
    diversity,
    gini,
    novelty,
    popularity_lift,
    serendipity,
)

COUNTS = st.lists(st.integers(0, 50), min_size=1, max_size=40)
EVERY = Popularity(counts=np.array([9.0, 5.0, 1.0, 0.0, 0.0]), live=np.ones(5, np.bool_))
NONE = np.zeros(2, np.bool_)


def vectors(seed: int, rows: int) -> JobVectors:
    codes = np.random.default_rng(seed).integers(-127, 128, (rows, 16)).astype(np.int8)
    return JobVectors(codes, np.ones(rows, np.float32))


@given(counts=COUNTS)
@settings(deadline=None)
def test_gini_is_half_the_mean_difference_over_the_mean(counts: list[int]) -> None:
    values = np.array(counts, np.float64)
    if not values.sum():
        assert np.isnan(gini(values))
        return
    slow = np.abs(values[:, None] - values).mean() / 2 / values.mean()
    assert gini(values) == pytest.approx(slow, abs=1e-12)
    assert -1e-12 <= gini(values) <= (len(values) - 1) / len(values) + 1e-12


def test_gini_is_nothing_where_all_are_shown_alike_and_most_where_one_is_shown_alone() -> None:
    assert gini(np.full(7, 3.0)) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 8.0])) == pytest.approx(3 / 4)


@given(size=st.integers(2, 12), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_diversity_is_the_mean_cosine_distance_of_pairs(size: int, seed: int) -> None:
    held = vectors(seed, 20)
    rows = np.random.default_rng(seed).choice(20, size, replace=False)
    unit = held.rows(rows.astype(np.int32)).astype(np.float64)
    slow = np.mean([1 - unit[i] @ unit[j] for i, j in combinations(range(size), 2)])
    assert diversity(rows, held) == pytest.approx(slow, abs=1e-6)
    assert diversity(np.repeat(rows[:1], 4), held) == pytest.approx(0, abs=1e-6)


def test_the_rarer_a_job_the_more_novel_it_is() -> None:
    by_row = [novelty(np.array([row]), EVERY) for row in range(5)]
    assert by_row == sorted(by_row)
    assert by_row[0] == pytest.approx(np.log2(15 / 9))
    assert by_row[3] == by_row[2]  # nobody engaged counts as one who did


def test_a_list_drawn_like_the_catalogue_has_no_popularity_bias() -> None:
    assert popularity_lift(np.arange(5), EVERY) == pytest.approx(1)
    assert popularity_lift(np.array([0, 1]), EVERY) > 1 > popularity_lift(np.array([3, 4]), EVERY)


def test_what_is_right_because_it_is_popular_is_no_serendipity() -> None:
    best, rare = np.array([0, 1, 2]), np.array([3, 4, 2])
    right = np.ones(3, np.bool_)
    assert serendipity(best, right, EVERY) == 0
    assert serendipity(rare, right, EVERY) > 0
    assert serendipity(rare, ~right, EVERY) == 0


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_a_permutation_of_the_catalogue_changes_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    held = vectors(seed, 30)
    popularity = Popularity(counts=random.integers(0, 6, 30).astype(np.float64), live=random.random(30) < 0.9)
    lists = [random.choice(30, 12, replace=False) for _ in range(6)]
    flags = [random.random((2, 12)) < 0.3 for _ in lists]
    to = random.permutation(30)
    back = np.argsort(to)
    moved = Popularity(counts=popularity.counts[back], live=popularity.live[back])
    one, other = (
        catalogue_metrics(
            [
                Shown(rows=place[rows], relevant=flag[0], applied=flag[1], popularity=p)
                for rows, flag in zip(lists, flags, strict=True)
            ],
            JobVectors(codes, held.scales),
        )
        for place, p, codes in ((np.arange(30), popularity, held.codes), (to, moved, held.codes[back]))
    )
    assert other == pytest.approx(one, rel=1e-9, nan_ok=True)


def test_coverage_counts_what_could_be_shown_and_was() -> None:
    lists = [Shown(rows=np.array(rows), relevant=NONE, applied=NONE, popularity=EVERY) for rows in ([0, 1], [1, 2])]
    found = catalogue_metrics(lists, vectors(0, 5))
    assert found["coverage@10"] == pytest.approx(3 / 5)
    assert catalogue_metrics(lists, vectors(0, 5), k=1)["coverage@1"] == pytest.approx(2 / 5)


def test_without_lists_nothing_is_known() -> None:
    assert np.isnan(list(catalogue_metrics([], vectors(0, 1)).values())).all()
