"""What may happen to a day next: no store, no clock but the one passed in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.platform.errors import InputError
from rolecall.platform.schedule.definition import Reprocess, minutes, time_of_day
from rolecall.platform.schedule.policy import (
    Day,
    claimed,
    concluded,
    delay,
    is_missed,
    lease_holds,
    may_claim,
    submission_id,
    to_enter,
    to_reprocess,
)

from .conftest import START, nightly

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
LEASE = timedelta(minutes=2)


def day(number: int = 1, **changes: object) -> Day:
    when = date(2026, 3, number)
    made = Day(
        schedule="nightly",
        logical_date=when,
        as_of=nightly().as_of(when),
        origin="schedule",
        state="waiting",
        entered=nightly().as_of(when),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def entered(days: list[Day]) -> list[tuple[int, str]]:
    return [(one.logical_date.day, one.state) for one in days]


def test_with_catch_up_every_due_date_without_a_row_is_entered() -> None:
    got = to_enter(nightly(), {date(2026, 3, 2)}, [], NOON)
    assert entered(got) == [(1, "waiting"), (3, "waiting"), (4, "waiting")]


def test_without_catch_up_only_the_newest_is_executed_and_what_waits_is_overtaken() -> None:
    waiting = [day(1), day(2, failures=1, attempt=1), day(3, origin="backfill")]
    got = to_enter(nightly(catch_up=False), {one.logical_date for one in waiting}, waiting, NOON)
    assert entered(got) == [(4, "waiting"), (1, "skipped"), (2, "failed")]


def test_nothing_is_entered_before_the_start_or_after_the_end() -> None:
    assert to_enter(nightly(start=date(2026, 3, 5)), set(), [], NOON) == []
    assert entered(to_enter(nightly(end=date(2026, 3, 2)), set(), [], NOON)) == [(1, "waiting"), (2, "waiting")]


@pytest.mark.parametrize(("mode", "expected"), [("none", [1, 2]), ("failed", [1, 2, 3]), ("completed", [1, 2, 3, 4])])
def test_reprocess_says_which_finished_days_run_again(mode: Reprocess, expected: list[int]) -> None:
    states = {2: "skipped", 3: "failed", 4: "succeeded", 5: "waiting", 6: "running"}
    known = {date(2026, 3, n): day(n, state=state, attempt=n) for n, state in states.items()}
    days = [date(2026, 3, n) for n in range(1, 9)]
    got = to_reprocess(nightly(), known, days, mode, datetime(2026, 3, 7, tzinfo=UTC))
    assert [one.logical_date.day for one in got] == expected
    assert all(one.state == "waiting" and one.failures == 0 and one.origin == "backfill" for one in got)
    assert [one.attempt for one in got[1:]] == expected[1:]  # so that its next submission id is a new one


def test_a_lease_keeps_others_away_until_it_runs_out() -> None:
    taken = claimed(nightly(), day(), owner="a", now=NOON, lease=LEASE)
    assert may_claim(nightly(), taken, "a", NOON)
    assert not may_claim(nightly(), taken, "b", NOON + LEASE - timedelta(seconds=1))
    assert may_claim(nightly(), taken, "b", NOON + LEASE)


def test_taking_over_keeps_the_attempt_and_its_submission_id() -> None:
    first = claimed(nightly(), day(), owner="a", now=NOON, lease=LEASE)
    second = claimed(nightly(), first, owner="b", now=NOON + LEASE, lease=LEASE)
    assert (second.attempt, second.submission_id, second.started) == (1, first.submission_id, NOON)
    assert second.owner == "b"


@given(back=st.timedeltas(timedelta(), timedelta(days=400)))
def test_a_clock_set_back_makes_no_lease_last_longer_than_twice_its_length(back: timedelta) -> None:
    taken = claimed(nightly(), day(), owner="a", now=NOON, lease=LEASE)
    assert lease_holds(taken, NOON - back) == (back <= LEASE)


def test_a_failed_attempt_waits_longer_each_time_and_the_last_is_given_up() -> None:
    schedule = nightly(max_attempts=3, backoff=minutes(10), backoff_cap=minutes(15))
    now, one, waits = NOON, day(), []
    for _ in range(3):
        one = concluded(schedule, claimed(schedule, one, owner="a", now=now, lease=LEASE), error="boom", now=now)
        if one.next_attempt is not None:
            waits.append(one.next_attempt - now)
            assert not may_claim(schedule, one, "a", one.next_attempt - timedelta(seconds=1))
            assert may_claim(schedule, one, "a", one.next_attempt)
            now = one.next_attempt
    assert waits == [minutes(10), minutes(15)]
    assert (one.state, one.attempt, one.failures, one.error, one.owner) == ("failed", 3, 3, "boom", None)


@given(failures=st.integers(1, 10_000))
def test_the_back_off_grows_up_to_its_cap(failures: int) -> None:
    assert minutes(5) <= delay(nightly(), failures) <= delay(nightly(), failures + 1) <= minutes(240)


def test_a_clock_set_back_does_not_stretch_a_back_off() -> None:
    waiting = day(next_attempt=NOON, failures=1, attempt=1)
    assert not may_claim(nightly(), waiting, "a", NOON - minutes(1))
    far = day(next_attempt=NOON + timedelta(days=300), failures=1, attempt=1)
    assert may_claim(nightly(), far, "a", NOON)


def test_a_date_entered_by_a_clock_that_ran_ahead_waits_for_its_time() -> None:
    assert not may_claim(nightly(), day(9), "a", NOON)


def test_a_paused_schedule_starts_nothing_and_watches_what_runs() -> None:
    paused = nightly(paused=True)
    assert not may_claim(paused, day(), "a", NOON)
    assert may_claim(paused, day(state="running", attempt=1), "a", NOON)


def test_a_day_is_missed_after_its_grace_counted_from_when_it_could_have_run() -> None:
    schedule = nightly(since=datetime(2026, 3, 2, tzinfo=UTC))
    assert not is_missed(schedule, day(3), datetime(2026, 3, 3, 7, 59, tzinfo=UTC))
    assert is_missed(schedule, day(3), datetime(2026, 3, 3, 8, 0, tzinfo=UTC))
    assert not is_missed(schedule, day(1), datetime(2026, 3, 2, 5, 59, tzinfo=UTC))  # older than the definition
    late = day(1, origin="backfill", entered=NOON)
    assert not is_missed(schedule, late, NOON + timedelta(hours=5))
    assert is_missed(schedule, late, NOON + timedelta(hours=6))
    assert not is_missed(schedule, day(1, state="succeeded"), NOON)


def test_submission_ids_differ_by_schedule_date_attempt_and_ledger() -> None:
    other = nightly(name="weekly"), nightly(created=NOON)
    ids = {submission_id(one, START, attempt) for one in (nightly(), *other) for attempt in (1, 2)}
    ids.add(submission_id(nightly(), date(2026, 3, 2), 1))
    assert len(ids) == 7
    assert submission_id(nightly(), START, 1).startswith("rolecall-nightly-20260301-1-")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Nightly run"},
        {"zone": "Mars/Olympus"},
        {"end": date(2026, 2, 1)},
        {"max_attempts": 0},
        {"backoff": timedelta()},
        {"backoff_cap": timedelta(seconds=1)},
        {"grace": timedelta()},
        {"reprocess": "all"},
        {"start": date(1912, 1, 1)},
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        nightly(**changes)


@pytest.mark.parametrize("text", ["24:00", "2:00", "02:60", "noon", "02:00:00"])
def test_a_time_of_day_is_two_digits_each(text: str) -> None:
    with pytest.raises(InputError, match="HH:MM"):
        time_of_day(text)
