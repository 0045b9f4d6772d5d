"""The logging policy's draw: exact propensities, shown order, closed jobs."""

from __future__ import annotations

import itertools

import numpy as np

from rolecall.pipelines.market.choice import sigmoid
from rolecall.pipelines.market.policy import draw_slots


def test_jobs_are_drawn_as_often_as_their_propensity_says() -> None:
    score = np.log(np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32))
    rounds = 40_000
    shown, propensity = draw_slots(
        np.tile(score, (rounds, 1)),
        np.ones((rounds, 4), dtype=bool),
        2,
        np.random.default_rng(1).gumbel(size=(rounds, 4)),
    )
    for first, second in itertools.permutations(range(4), 2):
        rows = (shown[:, 0] == first) & (shown[:, 1] == second)
        joint = propensity[rows].prod(axis=1)
        assert np.ptp(joint) < 1e-6
        assert abs(rows.mean() - joint[0]) < 0.01


def test_propensities_of_one_slot_follow_the_softmax_without_what_is_above() -> None:
    score = np.log(np.array([[1.0, 2.0, 5.0]], dtype=np.float32))
    shown, propensity = draw_slots(score, np.ones((1, 3), dtype=bool), 3, np.random.default_rng(2).gumbel(size=(1, 3)))
    left = np.array([1.0, 2.0, 5.0])
    for job, given in zip(shown[0], propensity[0], strict=True):
        assert abs(given - left[job] / left.sum()) < 1e-6
        left[job] = 0.0


def test_closed_jobs_come_last_with_propensity_zero() -> None:
    open_jobs = np.array([[True, False, True, False]])
    shown, propensity = draw_slots(
        np.zeros((1, 4), dtype=np.float32), open_jobs, 4, np.random.default_rng(3).gumbel(size=(1, 4))
    )
    assert set(shown[0, :2].tolist()) == {0, 2}
    assert (propensity[0, 2:] == 0).all()


def test_no_request_draws_nothing() -> None:
    shown, propensity = draw_slots(np.zeros((0, 5), np.float32), np.ones((0, 5), bool), 2, np.zeros((0, 5)))
    assert shown.shape == propensity.shape == (0, 2)


def test_sigmoid_is_symmetric_and_monotone() -> None:
    x = np.linspace(-8, 8, 33, dtype=np.float32)
    np.testing.assert_allclose(sigmoid(x) + sigmoid(-x), 1.0, rtol=1e-6)
    assert (np.diff(sigmoid(x)) > 0).all()
