"""Text to typed values: what is understood, and that nothing raises."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.features.schema import EXPERIENCE, TEXT_LIST, TIMESTAMP
from rolecall.features.values import Parse, convert

KINDS = [TIMESTAMP, pa.date32(), pa.bool_(), pa.float64(), pa.int32(), pa.int64(), pa.string(), TEXT_LIST]
INSTANT = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)


def one(text: object, kind: pa.DataType, parse: Parse = Parse()) -> tuple[object, str | None]:
    made = convert(pl.Series([text], dtype=pl.String if isinstance(text, str) else None, strict=False), kind, parse)
    return made.values[0], made.fault[0]


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T12:30:05Z",
        "2026-03-01 12:30:05 UTC",
        "2026-03-01 12:30:05.000000000+00:00",
        "2026-03-01T14:30:05+02",
        "2026-03-01T07:00:05-0530",
        "2026-03-01 12:30:05 gmt",
        "1772368205",
        "1772368205.0",
        "1772368205000",
        "1772368205000000",
    ],
)
def test_every_way_to_write_an_instant_gives_the_same_instant(text: str) -> None:
    assert one(text, TIMESTAMP) == (INSTANT, None)


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)),  # noqa: DTZ001 - hypothesis wants naive bounds
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_an_iso_instant_survives_being_written_and_read(naive: datetime, zone: timezone) -> None:
    at = naive.replace(tzinfo=zone)
    assert one(at.isoformat(), TIMESTAMP) == (at.astimezone(UTC), None)


def test_an_instant_without_a_zone_is_refused_unless_one_is_declared() -> None:
    assert one("2026-03-01 12:30:05", TIMESTAMP) == (None, "no_zone")
    assert one("2026-03-01", TIMESTAMP) == (None, "no_zone")
    assert one("2026-03-01 13:30:05", TIMESTAMP, Parse(zone="Europe/Berlin")) == (INSTANT, None)
    assert one(INSTANT.replace(tzinfo=None), TIMESTAMP) == (None, "no_zone")


def test_a_declared_zone_leaves_instants_that_name_one_alone() -> None:
    assert one("2026-03-01T12:30:05Z", TIMESTAMP, Parse(zone="Asia/Tokyo")) == (INSTANT, None)


def test_a_local_time_that_the_clocks_skip_is_no_time_and_one_that_occurs_twice_is_the_earlier() -> None:
    berlin = Parse(zone="Europe/Berlin")
    assert one("2026-03-29 02:30:00", TIMESTAMP, berlin) == (None, "bad_time")
    assert one("2026-10-25 02:30:00", TIMESTAMP, berlin) == (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), None)


def test_a_format_reads_what_iso_does_not() -> None:
    parse = Parse(format="%d.%m.%Y %H:%M", zone="UTC")
    assert one("01.03.2026 12:30", TIMESTAMP, parse) == (datetime(2026, 3, 1, 12, 30, tzinfo=UTC), None)
    assert one("01.03.2026", TIMESTAMP, Parse(format="%d.%m.%Y", zone="UTC"))[0] == datetime(2026, 3, 1, tzinfo=UTC)
    assert one("01.03.2026 12:30", TIMESTAMP, Parse(format="%d.%m.%Y %H:%M")) == (None, "no_zone")
    assert one("03/01/26", pa.date32(), Parse(format="%m/%d/%y")) == (date(2026, 3, 1), None)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("soon", TIMESTAMP, "bad_time"),
        ("2026-13-01T00:00:00Z", TIMESTAMP, "bad_time"),
        ("0113-11-17T00:00:00Z", TIMESTAMP, "out_of_range"),
        ("2026-02-30", pa.date32(), "bad_date"),
        ("0113-11-17", pa.date32(), "out_of_range"),
        ("nan", pa.float64(), "bad_number"),
        ("1e999", pa.float64(), "bad_number"),
        ("2.5", pa.int32(), "bad_number"),
        ("99999999999", pa.int32(), "bad_number"),
        ("perhaps", pa.bool_(), "bad_value"),
        ("sql, python", TEXT_LIST, "bad_json"),
        ('{"a": 1}', TEXT_LIST, "bad_value"),
        ('[{"role": "cook"}]', pa.list_(EXPERIENCE), "bad_value"),
        ('[{"started_at": "spring"}]', pa.list_(EXPERIENCE), "bad_date"),
    ],
)
def test_a_value_that_cannot_be_read_has_its_reason(text: str, kind: pa.DataType, reason: str) -> None:
    assert one(text, kind) == (None, reason)


def test_blank_text_is_null_and_text_is_trimmed() -> None:
    assert all(one("  ", kind) == (None, None) for kind in KINDS)
    assert one(" cook\r\n", pa.string()) == ("cook", None)


def test_lists_are_read_from_json_and_from_native_columns_alike() -> None:
    native = convert(pl.Series([["a", " ", None, " b"]]), TEXT_LIST).values.to_list()
    assert native == [["a", "b"]] == convert(pl.Series(['["a", " ", null, " b"]']), TEXT_LIST).values.to_list()
    entries = [{"title": "cook", "started_at": date(2020, 1, 1)}]
    expected = [
        {"title": "cook", "company": None, "started_at": date(2020, 1, 1), "ended_at": None, "description": None}
    ]
    assert convert(pl.Series([entries]), pa.list_(EXPERIENCE)).values.to_list() == [expected]


@given(st.lists(st.one_of(st.none(), st.text()), min_size=1, max_size=5), st.sampled_from(KINDS))
def test_no_text_makes_conversion_raise_and_every_loss_has_a_reason(texts: list[str | None], kind: pa.DataType) -> None:
    made = convert(pl.Series(texts, dtype=pl.String), kind)
    assert len(made.values) == len(made.fault) == len(texts)
    for text, value, fault in zip(texts, made.values.to_list(), made.fault.to_list(), strict=True):
        assert (fault is not None) == (
            value is None and text is not None and pl.Series([text]).str.strip_chars()[0] != ""
        )
