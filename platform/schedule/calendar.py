"""From dates in a time zone to instants, so that every date has exactly one.

A *logical date* is a date of the zone's calendar; its instant is the schedule's local time on it. Where the clock jumps
over that time, it is read with the offset before the jump (02:30 in a gap of an hour means 03:30, the same distance
from midnight); where the clock shows it twice, the first time counts (PEP 495, fold 0). A date the zone itself left
out, as Pacific/Apia did with 2011-12-30, is no logical date.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rolecall.platform.errors import InputError

ONE_DAY = timedelta(days=1)


@lru_cache(maxsize=64)
def zone_named(name: str) -> ZoneInfo:
    """The IANA time zone of that name. Raises InputError where there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(f"time zone {name!r}", "an IANA name, for example Europe/Berlin or UTC") from error


def instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    """The instant, in UTC, of the local time `at` on `day`."""
    return datetime.combine(day, at.replace(fold=0, tzinfo=zone)).astimezone(UTC)


def exists(day: date, zone: ZoneInfo) -> bool:
    """Whether the zone's calendar has the date at all."""
    return instant(day, time(), zone) < instant(day + ONE_DAY, time(), zone)


def days_between(first: date, last: date, zone: ZoneInfo) -> Iterator[date]:
    """The zone's dates from `first` to `last`, both included, in order."""
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        if exists(day, zone):
            yield day


def newest_day(now: datetime, at: time, zone: ZoneInfo) -> date:
    """The latest date whose instant is not after `now`."""
    day = now.astimezone(zone).date() + ONE_DAY
    while not exists(day, zone) or instant(day, at, zone) > now:
        day -= ONE_DAY
    return day
