"""The logging policy: exact propensities, shown order, closed jobs, and a shelf that is the same for everybody."""

from __future__ import annotations

import itertools

import numpy as np

from rolecall.pipelines.market import Memory, World
from rolecall.pipelines.market.config import DAY_US
from rolecall.pipelines.market.policy import draw_slots
from rolecall.pipelines.market.world import day_start


def gumbel(seed: int, rows: int, jobs: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(seed).gumbel(size=(rows, jobs))


def test_jobs_are_drawn_as_often_as_their_propensity_says() -> None:
    score = np.log(np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32))
    rounds = 40_000
    shown, propensity = draw_slots(
        np.tile(score, (rounds, 1)), np.ones((rounds, 4), dtype=bool), 2, gumbel(1, rounds, 4)
    )
    for first, second in itertools.permutations(range(4), 2):
        rows = (shown[:, 0] == first) & (shown[:, 1] == second)
        joint = propensity[rows].prod(axis=1)
        assert np.ptp(joint) < 1e-6
        assert abs(rows.mean() - joint[0]) < 0.01


def test_propensities_of_one_slot_follow_the_softmax_without_what_is_above() -> None:
    score = np.log(np.array([[1.0, 2.0, 5.0]], dtype=np.float32))
    shown, propensity = draw_slots(score, np.ones((1, 3), dtype=bool), 3, gumbel(2, 1, 3))
    left = np.array([1.0, 2.0, 5.0])
    for job, given in zip(shown[0], propensity[0], strict=True):
        assert abs(given - left[job] / left.sum()) < 1e-6
        left[job] = 0.0


def test_closed_jobs_come_last_with_propensity_zero() -> None:
    open_jobs = np.array([[True, False, True, False]])
    shown, propensity = draw_slots(np.zeros((1, 4), dtype=np.float32), open_jobs, 4, gumbel(3, 1, 4))
    assert set(shown[0, :2].tolist()) == {0, 2}
    assert (propensity[0, 2:] == 0).all()


def test_no_request_and_no_open_job_draw_nothing() -> None:
    shown, propensity = draw_slots(np.zeros((0, 5), np.float32), np.ones((0, 5), bool), 2, np.zeros((0, 5)))
    assert shown.shape == propensity.shape == (0, 2)
    _, propensity = draw_slots(np.zeros((1, 5), np.float32), np.zeros((1, 5), bool), 2, gumbel(4, 1, 5))
    assert (propensity == 0).all()


def test_what_is_weighed_is_live_distinct_and_the_same_for_everybody_who_looks_for_the_same(world: World) -> None:
    day = day_start(world.days()[10])
    shelf = world.shelves.day(day)
    occupation = np.repeat(np.arange(60), 2)
    place = np.tile([0, 100], 60)
    pool = world.shelves.pool(shelf, occupation, place)
    again = world.shelves.pool(world.shelves.day(day), occupation[:5], place[:5])
    np.testing.assert_array_equal(pool[:5], again)
    for row in pool:
        jobs = row[row >= 0]
        assert len(np.unique(jobs)) == len(jobs)
        assert (world.postings.posted_us[jobs] < day + DAY_US).all()


def test_the_logged_propensity_is_that_of_the_pool_that_was_weighed(world: World) -> None:
    """Recomputed from the documented formula, one slot after another."""
    visits = world.visits(world.days()[12])
    shown, propensity = world.show(visits, Memory())
    version = world.people.version(visits.candidate, visits.at_us)
    shelf = world.shelves.day(day_start(world.days()[12]))
    who = visits.candidate
    pool = world.shelves.pool(shelf, world.people.declared[who, version], world.people.place[who, version])
    open_ = world.shelves.open(pool, visits.at_us)
    weight = np.where(open_, np.exp(world.chooser.score(who, pool, visits.at_us).astype(np.float64)), 0.0)
    for row in range(0, len(visits), 7):
        left = dict(zip(pool[row][open_[row]].tolist(), weight[row][open_[row]].tolist(), strict=True))
        for job, given in zip(shown[row].tolist(), propensity[row].tolist(), strict=True):
            if job < 0:
                assert given == 0
                continue
            assert abs(given - left[job] / sum(left.values())) < 1e-6
            del left[job]
