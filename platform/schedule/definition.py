"""What a schedule is: a pipeline, a local time of day, and what happens when a day is late or fails."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from rolecall.platform.errors import InputError
from rolecall.platform.schedule.calendar import days_between, instant, newest_day, zone_named

Reprocess = Literal["none", "failed", "completed"]
REPROCESS: tuple[Reprocess, ...] = get_args(Reprocess)
MOST_DAYS = 40_000
MOST_MINUTES = 7 * 24 * 60
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One row of the table `schedules`.

    `at`: local time in `zone`. `start`, `end`: first and last logical date, both included (`end` None: for ever).
    `catch_up`: execute every due date; off, only the newest. `reprocess`: what a backfill, or a definition that
    replaces this one, does with dates that were executed already. `backoff` doubles with each failure of a day, up to
    `backoff_cap`; after `max_attempts` failures a day is given up. `grace`: how long after its instant a day may be
    unfinished before it counts as missed, counted from `since` (defined, replaced or resumed) for older
    days. Raises InputError on values that make no sense.
    """

    name: str
    pipeline: str
    at: time
    zone: str
    start: date
    end: date | None = None
    catch_up: bool = True
    reprocess: Reprocess = "none"
    max_attempts: int = 3
    backoff: timedelta = timedelta(minutes=5)
    backoff_cap: timedelta = timedelta(hours=4)
    grace: timedelta = timedelta(hours=6)
    promote: bool = True
    paused: bool = False
    created: datetime
    since: datetime

    def __post_init__(self) -> None:
        _require(_NAME.fullmatch(self.name), f"name {self.name!r}", "up to 40 lower-case letters, digits, hyphens")
        _require(self.at.second == self.at.microsecond == 0 and self.at.tzinfo is None, f"at {self.at}", "HH:MM")
        _require(self.reprocess in REPROCESS, f"reprocess {self.reprocess!r}", ", ".join(REPROCESS))
        _require(1 <= self.max_attempts <= 100, f"{self.max_attempts} attempts", "1 to 100")
        _require(timedelta() < self.backoff <= self.backoff_cap, f"back-off {self.backoff}", "above 0, up to its cap")
        _require(self.backoff_cap <= timedelta(days=7), f"back-off cap {self.backoff_cap}", "at most 7 days")
        _require(timedelta() < self.grace <= timedelta(days=7), f"grace {self.grace}", "above 0, at most 7 days")
        _require(self.end is None or self.start <= self.end, f"end {self.end}", f"none, or from {self.start} on")
        _require(date(1970, 1, 2) <= self.start < date(2200, 1, 1), f"start {self.start}", "in the years 1970 to 2199")
        zone_named(self.zone)

    @property
    def zone_info(self) -> ZoneInfo:
        return zone_named(self.zone)

    def as_of(self, day: date) -> datetime:
        """The instant of a logical date, in UTC: when it falls due, and what its run is as of."""
        return instant(day, self.at, self.zone_info)

    def due(self, now: datetime) -> list[date]:
        """Every logical date that has fallen due by `now`, in order."""
        last = newest_day(now, self.at, self.zone_info)
        return self.days(self.start, last if self.end is None else min(last, self.end))

    def next_due(self, now: datetime) -> date | None:
        """The first logical date that is not due yet, or None after the end."""
        first = max(self.start, newest_day(now, self.at, self.zone_info) + timedelta(days=1))
        day = next(days_between(first, first + timedelta(days=7), self.zone_info))
        return day if self.end is None or day <= self.end else None

    def days(self, first: date, last: date) -> list[date]:
        """The zone's dates in a range, whatever start and end say. Raises InputError on more than a century."""
        _require((last - first).days < MOST_DAYS, f"{first} to {last}", f"at most {MOST_DAYS} days")
        return list(days_between(first, last, self.zone_info))


def reprocess_mode(text: str) -> Reprocess:
    """One of the reprocess modes. Raises InputError."""
    for mode in REPROCESS:
        if mode == text:
            return mode
    raise InputError(f"reprocess {text!r}", ", ".join(REPROCESS))


def time_of_day(text: str) -> time:
    """`HH:MM` as a time. Raises InputError."""
    _require(_TIME.fullmatch(text), f"time {text!r}", "HH:MM, from 00:00 to 23:59")
    return time.fromisoformat(text)


def date_of(text: str) -> date:
    """`YYYY-MM-DD` as a date. Raises InputError."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"date {text!r}", "YYYY-MM-DD") from error


def _require(holds: object, got: str, allowed: str) -> None:
    if not holds:
        raise InputError(got, allowed)


def minutes(number: float) -> timedelta:
    """A length of at most a week. Raises InputError."""
    _require(0 <= number <= MOST_MINUTES, f"{number} minutes", f"0 to {MOST_MINUTES}")
    return timedelta(minutes=number)
