"""A log that cannot answer is said to: no exploration, no overlap, few effective visits, one weight that decides."""

from __future__ import annotations

import numpy as np
import pytest

from rolecall.pipelines.evaluation.counterfactual import Logged, ips, sequential
from rolecall.pipelines.evaluation.counterfactual.support import FEW, Support

VISITS = 4000


def judged(propensity: np.ndarray, target: np.ndarray, reward: np.ndarray | None = None) -> Support:
    reward = np.ones(len(propensity)) if reward is None else reward
    log = Logged(propensity=propensity[:, None], reward=reward[:, None], cluster=np.arange(len(propensity)))
    return ips(sequential(log, target[:, None])).support


def drawn(logging: np.ndarray, target: np.ndarray, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Propensities of the logged actions and the target's probabilities of them, actions drawn by `logging`."""
    action = np.random.default_rng(seed).choice(len(logging), VISITS, p=logging)
    return logging[action], target[action]


def test_good_overlap_raises_no_warning() -> None:
    support = judged(*drawn(np.array([0.3, 0.3, 0.4]), np.array([0.2, 0.5, 0.3])))
    assert support.warnings == ()
    assert support.supported.low < 1 < support.supported.high
    assert 0.5 * VISITS < support.effective < VISITS
    assert support.lowest == 0.3


def test_a_log_without_exploration_says_nothing_of_others() -> None:
    support = judged(np.ones(VISITS), (np.arange(VISITS) % 2).astype(np.float64))
    assert any("explored nothing" in warning for warning in support.warnings)


def test_what_was_never_drawn_is_missed_and_named() -> None:
    """The target shows an action half the time that the log never tried."""
    support = judged(*drawn(np.array([0.5, 0.5, 0.0]), np.array([0.3, 0.2, 0.5])))
    assert support.supported.mean == pytest.approx(0.5, abs=0.05)
    assert any("never drawn" in warning for warning in support.warnings)


def test_wrong_propensities_are_noticed() -> None:
    propensity, target = drawn(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    assert any("propensities are wrong" in warning for warning in judged(propensity / 2, target).warnings)


def test_few_effective_visits_are_warned_of_and_counted_by_kish() -> None:
    support = judged(*drawn(np.array([0.999, 0.001]), np.array([0.01, 0.99])))
    assert support.effective < FEW
    assert any("effective sample size" in warning for warning in support.warnings)
    even = judged(np.full(200, 0.5), np.full(200, 0.5))
    assert even.effective == pytest.approx(200)
    half = judged(np.full(200, 0.5), np.repeat([0.5, 0.0], 100))
    assert half.effective == pytest.approx(100)


def test_one_visit_that_decides_is_named() -> None:
    propensity, target = np.full(1000, 0.5), np.full(1000, 0.5)
    propensity[0] = 0.0005
    support = judged(propensity, target)
    assert support.largest_weight == pytest.approx(1000)
    assert support.moved == pytest.approx(1, abs=0.1)
    assert any("leaving out one visit" in warning for warning in support.warnings)
