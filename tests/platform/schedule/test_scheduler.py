"""A tick against a cluster that only keeps books: what is submitted, watched, recorded and told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rolecall.platform.errors import NotFoundError, UnavailableError
from rolecall.platform.jobs import JobState
from rolecall.platform.ledger import open_ledger
from rolecall.platform.schedule.definition import Schedule
from rolecall.platform.schedule.health import health, schedule_metrics
from rolecall.platform.schedule.policy import Day
from rolecall.platform.schedule.scheduler import LEASE, Report, Scheduler
from rolecall.platform.schedule.store import ScheduleStore

from .conftest import CREATED, nightly

Define = Callable[..., Schedule]


@dataclass
class Books:
    """Jobs run for `length` of the clock; the first `failing` fail."""

    now: datetime = datetime(2026, 3, 2, 12, tzinfo=UTC)
    length: timedelta = timedelta(minutes=10)
    failing: int = 0
    down: bool = False
    ends: dict[str, tuple[datetime, JobState]] = field(default_factory=dict)

    def clock(self) -> datetime:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def submit(self, schedule: Schedule, day: Day) -> bool:
        self._reach()
        if str(day.submission_id) in self.ends:
            return False
        self.failing -= 1
        self.ends[str(day.submission_id)] = (self.now + self.length, "failed" if self.failing >= 0 else "succeeded")
        return True

    def state(self, submission_id: str) -> JobState | None:
        self._reach()
        if submission_id not in self.ends:
            return None
        end, state = self.ends[submission_id]
        return state if self.now >= end else "running"

    def why_failed(self, submission_id: str) -> str:
        return "  the disk is full\n"

    def _reach(self) -> None:
        if self.down:
            raise UnavailableError("no dashboard answers")


@pytest.fixture
def store(tmp_path: Path) -> ScheduleStore:
    return ScheduleStore(open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))


@pytest.fixture
def books() -> Books:
    return Books()


def scheduler(store: ScheduleStore, books: Books, owner: str = "a") -> Scheduler:
    return Scheduler(store, books, owner=owner, clock=books.clock, pause=books.pause, poll_s=30.0)


def told(report: Report) -> list[str]:
    return [f"{event.logical_date.day} {event.what}" for event in report.events]


def test_a_tick_executes_what_is_due_in_order(store: ScheduleStore, books: Books, define: Define) -> None:
    define()
    report = scheduler(store, books).tick()
    assert told(report) == ["1 entered", "2 entered", "1 submitted", "1 succeeded", "2 submitted", "2 succeeded"]
    assert not report.bad
    assert told(scheduler(store, books).tick()) == []


def test_a_tick_that_does_not_wait_submits_and_the_next_collects(
    store: ScheduleStore, books: Books, define: Define
) -> None:
    define()
    assert told(scheduler(store, books).tick(wait=False))[-1] == "1 submitted"
    assert told(scheduler(store, books, "b").tick(wait=False)) == []
    books.now += books.length
    assert told(scheduler(store, books, "c").tick(wait=False)) == ["1 succeeded", "2 submitted"]


def test_a_failed_day_is_told_and_tried_again_after_its_back_off(
    store: ScheduleStore, books: Books, define: Define
) -> None:
    schedule = define(end=nightly().start)
    books.failing = 1
    report = scheduler(store, books).tick()
    assert told(report) == ["1 entered", "1 submitted", "1 failed"]
    assert report.bad
    assert "the disk is full" in report.events[-1].detail
    assert told(scheduler(store, books).tick()) == []
    books.now += schedule.backoff
    assert told(scheduler(store, books).tick()) == ["1 submitted", "1 succeeded"]


def test_a_day_is_given_up_after_its_last_attempt_and_the_next_is_executed(
    store: ScheduleStore, books: Books, define: Define
) -> None:
    schedule = define(max_attempts=1)
    books.failing = 1
    report = scheduler(store, books).tick()
    assert told(report)[2:] == ["1 submitted", "1 given up", "2 submitted", "2 succeeded"]
    assert report.bad
    standing = health(store, schedule, books.now)
    assert (standing.verdict, [day.day for day in standing.failed]) == ("failed", [1])


def test_schedules_are_watched_side_by_side(store: ScheduleStore, books: Books, define: Define) -> None:
    first = define(end=nightly().start)
    define(name="second", end=nightly().start)
    begin = books.now
    scheduler(store, books).tick()
    assert books.now - begin < 2 * books.length
    assert [next(iter(store.days(name).values())).state for name in (first.name, "second")] == ["succeeded"] * 2


def test_a_cluster_that_cannot_be_reached_costs_no_attempt(store: ScheduleStore, books: Books, define: Define) -> None:
    define(end=nightly().start)
    books.down = True
    report = scheduler(store, books).tick()
    assert told(report) == ["1 entered", "1 unavailable"]
    assert report.bad
    books.down = False
    assert told(scheduler(store, books, "b").tick()) == ["1 submitted", "1 succeeded"]
    assert next(iter(store.days("nightly").values())).attempt == 1


def test_a_scheduler_that_died_after_submitting_is_succeeded_by_one_that_attaches(
    store: ScheduleStore, books: Books, define: Define
) -> None:
    schedule = define(end=nightly().start)
    store.extend("nightly", books.now)
    dead = store.claim("nightly", owner="dead", now=books.now, lease=LEASE)
    assert dead is not None
    books.submit(schedule, dead)
    assert told(scheduler(store, books).tick()) == []
    books.now += LEASE
    assert told(scheduler(store, books).tick()) == ["1 succeeded"]
    assert len(books.ends) == 1


def test_an_interrupted_tick_gives_its_lease_back(store: ScheduleStore, books: Books, define: Define) -> None:
    define(end=nightly().start)

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    stopped = Scheduler(store, books, owner="a", clock=books.clock, pause=interrupted)
    with pytest.raises(KeyboardInterrupt):
        stopped.tick()
    assert store.claim("nightly", owner="b", now=books.now, lease=LEASE) is not None


def test_a_job_the_cluster_forgot_is_submitted_again_under_its_id(
    store: ScheduleStore, books: Books, define: Define
) -> None:
    define(end=nightly().start)
    scheduler(store, books).tick(wait=False)
    name = next(iter(books.ends))
    books.ends.clear()
    assert told(scheduler(store, books).tick()) == ["1 submitted", "1 succeeded"]
    assert list(books.ends) == [name]


def test_an_unknown_schedule_is_told(store: ScheduleStore, books: Books) -> None:
    with pytest.raises(NotFoundError):
        scheduler(store, books).tick(["gone"])


def test_a_day_nobody_ticked_for_is_missed_after_its_grace(store: ScheduleStore, define: Define) -> None:
    schedule = define()
    due = schedule.as_of(schedule.start)
    assert health(store, schedule, due + timedelta(hours=5)).verdict == "late"
    missed = health(store, schedule, due + timedelta(hours=6))
    assert (missed.verdict, missed.well, missed.missed) == ("missed", False, (schedule.start,))


def test_a_pause_makes_nothing_missed_and_the_end_ends(store: ScheduleStore, books: Books, define: Define) -> None:
    define(paused=True)
    define(name="ended", end=nightly().start)
    scheduler(store, books).tick(["ended"])
    assert health(store, store.get("nightly"), CREATED + timedelta(days=9)).verdict == "paused"
    assert health(store, store.get("ended"), CREATED + timedelta(days=9)).verdict == "ended"


def test_the_gauges_tell_the_same_as_the_list(store: ScheduleStore, books: Books, define: Define) -> None:
    schedule = define()
    scheduler(store, books).tick()
    lines = schedule_metrics(store.engine, books.now + timedelta(days=2)).decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values["rolecall_schedule_ledger_up"] == "1.0"
    assert values['rolecall_schedule_missed_days{schedule="nightly"}'] == "2.0"
    assert values['rolecall_schedule_failed_days{schedule="nightly"}'] == "0.0"
    as_of = float(values['rolecall_schedule_last_success_as_of_timestamp_seconds{schedule="nightly"}'])
    assert as_of == schedule.as_of(schedule.start).timestamp() + 86400


def test_a_ledger_that_cannot_be_read_is_a_gauge_and_no_error(tmp_path: Path) -> None:
    engine = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE schedules")
    assert b"rolecall_schedule_ledger_up 0.0" in schedule_metrics(engine, CREATED)
