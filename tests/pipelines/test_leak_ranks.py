"""Rank statistics within requests against their definitions, and the false alarms of the permutation null."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from rolecall.pipelines.leaks.ranks import association, auc_within, ranks_within, rejected, two_sided

sizes = st.lists(st.integers(1, 8), min_size=1, max_size=6)


def requests(sizes: list[int]) -> npt.NDArray[np.int64]:
    return np.repeat(np.arange(len(sizes)), sizes)


@given(sizes, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_ranks_are_those_of_each_request_alone(sizes: list[int], seed: int) -> None:
    of = requests(sizes)
    values = np.random.default_rng(seed).integers(0, 4, len(of)).astype(np.float64)
    expected = np.concatenate([rankdata(values[of == one]) for one in range(len(sizes))])
    np.testing.assert_array_equal(ranks_within(values, of), expected)
    values[values == 0] = np.nan
    np.testing.assert_array_equal(ranks_within(values, of), expected)


@given(sizes, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_the_area_is_scikit_learns_in_each_request(sizes: list[int], seed: int) -> None:
    of, random = requests(sizes), np.random.default_rng(seed)
    values, positive = random.integers(0, 4, len(of)), random.random(len(of)) < 0.4
    for one, area in enumerate(auc_within(ranks_within(values, of), positive, of)):
        own = of == one
        if positive[own].any() and not positive[own].all():
            assert area == pytest.approx(roc_auc_score(positive[own], values[own]))
        else:
            assert np.isnan(area)


def test_the_nulls_variance_is_that_of_all_orders() -> None:
    of, a, b = np.zeros(5, np.int64), np.array([1.0, 2, 3, 4, 5]), np.array([0.0, 0, 1, 0, 1])
    products = [np.dot(np.array(order) - 3, b - b.mean()) for order in itertools.permutations(a)]
    z = np.dot(a - 3, b - b.mean()) / np.std(products)
    assert association(a, b, of).p == pytest.approx(two_sided(z))


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Labels that know nothing of the order: p-values below each level in that share of draws."""
    random, of = np.random.default_rng(5), np.repeat(np.arange(40), 12)
    draws = 2000
    p = np.array(
        [association(random.random(len(of)), random.random(len(of)) < 0.1, of).p for _ in range(draws)], np.float64
    )
    for level in (0.05, 0.01):
        assert abs(np.mean(p < level) - level) < 4 * np.sqrt(level / draws)


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(1e-6, 0.5))
def test_holm_rejects_at_least_bonferroni_and_nothing_above_alpha(values: list[float], alpha: float) -> None:
    p = dict(enumerate(values))
    named = rejected(p, alpha)
    surely = alpha / max(len(p), 1) * (1 - 1e-12)  # what multiplying instead of dividing rounds
    assert {key for key in p if p[key] <= surely} <= set(named)
    assert all(p[key] <= alpha for key in named)
    assert [p[key] for key in named] == sorted(p[key] for key in named)
