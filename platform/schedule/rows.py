"""Schedules and days as rows of the ledger and back: instants are whole microseconds since 1970, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import Row

from rolecall.platform.schedule.definition import Schedule
from rolecall.platform.schedule.policy import Day

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INSTANTS = ("as_of", "entered", "next_attempt", "lease_until", "heartbeat", "started", "finished")
_PLAIN = ("schedule", "logical_date", "origin", "state", "attempt", "failures", "submission_id", "error", "owner")
_LENGTHS = ("backoff", "backoff_cap", "grace")
_SETTINGS = ("name", "pipeline", "zone", "start", "end", "catch_up", "reprocess", "max_attempts", "promote", "paused")


def day_columns(day: Day) -> dict[str, Any]:
    """The values of a row of `schedule_runs`."""
    return {name: getattr(day, name) for name in _PLAIN} | {
        f"{name}_us": _microseconds(getattr(day, name)) for name in _INSTANTS
    }


def day_of(row: Row[Any]) -> Day:
    """A row of `schedule_runs`."""
    return Day(
        **{name: getattr(row, name) for name in _PLAIN},
        **{name: _instant(getattr(row, f"{name}_us")) for name in _INSTANTS},
    )


def schedule_columns(schedule: Schedule) -> dict[str, Any]:
    """The values of a row of `schedules`."""
    return (
        {name: getattr(schedule, name) for name in _SETTINGS}
        | {f"{name}_us": getattr(schedule, name) // _MICROSECOND for name in _LENGTHS}
        | {"at": f"{schedule.at:%H:%M}", "created_us": _microseconds(schedule.created)}
        | {"since_us": _microseconds(schedule.since)}
    )


def schedule_of(row: Row[Any]) -> Schedule:
    """A row of `schedules`."""
    values: dict[str, Any] = {name: getattr(row, name) for name in _SETTINGS}
    values |= {name: timedelta(microseconds=getattr(row, f"{name}_us")) for name in _LENGTHS}
    return Schedule(
        **values, at=time.fromisoformat(row.at), created=_instant(row.created_us), since=_instant(row.since_us)
    )


def _microseconds(at: datetime | None) -> int | None:
    return None if at is None else (at - _EPOCH) // _MICROSECOND


def _instant(us: int | None) -> Any:
    return None if us is None else _EPOCH + timedelta(microseconds=us)
