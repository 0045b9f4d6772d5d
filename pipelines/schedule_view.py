"""What the schedule commands print, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rolecall.platform.console import console, table
from rolecall.platform.schedule.definition import Schedule
from rolecall.platform.schedule.health import Health
from rolecall.platform.schedule.policy import Day
from rolecall.platform.schedule.scheduler import Event, Report

MOST_DATES = 3


def health_json(one: Health) -> dict[str, Any]:
    """A schedule and how it stands, as `schedule list --json` and `tick --json` print it."""
    return {
        "name": one.schedule.name,
        "verdict": one.verdict,
        "well": one.well,
        "pipeline": one.schedule.pipeline,
        "at": f"{one.schedule.at:%H:%M}",
        "zone": one.schedule.zone,
        "paused": one.schedule.paused,
        "last_success": one.last_success and one.last_success.logical_date,
        "next_due": one.next_due,
        "missed": one.missed,
        "failed": one.failed,
        "waiting": one.waiting,
        "open": one.open and asdict(one.open),
    }


def report_json(report: Report, standing: Sequence[Health]) -> dict[str, Any]:
    """What a tick did and how the schedules stand after it."""
    return {
        "ok": not report.bad and all(one.well for one in standing),
        "events": [asdict(event) for event in report.events],
        "schedules": [health_json(one) for one in standing],
    }


def day_row(day: Day) -> dict[str, Any]:
    """A line of `schedule show`."""
    return {
        "date": str(day.logical_date),
        "as of (UTC)": f"{day.as_of:%Y-%m-%d %H:%M}",
        "state": day.state,
        "attempt": day.attempt,
        "ended (UTC)": f"{day.finished:%Y-%m-%d %H:%M}" if day.finished else "",
        "submission id": day.submission_id or "",
        "what": _what(day),
    }


def print_health(standing: Sequence[Health]) -> None:
    """A line a schedule, and below what is wrong and how to mend it."""
    rows = [
        {
            "schedule": one.schedule.name,
            "": one.verdict,
            "what": f"{one.schedule.pipeline} at {one.schedule.at:%H:%M} {one.schedule.zone}",
            "last success": str(one.last_success.logical_date) if one.last_success else "none",
            "next": _next(one),
            "missed": _dates(one.missed),
            "failed": _dates(one.failed),
        }
        for one in standing
    ]
    console.print(table("Schedules", rows) if rows else "no schedule is defined: `rolecall schedule add NAME`")
    for one in standing:
        if one.open is not None and one.open.error:
            console.print(f"  {one.open.logical_date}: {_what(one.open)}", markup=False, soft_wrap=True)
        if one.failed:
            name, first, last = one.schedule.name, min(one.failed), max(one.failed)
            mend = f"rolecall backfill {name} --from {first} --to {last} --reprocess failed"
            console.print(f"  {mend}, or `rolecall schedule skip {name} DATE`", markup=False, soft_wrap=True)


def print_schedule(schedule: Schedule, again: int, now: datetime) -> None:
    """What `schedule add` defined, and when it begins."""
    console.print(f"schedule [bold]{schedule.name}[/]: {schedule.pipeline} at {schedule.at:%H:%M} {schedule.zone}")
    due, upcoming = schedule.due(now), schedule.next_due(now)
    if due:
        console.print(f"  {len(due)} dates are due, {due[0]} to {due[-1]}: `rolecall schedule tick` executes them")
    if upcoming:
        console.print(f"  next: {upcoming}, due {schedule.as_of(upcoming):%Y-%m-%d %H:%M} UTC")
    if again:
        console.print(f"  {again} dates that were executed before are entered again")


def print_event(event: Event) -> None:
    """A line for something a tick did."""
    attempt = f" (attempt {event.attempt})" if event.attempt else ""
    text = f"{event.schedule} {event.logical_date}{attempt}: {event.what}"
    console.print(f"{text}  {event.detail}".rstrip(), markup=False, soft_wrap=True)


def _what(day: Day) -> str:
    if day.state == "waiting" and day.next_attempt is not None:
        return f"next attempt {day.next_attempt:%Y-%m-%d %H:%M} UTC; {_last_line(day.error)}"
    return _last_line(day.error)


def _last_line(error: str | None) -> str:
    lines = [line for line in (error or "").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _next(one: Health) -> str:
    if one.open is not None:
        return f"{one.open.logical_date} {one.open.state}"
    return "" if one.next_due is None else f"{one.schedule.as_of(one.next_due):%Y-%m-%d %H:%M} UTC"


def _dates(days: Sequence[Any]) -> str:
    told = ", ".join(str(day) for day in days[:MOST_DATES])
    return told if len(days) <= MOST_DATES else f"{told} and {len(days) - MOST_DATES} more"
