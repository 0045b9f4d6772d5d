"""The ledger of schedules: what is defined, and one row for each logical date.

Every change is one transaction that no other writer of the ledger's schedules runs beside, and compares what it was
decided on with what is there before it sets anything: a scheduler that slept through its lease changes nothing. The
database itself refuses a second row for a date, a second running day of a schedule and a submission id used twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, select, update

from rolecall.platform.errors import ConflictError, InputError, NotFoundError
from rolecall.platform.ledger import SCHEDULE_RUNS, SCHEDULES, write
from rolecall.platform.schedule import policy
from rolecall.platform.schedule.definition import Reprocess, Schedule
from rolecall.platform.schedule.policy import Day
from rolecall.platform.schedule.rows import day_columns, day_of, schedule_columns, schedule_of


class ScheduleStore:
    """Schedules and their days in one ledger. Methods that name a schedule raise NotFoundError where there is none."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def add(self, schedule: Schedule, *, replacing: bool = False, now: datetime) -> list[Day]:
        """Define a schedule; doing it again changes nothing. Returns the days that it enters to be executed again.

        `replacing`: another definition of that name gives way, and days that were executed under it are entered again
        as `schedule.reprocess` says; without it, raises ConflictError. Days of a schedule that was removed are known
        still, and are treated so too.
        """
        with write(self.engine, SCHEDULES) as connection:
            old = _find(connection, schedule.name)
            if old is not None and not replacing:
                if replace(schedule, created=old.created, since=old.since, paused=old.paused) == old:
                    return []
                raise ConflictError(f"schedule {schedule.name} is defined otherwise", "--replace", "or another name")
            new = schedule
            if old is not None:  # its submission ids and a pause outlive the definition
                new = replace(schedule, created=old.created, paused=old.paused or schedule.paused)
            connection.execute(delete(SCHEDULES).where(SCHEDULES.c.name == new.name))
            connection.execute(insert(SCHEDULES).values(**schedule_columns(new)))
            known = _days(connection, new.name)
            again = [] if new.reprocess == "none" else _finished(new, known, now)
            return _put(connection, known, policy.to_reprocess(new, known, again, new.reprocess, now))

    def get(self, name: str) -> Schedule:
        """One definition."""
        with self.engine.connect() as connection:
            return _schedule(connection, name)

    def all(self) -> list[Schedule]:
        """Every definition, by name."""
        with self.engine.connect() as connection:
            return [schedule_of(row) for row in connection.execute(select(SCHEDULES).order_by(SCHEDULES.c.name))]

    def days(self, name: str) -> dict[date, Day]:
        """Every day of a schedule that has a row, in order; also of one that was removed."""
        with self.engine.connect() as connection:
            return _days(connection, name)

    def pause(self, name: str) -> None:
        """Start no further attempt until it is resumed; one that runs is watched to its end."""
        self._set(name, paused=True)

    def resume(self, name: str, now: datetime) -> None:
        """End a pause. Days that fell due meanwhile are late from now on."""
        self._set(name, paused=False, since=now)

    def remove(self, name: str) -> None:
        """Forget the definition; the days stay, so that a schedule of that name does not execute them again.

        Raises ConflictError while a day is being executed.
        """
        with write(self.engine, SCHEDULES) as connection:
            _schedule(connection, name)
            day = _first_open(connection, name)
            if day is not None and day.state == "running":
                raise ConflictError(f"{day.logical_date} of {name} is running", "a schedule at rest", "pause it first")
            connection.execute(delete(SCHEDULES).where(SCHEDULES.c.name == name))

    def extend(self, name: str, now: datetime) -> list[Day]:
        """Enter everything that has fallen due and has no row yet. Returns the rows written. Does nothing on pause."""
        with self.engine.connect() as connection:
            if not _extension(connection, name, now)[1]:
                return []
        with write(self.engine, SCHEDULES) as connection:
            return _put(connection, *_extension(connection, name, now))

    def enter(self, name: str, days: Iterable[date], reprocess: Reprocess, now: datetime) -> list[Day]:
        """Enter dates to be executed, as `policy.to_reprocess` says. Returns the rows written."""
        with write(self.engine, SCHEDULES) as connection:
            known = _days(connection, name)
            return _put(
                connection, known, policy.to_reprocess(_schedule(connection, name), known, days, reprocess, now)
            )

    def claim(self, name: str, *, owner: str, now: datetime, lease: timedelta) -> Day | None:
        """Take or renew the lease on the first open day, and start its next attempt where it waits.

        None where there is none, where it must wait, or while another scheduler's lease on it holds.
        """
        with self.engine.connect() as connection:
            if _claimable(connection, name, owner, now) is None:
                return None
        with write(self.engine, SCHEDULES) as connection:
            day = _claimable(connection, name, owner, now)
            if day is None:
                return None
            taken = policy.claimed(_schedule(connection, name), day, owner=owner, now=now, lease=lease)
            return taken if _swap(connection, day, taken) else None

    def release(self, day: Day) -> bool:
        """Give a claimed day's lease back; it goes on running. False where the lease was lost before."""
        with write(self.engine, SCHEDULES) as connection:
            return _swap(connection, day, replace(day, owner=None, lease_until=None, heartbeat=None))

    def conclude(self, day: Day, *, error: str | None, now: datetime) -> Day | None:
        """Record how the attempt of a claimed day ended (well: `error` None). None where the lease was lost before."""
        with write(self.engine, SCHEDULES) as connection:
            after = policy.concluded(_schedule(connection, day.schedule), day, error=error, now=now)
            return after if _swap(connection, day, after) else None

    def _set(self, name: str, **changes: Any) -> None:
        with write(self.engine, SCHEDULES) as connection:
            changed = replace(_schedule(connection, name), **changes)
            connection.execute(update(SCHEDULES).where(SCHEDULES.c.name == name).values(**schedule_columns(changed)))

    def skip(self, name: str, day: date, *, now: datetime) -> Day:
        """Never execute a day that waits or was given up, and no longer call it missed or failed.

        Raises InputError for a day that is neither.
        """
        with write(self.engine, SCHEDULES) as connection:
            _schedule(connection, name)
            old = _days(connection, name).get(day)
            if old is None or old.state not in ("waiting", "failed"):
                state = old.state if old else "not entered"
                raise InputError(f"{day} of {name} is {state}", "a day that waits or failed", "see `schedule show`")
            skipped = replace(old, state="skipped", finished=now)
            _swap(connection, old, skipped)
            return skipped


def _finished(schedule: Schedule, known: Mapping[date, Day], now: datetime) -> list[date]:
    due = set(schedule.due(now))
    return [
        day.logical_date for day in known.values() if day.state in ("failed", "succeeded") and day.logical_date in due
    ]


def _find(connection: Connection, name: str) -> Schedule | None:
    row = connection.execute(select(SCHEDULES).where(SCHEDULES.c.name == name)).one_or_none()
    return None if row is None else schedule_of(row)


def _schedule(connection: Connection, name: str) -> Schedule:
    found = _find(connection, name)
    if found is None:
        raise NotFoundError(f"no schedule is named {name!r}", "a name that `rolecall schedule list` prints")
    return found


def _days(connection: Connection, name: str, *conditions: ColumnElement[bool]) -> dict[date, Day]:
    table = SCHEDULE_RUNS.c
    query = select(SCHEDULE_RUNS).where(table.schedule == name, *conditions).order_by(table.logical_date)
    rows = connection.execute(query)
    return {row.logical_date: day_of(row) for row in rows}


def _first_open(connection: Connection, name: str) -> Day | None:
    """A running day before any that waits: one entered before it in date, by a backfill, waits until it is done."""
    table = SCHEDULE_RUNS.c
    query = (
        select(SCHEDULE_RUNS)
        .where(table.schedule == name, table.state.in_(policy.OPEN))
        .order_by(table.state != "running", table.logical_date)
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else day_of(row)


def _claimable(connection: Connection, name: str, owner: str, now: datetime) -> Day | None:
    schedule, day = _schedule(connection, name), _first_open(connection, name)
    return day if day is not None and policy.may_claim(schedule, day, owner, now) else None


def _extension(connection: Connection, name: str, now: datetime) -> tuple[Mapping[date, Day], list[Day]]:
    """The days that wait, and the rows to write: new ones, and waiting ones that were overtaken."""
    table, schedule = SCHEDULE_RUNS.c, _schedule(connection, name)
    if schedule.paused:
        return {}, []
    known = set(connection.scalars(select(table.logical_date).where(table.schedule == name)))
    waiting = _days(connection, name, table.state == "waiting")
    return waiting, policy.to_enter(schedule, known, waiting.values(), now)


def _put(connection: Connection, known: Mapping[date, Day], days: list[Day]) -> list[Day]:
    """Write rows decided on `known`, in this transaction: those it names are changed, others are new."""
    fresh = [day_columns(day) for day in days if day.logical_date not in known]
    if fresh:
        connection.execute(insert(SCHEDULE_RUNS), fresh)
    for day in days:
        if day.logical_date in known:
            _swap(connection, known[day.logical_date], day)
    return days


def _swap(connection: Connection, old: Day, new: Day) -> bool:
    """Compare and set: False, and nothing changed, where the row is not what `old` says of its attempt and lease.

    A renewed heartbeat is no difference: who holds the lease of an attempt may renew it and act on it.
    """
    table = SCHEDULE_RUNS.c
    same = [table[name] == getattr(old, name) for name in ("schedule", "logical_date", "state", "attempt", "owner")]
    done = connection.execute(update(SCHEDULE_RUNS).where(*same).values(**day_columns(new)))
    return done.rowcount == 1
