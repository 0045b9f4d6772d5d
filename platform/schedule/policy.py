"""What may happen to a day next. Plain functions of a row, a schedule and the clock; nothing here waits or writes.

    waiting ──claim──> running ──succeeded──> succeeded
       ^                  │
       └── failed, tries ─┴── failed, none left ──> failed          skipped: never to be executed
           left (back-off)

Days are executed in order of their date, one at a time: only the first day that is waiting or running may be claimed,
so a day that waits for its next attempt holds the later ones until it succeeded or was given up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Literal

from rolecall.platform.schedule.definition import Reprocess, Schedule

DayState = Literal["waiting", "running", "succeeded", "failed", "skipped"]
Origin = Literal["schedule", "backfill"]
OPEN: tuple[DayState, ...] = ("waiting", "running")
MOST_ERROR_CHARACTERS = 1000


@dataclass(frozen=True, kw_only=True)
class Day:
    """One row of the table `schedule_runs`: a logical date of a schedule and how far it is.

    `attempt` counts submissions and never goes back; `failures` counts those of the present round, and entering a day
    again begins a new round. `entered` is when that round began. The lease (`owner` until `lease_until`, last renewed
    at `heartbeat`) says which scheduler watches a running day.
    """

    schedule: str
    logical_date: date
    as_of: datetime
    origin: Origin
    state: DayState
    entered: datetime
    attempt: int = 0
    failures: int = 0
    next_attempt: datetime | None = None
    submission_id: str | None = None
    error: str | None = None
    owner: str | None = None
    lease_until: datetime | None = None
    heartbeat: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None


def to_enter(schedule: Schedule, known: Set[date], waiting: Iterable[Day], now: datetime) -> list[Day]:
    """The rows that must be written for everything due to have one: new days, and waiting ones that were overtaken.

    `known`: the dates that have a row.
    Without catch-up only the newest due date is executed: older ones are entered as skipped, and one that still waits
    is skipped, or given up where it had failed.
    """
    due = schedule.due(now)
    if not due:
        return []
    missing = [_entered(schedule, day, now) for day in due if day not in known]
    if schedule.catch_up:
        return missing
    skipped = [replace(day, state="skipped") if day.logical_date < due[-1] else day for day in missing]
    return skipped + [_overtaken(day, now) for day in waiting if _is_overtaken(day, due[-1])]


def to_reprocess(
    schedule: Schedule, known: Mapping[date, Day], days: Iterable[date], reprocess: Reprocess, now: datetime
) -> list[Day]:
    """The rows that enter `days` to be executed: those never executed, and finished ones as `reprocess` says.

    `none`: no finished day; `failed`: also days that were given up; `completed`: also days that succeeded. Days that
    are not due yet, wait or run are left alone.
    """
    again: dict[Reprocess, tuple[DayState, ...]] = {
        "none": ("skipped",),
        "failed": ("skipped", "failed"),
        "completed": ("skipped", "failed", "succeeded"),
    }
    entered = []
    for day in days:
        if schedule.as_of(day) > now:
            continue
        new = replace(_entered(schedule, day, now), origin="backfill")
        old = known.get(day)
        if old is None:
            entered.append(new)
        elif old.state in again[reprocess]:
            entered.append(replace(new, attempt=old.attempt))
    return entered


def may_claim(schedule: Schedule, day: Day, owner: str, now: datetime) -> bool:
    """Whether `owner` may execute the first open day now: start its next attempt, or watch the one that runs."""
    if day.state == "running":
        return day.owner == owner or not lease_holds(day, now)
    if schedule.paused or day.as_of > now:
        return False
    return day.next_attempt is None or not now < day.next_attempt <= now + schedule.backoff_cap


def lease_holds(day: Day, now: datetime) -> bool:
    """Whether another scheduler may be watching the day.

    A lease from the future says nothing: a clock that was set back must not make it last longer than it was given for.
    """
    if day.owner is None or day.lease_until is None or day.heartbeat is None:
        return False
    length = day.lease_until - day.heartbeat
    return day.heartbeat - length <= now < day.lease_until


def claimed(schedule: Schedule, day: Day, *, owner: str, now: datetime, lease: timedelta) -> Day:
    """The day, watched by `owner`: with its next attempt where it waited, with the attempt it had where it runs."""
    held = replace(day, owner=owner, heartbeat=now, lease_until=now + lease)
    if day.state == "running":
        return held
    attempt = day.attempt + 1
    submission = submission_id(schedule, day.logical_date, attempt)
    return replace(
        held, state="running", attempt=attempt, submission_id=submission, started=now, finished=None, next_attempt=None
    )


def concluded(schedule: Schedule, day: Day, *, error: str | None, now: datetime) -> Day:
    """The day after its attempt ended: well where `error` is None, else to be tried again or given up."""
    free = replace(day, owner=None, lease_until=None, heartbeat=None, finished=now)
    if error is None:
        return replace(free, state="succeeded", error=None)
    failures = day.failures + 1
    told = replace(free, failures=failures, error=error[-MOST_ERROR_CHARACTERS:])
    if failures >= schedule.max_attempts:
        return replace(told, state="failed")
    return replace(told, state="waiting", next_attempt=now + delay(schedule, failures))


def delay(schedule: Schedule, failures: int) -> timedelta:
    """How long to wait after that many failures: the back-off, doubled each time, at most its cap."""
    return min(schedule.backoff_cap, schedule.backoff * 2 ** min(failures - 1, 30))


def is_missed(schedule: Schedule, day: Day, now: datetime) -> bool:
    """Whether a day is not done though it should be: the grace after its instant, or after a backfill entered it."""
    if day.origin == "backfill":
        return day.state in OPEN and now >= day.entered + schedule.grace
    return day.state in OPEN and is_late(schedule, day.as_of, now)


def is_late(schedule: Schedule, as_of: datetime, now: datetime) -> bool:
    """Whether the grace of a day has passed; for days older than the schedule, since that came into force."""
    return now >= max(as_of, schedule.since) + schedule.grace


def submission_id(schedule: Schedule, day: date, attempt: int) -> str:
    """The one id of an attempt: whoever submits it, a cluster takes it once.

    The digest keeps apart schedules of the same name that different ledgers send to one cluster.
    """
    canonical = json.dumps([schedule.name, schedule.created.isoformat(), day.isoformat(), attempt])
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    return f"rolecall-{schedule.name}-{day:%Y%m%d}-{attempt}-{digest}"


def _entered(schedule: Schedule, day: date, now: datetime) -> Day:
    return Day(
        schedule=schedule.name,
        logical_date=day,
        as_of=schedule.as_of(day),
        origin="schedule",
        state="waiting",
        entered=now,
    )


def _is_overtaken(day: Day, newest: date) -> bool:
    return day.state == "waiting" and day.origin == "schedule" and day.logical_date < newest


def _overtaken(day: Day, now: datetime) -> Day:
    return replace(day, state="failed" if day.failures else "skipped", finished=now)
