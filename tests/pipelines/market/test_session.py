"""What becomes of a shown job: position bias, trust and fatigue, and luck that belongs to the pair alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pytest

from rolecall.pipelines.market import MarketConfig, Memory, Truth, Visits, World, named
from rolecall.pipelines.market.config import Choice
from rolecall.pipelines.market.memory import pair_key
from rolecall.pipelines.market.visits import MOST_VISITS

from .conftest import SMALL

SLOTS = 12
PLAIN = MarketConfig(**(SMALL.model_dump() | {"choice": named("randomised").choice.model_dump()}))


@pytest.fixture(scope="module")
def plain() -> World:
    """The same world, with position as the only bias."""
    return World(PLAIN)


def best_jobs(world: World) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """40 people with the 12 open jobs that suit them best, and an instant in the middle of the month."""
    at = (world.config.start_us + world.config.end_us) // 2
    jobs = np.flatnonzero((world.postings.posted_us < at) & (world.postings.expires_us > at + 2 * 86_400_000_000))
    people = np.flatnonzero((world.people.joined_us < at) & (world.people.left_us > at))[:40]
    every = np.tile(jobs, (len(people), 1))
    chance = Truth(world).click(people, every, np.full(len(people), at))
    order = np.argsort(-chance, axis=1)[:, :SLOTS]
    return people, np.take_along_axis(every, order, axis=1), at


def many_visits(
    people: npt.NDArray[np.int64], jobs: npt.NDArray[np.int64], at: int, rounds: int
) -> tuple[Visits, npt.NDArray[np.int64]]:
    """Every person comes `rounds` times; the list is turned by one place each time, as an experiment would."""
    number = np.repeat(np.arange(rounds), len(people))
    visits = Visits(
        candidate=np.tile(people, rounds), visit=number * MOST_VISITS, at_us=np.full(len(number), at, dtype=np.int64)
    )
    turned = (np.arange(SLOTS) + number[:, None]) % SLOTS
    return visits, np.take_along_axis(np.tile(jobs, (rounds, 1)), turned, axis=1)


def test_turning_the_lists_recovers_the_examination_curve(plain: World) -> None:
    visits, shown = many_visits(*best_jobs(plain), rounds=600)
    clicked = plain.respond(visits, shown, np.ones(shown.shape), Memory()).clicked
    rate = clicked.mean(axis=0)
    seen = Truth(plain).examination(SLOTS)
    np.testing.assert_allclose(seen, np.arange(1, SLOTS + 1) ** -0.6)
    np.testing.assert_allclose(rate / rate[0], seen, atol=0.04)


def test_clicks_are_as_frequent_as_the_truth_says(plain: World) -> None:
    people, jobs, at = best_jobs(plain)
    visits, shown = many_visits(people, jobs, at, rounds=240)
    done = plain.respond(visits, shown, np.ones(shown.shape), Memory())
    truth, seen = Truth(plain), Truth(plain).examination(SLOTS)
    for marks, chance in ((done.clicked, truth.click), (done.applied, truth.apply)):
        expected = chance(visits.candidate, shown, visits.at_us) * seen
        spread = np.sqrt((expected * (1 - expected)).sum())
        assert abs(marks.sum() - expected.sum()) < 4 * spread


def test_trust_lifts_the_top_beyond_its_examination(plain: World) -> None:
    trusting = World(PLAIN.model_copy(update={"choice": PLAIN.choice.model_copy(update={"trust": 1.5})}))
    visits, shown = many_visits(*best_jobs(plain), rounds=240)
    rate = [w.respond(visits, shown, np.ones(shown.shape), Memory()).clicked.mean(axis=0) for w in (plain, trusting)]
    lift = rate[1] / rate[0]
    assert lift[0] > 1.1
    assert abs(lift[-1] - 1) < 0.05
    assert lift[0] > lift[2] > lift[-1] - 0.05


def test_jobs_shown_before_and_later_visits_of_a_day_are_clicked_less(world: World) -> None:
    people, jobs, at = best_jobs(world)
    visits, shown = many_visits(people, jobs, at, rounds=120)
    tired = Visits(candidate=visits.candidate, visit=visits.visit + 2, at_us=visits.at_us)
    bored = Memory()
    for _ in range(4):
        bored.shown.add(pair_key(people[:, None], jobs).ravel())
    fresh = world.respond(visits, shown, np.ones(shown.shape), Memory()).clicked.sum()
    assert world.respond(visits, shown, np.ones(shown.shape), bored).clicked.sum() < 0.9 * fresh
    expected = np.exp(-2 * Choice().session)
    assert abs(world.respond(tired, shown, np.ones(shown.shape), Memory()).clicked.sum() / fresh - expected) < 0.08


def test_what_happens_with_a_job_depends_on_nothing_beside_it(world: World) -> None:
    """Two policies that show the same job at the same place to the same visit share their luck."""
    people, jobs, at = best_jobs(world)
    visits, shown = many_visits(people, jobs, at, rounds=5)
    other = shown.copy()
    other[:, 1::2] = -1
    ours = world.respond(visits, shown, np.ones(shown.shape), Memory())
    theirs = world.respond(visits, other, np.full(shown.shape, 0.5), Memory())
    for name in ("clicked", "saved", "applied", "dismissed"):
        mine, yours = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_array_equal(mine[:, ::2], yours[:, ::2])
        assert not yours[:, 1::2].any()
    shown_there = pc.equal(theirs.events["kind"], "impression")
    assert pc.sum(shown_there).as_py() == (other >= 0).sum()


def test_people_see_through_spam_once_they_read_it(world: World) -> None:
    people, jobs, at = best_jobs(world)
    spam = World(SMALL)
    spam.postings.spam[:] = True
    visits, shown = many_visits(people, jobs, at, rounds=60)
    honest = world.respond(visits, shown, np.ones(shown.shape), Memory())
    seen_through = spam.respond(visits, shown, np.ones(shown.shape), Memory())
    np.testing.assert_array_equal(honest.clicked, seen_through.clicked)
    assert seen_through.applied.sum() < 0.2 * honest.applied.sum()
    assert seen_through.dismissed.sum() > 2 * honest.dismissed.sum()


def test_a_job_that_is_not_open_cannot_be_shown(world: World) -> None:
    at = world.config.start_us + 10 * 86_400_000_000
    closed = np.flatnonzero((world.postings.expires_us < at) | (world.postings.posted_us > at))[:SLOTS]
    visits = Visits(candidate=np.array([0]), visit=np.array([40]), at_us=np.array([at]))
    done = world.respond(visits, closed[None, :], np.ones((1, SLOTS)), Memory())
    assert done.events.num_rows == 0
