"""Calibration against scikit-learn, and as properties: above all that a constant never passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from rolecall.pipelines.evaluation.calibration import calibration, logit, recalibration, reliability_bins


def drawn(seed: int, size: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and outcomes that come true with them."""
    random = np.random.default_rng(seed)
    predicted = random.beta(1, 6, size).clip(0.01, 0.99)
    return predicted, random.random(size) < predicted


def test_slope_and_intercept_are_scikit_learns_unpenalised_logistic_regression() -> None:
    for seed in range(3):
        predicted, outcomes = drawn(seed)
        odds = logit(predicted**1.3)
        fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds[:, None], outcomes)
        found = recalibration(predicted**1.3, outcomes)
        assert found.slope == pytest.approx(fitted.coef_[0, 0], rel=1e-4)
        assert found.intercept == pytest.approx(fitted.intercept_[0], rel=1e-4)


def test_what_comes_true_as_often_as_was_said_has_slope_one_and_hardly_an_error() -> None:
    inside = 0
    for seed in range(20):
        found = calibration(*drawn(seed))
        inside += found.slope_low <= 1 <= found.slope_high
        assert found.ece < 0.03
        assert found.ece < found.constant_ece
        assert found.informative
    assert inside >= 17


@given(factor=st.floats(0.3, 3), shift=st.floats(-1, 1))
@settings(deadline=None, max_examples=30)
def test_stretching_the_log_odds_divides_the_slope(factor: float, shift: float) -> None:
    predicted, outcomes = drawn(1, 600)
    stretched = 1 / (1 + np.exp(-(factor * logit(predicted) + shift)))
    inner = (stretched > 2e-4) & (stretched < 1 - 2e-4)
    plain, other = recalibration(predicted[inner], outcomes[inner]), recalibration(stretched[inner], outcomes[inner])
    assert other.slope == pytest.approx(plain.slope / factor, rel=1e-5)


@given(
    value=st.floats(0, 1),
    outcomes=st.lists(st.booleans(), min_size=1, max_size=60),
)
@settings(deadline=None)
def test_a_constant_has_no_slope_and_is_never_informative(value: float, outcomes: list[bool]) -> None:
    found = calibration(np.full(len(outcomes), value), np.array(outcomes))
    assert np.isnan([found.slope, found.slope_low, found.slope_high]).all()
    assert found.constant_ece == pytest.approx(0, abs=1e-12)
    assert found.resolution == pytest.approx(0, abs=1e-12)
    assert not found.informative
    assert len(found.bins) == 1


@given(data=st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=2, max_size=80))
@settings(deadline=None)
def test_reliability_minus_resolution_plus_uncertainty_is_briers_score(data: list[tuple[float, bool]]) -> None:
    predicted, outcomes = np.array([p for p, _ in data]), np.array([o for _, o in data])
    found = calibration(predicted, outcomes, bins=1000)
    brier = np.mean((predicted - outcomes) ** 2)
    assert found.reliability - found.resolution + found.uncertainty == pytest.approx(brier, abs=1e-12)


def test_bins_of_distinct_probabilities_are_scikit_learns_quantile_bins() -> None:
    predicted, outcomes = drawn(5)
    kept = np.unique(predicted, return_index=True)[1][:1500]
    observed, said = calibration_curve(outcomes[kept], predicted[kept], n_bins=10, strategy="quantile")
    ours = reliability_bins(predicted[kept], outcomes[kept], 10)
    assert [one.predicted for one in ours] == pytest.approx(said.tolist(), abs=1e-9)
    assert [one.observed for one in ours] == pytest.approx(observed.tolist(), abs=1e-9)
    assert {one.count for one in ours} == {150}


def test_the_order_of_impressions_changes_nothing() -> None:
    predicted, outcomes = drawn(2, 500)
    predicted = predicted.round(2)
    order = np.random.default_rng(0).permutation(500)
    one, other = calibration(predicted, outcomes), calibration(predicted[order], outcomes[order])
    assert other.ece == pytest.approx(one.ece, rel=1e-9)
    assert other.slope == pytest.approx(one.slope, rel=1e-9)
    assert [b.count for b in other.bins] == [b.count for b in one.bins]


def test_outcomes_that_move_together_widen_the_slopes_interval() -> None:
    predicted, outcomes = drawn(3, 400)
    copies, groups = np.tile(predicted, 5), np.tile(np.arange(400), 5)
    alone, grouped = (recalibration(copies, np.tile(outcomes, 5), groups=g) for g in (None, groups))
    assert grouped.slope_error == pytest.approx(alone.slope_error * np.sqrt(5), rel=1e-6)
    assert grouped.slope_error == pytest.approx(recalibration(predicted, outcomes).slope_error, rel=1e-6)


@pytest.mark.parametrize("outcomes", [[True, True, True], [False, False, False], [False, True, True]])
def test_where_no_line_exists_none_is_made_up(outcomes: list[bool]) -> None:
    found = calibration(np.array([0.1, 0.4, 0.6]), np.array(outcomes))
    assert np.isnan([found.slope, found.intercept]).all()
    assert found.to_dict()["slope"] is None


def test_of_nothing_everything_is_unknown() -> None:
    found = calibration(np.zeros(0), np.zeros(0, np.bool_))
    assert np.isnan([found.ece, found.slope, found.uncertainty]).all()
    assert found.bins == ()
    assert not found.informative
