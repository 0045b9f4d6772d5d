"""The ledger of schedules, on each database: one row a date, one running day, one holder of its lease."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

from rolecall.platform.errors import ConflictError, InputError, NotFoundError
from rolecall.platform.ledger import SCHEDULE_RUNS, SCHEDULES, write
from rolecall.platform.schedule.definition import Reprocess, Schedule
from rolecall.platform.schedule.policy import Day
from rolecall.platform.schedule.store import ScheduleStore

from .conftest import CREATED, START, nightly

Define = Callable[..., Schedule]
NOON = datetime(2026, 3, 3, 12, tzinfo=UTC)
LEASE = timedelta(minutes=2)


def claim(store: ScheduleStore, owner: str = "a", now: datetime = NOON) -> Day | None:
    return store.claim("nightly", owner=owner, now=now, lease=LEASE)


def finished(store: ScheduleStore, *, error: str | None = None, now: datetime = NOON) -> Day | None:
    day = claim(store, now=now)
    assert day is not None
    return store.conclude(day, error=error, now=now)


def states(store: ScheduleStore) -> dict[int, str]:
    return {day.day: row.state for day, row in store.days("nightly").items()}


def test_a_definition_comes_back_as_it_was_given(store: ScheduleStore, define: Define) -> None:
    full = define(end=date(2026, 9, 1), catch_up=False, reprocess="failed", zone="Australia/Lord_Howe", promote=False)
    assert store.get("nightly") == full
    assert store.all() == [full]


def test_defining_it_again_changes_nothing_and_otherwise_is_refused(store: ScheduleStore, define: Define) -> None:
    first = define()
    store.pause("nightly")
    store.add(nightly(created=NOON, since=NOON), now=NOON)
    assert store.get("nightly") == replace(first, paused=True)
    with pytest.raises(ConflictError, match="otherwise"):
        store.add(nightly(max_attempts=9), now=NOON)


def test_replacing_keeps_the_pause_and_the_submission_ids(store: ScheduleStore, define: Define) -> None:
    define()
    store.pause("nightly")
    store.add(nightly(max_attempts=9, created=NOON, since=NOON), replacing=True, now=NOON)
    got = store.get("nightly")
    assert (got.max_attempts, got.paused, got.created, got.since) == (9, True, CREATED, NOON)


@pytest.mark.parametrize(("mode", "again"), [("none", []), ("failed", [2]), ("completed", [1, 2])])
def test_replacing_enters_finished_days_again_as_told(
    store: ScheduleStore, define: Define, mode: Reprocess, again: list[int]
) -> None:
    define(max_attempts=1)
    store.extend("nightly", NOON)
    finished(store)
    finished(store, error="boom")
    got = store.add(nightly(max_attempts=2, reprocess=mode), replacing=True, now=NOON)
    assert [day.logical_date.day for day in got] == again
    assert [number for number, state in states(store).items() if state == "waiting"] == [*again, 3]


def test_every_due_date_gets_one_row_however_often_it_is_entered(store: ScheduleStore, define: Define) -> None:
    define()
    assert [day.logical_date.day for day in store.extend("nightly", NOON)] == [1, 2, 3]
    assert store.extend("nightly", NOON) == []
    assert [day.logical_date.day for day in store.extend("nightly", NOON + timedelta(days=1))] == [4]
    assert store.extend("nightly", NOON - timedelta(days=30)) == []


def test_the_database_refuses_a_second_row_for_a_date(store: ScheduleStore, define: Define) -> None:
    define()
    store.extend("nightly", NOON)
    with store.engine.connect() as connection:
        row = dict(connection.execute(SCHEDULE_RUNS.select().limit(1)).mappings().one())
    with pytest.raises(IntegrityError), write(store.engine, SCHEDULES) as connection:
        connection.execute(insert(SCHEDULE_RUNS).values(**row))


def test_the_database_refuses_a_second_running_day(store: ScheduleStore, define: Define) -> None:
    define()
    store.extend("nightly", NOON)
    claim(store)
    with pytest.raises(IntegrityError), write(store.engine, SCHEDULES) as connection:
        connection.execute(update(SCHEDULE_RUNS).values(state="running"))


def test_days_are_claimed_in_order_and_one_at_a_time(store: ScheduleStore, define: Define) -> None:
    define()
    store.extend("nightly", NOON)
    order = []
    while (day := claim(store)) is not None:
        assert claim(store, owner="b") is None
        order.append(day.logical_date.day)
        store.conclude(day, error=None, now=NOON)
    assert order == [1, 2, 3]
    assert set(states(store).values()) == {"succeeded"}


def test_a_failed_day_holds_the_later_ones_until_it_is_given_up(store: ScheduleStore, define: Define) -> None:
    define(max_attempts=2)
    store.extend("nightly", NOON)
    after = finished(store, error="boom")
    assert after is not None
    assert after.next_attempt is not None
    assert claim(store) is None
    second = finished(store, error="again", now=after.next_attempt)
    assert second is not None
    assert (second.state, second.attempt, second.error) == ("failed", 2, "again")
    third = claim(store, now=after.next_attempt)
    assert third is not None
    assert third.logical_date == date(2026, 3, 2)


def test_an_expired_lease_is_taken_over_and_the_former_holder_can_change_nothing(
    store: ScheduleStore, define: Define
) -> None:
    define()
    store.extend("nightly", NOON)
    first = claim(store)
    assert first is not None
    second = claim(store, owner="b", now=NOON + LEASE)
    assert second is not None
    assert (second.submission_id, second.attempt) == (first.submission_id, 1)
    assert store.conclude(first, error="late", now=NOON) is None
    assert not store.release(first)
    assert store.conclude(second, error=None, now=NOON + LEASE) is not None
    assert store.conclude(second, error="twice", now=NOON + LEASE) is None
    assert states(store)[1] == "succeeded"


def test_a_released_day_runs_on_and_is_collected_by_anybody(store: ScheduleStore, define: Define) -> None:
    define()
    store.extend("nightly", NOON)
    first = claim(store)
    assert first is not None
    assert store.release(first)
    assert states(store)[1] == "running"
    second = claim(store, owner="b")
    assert second is not None
    assert second.submission_id == first.submission_id


def test_a_heartbeat_extends_the_lease(store: ScheduleStore, define: Define) -> None:
    define()
    store.extend("nightly", NOON)
    claim(store)
    claim(store, now=NOON + timedelta(seconds=90))
    assert claim(store, owner="b", now=NOON + LEASE) is None


def test_of_many_claimers_at_once_one_wins(store: ScheduleStore, define: Define) -> None:
    define()
    store.extend("nightly", NOON)
    barrier, won = threading.Barrier(6), []

    def contend(owner: str) -> None:
        barrier.wait()
        day = claim(store, owner=owner)
        if day is not None:
            won.append(day)

    threads = [threading.Thread(target=contend, args=(f"o{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_of_many_that_enter_the_same_days_none_fails(store: ScheduleStore, define: Define) -> None:
    define()
    barrier, entered, failed = threading.Barrier(4), [], []

    def enter() -> None:
        barrier.wait()
        try:
            entered.extend(store.extend("nightly", NOON))
        except IntegrityError as error:
            failed.append(error)

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(day.logical_date.day for day in entered) == [1, 2, 3]


def test_a_pause_starts_nothing_and_a_resume_catches_up(store: ScheduleStore, define: Define) -> None:
    define()
    store.pause("nightly")
    assert store.extend("nightly", NOON) == []
    store.resume("nightly", NOON)
    assert [day.logical_date.day for day in store.extend("nightly", NOON)] == [1, 2, 3]
    assert store.get("nightly").since == NOON


def test_a_backfill_enters_dates_before_the_start_once(store: ScheduleStore, define: Define) -> None:
    schedule = define()
    days = schedule.days(date(2026, 2, 26), date(2026, 3, 9))
    entered = store.enter("nightly", days, "none", NOON)
    assert [f"{day.logical_date:%m-%d}" for day in entered] == ["02-26", "02-27", "02-28", "03-01", "03-02", "03-03"]
    assert store.enter("nightly", days, "completed", NOON) == []


def test_a_reprocessed_day_gets_an_attempt_id_that_was_never_used(store: ScheduleStore, define: Define) -> None:
    define()
    store.extend("nightly", NOON)
    first = claim(store)
    assert first is not None
    store.conclude(first, error=None, now=NOON)
    store.enter("nightly", [START], "completed", NOON)
    second = claim(store)
    assert second is not None
    assert (second.logical_date, second.attempt) == (START, 2)
    assert second.submission_id != first.submission_id


def test_a_skipped_day_is_neither_executed_nor_open(store: ScheduleStore, define: Define) -> None:
    define()
    store.extend("nightly", NOON)
    store.skip("nightly", START, now=NOON)
    assert states(store)[1] == "skipped"
    for day in (START, date(2026, 5, 5)):
        with pytest.raises(InputError, match="waits or failed"):
            store.skip("nightly", day, now=NOON)


def test_a_removed_schedule_keeps_its_days_and_does_not_repeat_them(store: ScheduleStore, define: Define) -> None:
    define()
    store.extend("nightly", NOON)
    day = claim(store)
    assert day is not None
    with pytest.raises(ConflictError, match="running"):
        store.remove("nightly")
    store.conclude(day, error=None, now=NOON)
    store.remove("nightly")
    assert store.all() == []
    define()
    assert store.extend("nightly", NOON) == []
    assert states(store)[1] == "succeeded"


def test_an_unknown_name_is_told(store: ScheduleStore) -> None:
    for call in (store.get, store.pause, store.remove):
        with pytest.raises(NotFoundError, match="no schedule is named 'gone'"):
            call("gone")
