"""Every date of a zone's calendar has exactly one instant, in order, whatever its clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.platform.errors import InputError
from rolecall.platform.schedule.calendar import days_between, exists, instant, newest_day, zone_named

ZONES = st.sampled_from(sorted(available_timezones()))
TIMES = st.builds(time, st.integers(0, 23), st.sampled_from((0, 1, 29, 30, 45, 59)))
DAYS = st.dates(date(1975, 1, 1), date(2037, 12, 1))


@given(zone=ZONES, at=TIMES, first=DAYS)
@settings(max_examples=150, deadline=None)
def test_instants_of_successive_dates_rise_strictly(zone: str, at: time, first: date) -> None:
    place = zone_named(zone)
    instants = [instant(day, at, place) for day in days_between(first, first + timedelta(days=40), place)]
    assert all(early < late for early, late in pairwise(instants))


@given(zone=ZONES, at=TIMES, first=DAYS)
@settings(max_examples=60, deadline=None)
def test_the_newest_date_is_the_last_whose_instant_has_come(zone: str, at: time, first: date) -> None:
    place = zone_named(zone)
    days = list(days_between(first, first + timedelta(days=10), place))
    for early, late in pairwise(days):
        assert newest_day(instant(early, at, place), at, place) == early
        assert newest_day(instant(late, at, place) - timedelta(microseconds=1), at, place) == early


@given(zone=ZONES, seconds=st.integers(157_766_400, 2_143_238_400))
@settings(max_examples=150, deadline=None)
def test_every_date_a_clock_ever_showed_is_a_date_of_the_calendar(zone: str, seconds: int) -> None:
    place = zone_named(zone)
    assert exists(datetime.fromtimestamp(seconds, UTC).astimezone(place).date(), place)


@pytest.mark.parametrize(
    ("zone", "day", "at", "expected"),
    [
        ("Europe/Berlin", date(2026, 3, 29), time(2, 30), "2026-03-29T01:30"),  # skipped: 03:30 summer time
        ("Europe/Berlin", date(2026, 10, 25), time(2, 30), "2026-10-25T00:30"),  # twice: the first
        ("America/New_York", date(2026, 3, 8), time(2, 30), "2026-03-08T07:30"),
        ("America/New_York", date(2026, 11, 1), time(1, 30), "2026-11-01T05:30"),
        ("Australia/Lord_Howe", date(2026, 10, 4), time(2, 15), "2026-10-03T15:45"),  # half an hour
        ("Australia/Lord_Howe", date(2026, 4, 5), time(1, 45), "2026-04-04T14:45"),
        ("America/Sao_Paulo", date(2018, 11, 4), time(0, 30), "2018-11-04T03:30"),  # the gap is at midnight
        ("Asia/Kolkata", date(2026, 6, 1), time(3, 30), "2026-05-31T22:00"),
    ],
)
def test_a_time_the_clock_skips_or_repeats_has_one_instant(zone: str, day: date, at: time, expected: str) -> None:
    assert instant(day, at, zone_named(zone)) == datetime.fromisoformat(f"{expected}:00+00:00")


@pytest.mark.parametrize(
    ("zone", "day"), [("Pacific/Apia", date(2011, 12, 30)), ("Pacific/Kwajalein", date(1993, 8, 21))]
)
def test_a_date_the_zone_left_out_is_no_date(zone: str, day: date) -> None:
    place = zone_named(zone)
    around = list(days_between(day - timedelta(days=1), day + timedelta(days=1), place))
    assert around == [day - timedelta(days=1), day + timedelta(days=1)]


@pytest.mark.parametrize("name", ["Europe/Nowhere", "", "../etc/passwd", "CEST+"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="time zone"):
        zone_named(name)
