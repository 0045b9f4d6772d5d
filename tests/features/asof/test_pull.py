"""What goes online: the newest row of each key in a span, and all rows of one, against their definitions."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from feast import FileSource
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.features.asof import AsofOfflineStore
from rolecall.features.asof.place import SourceError
from rolecall.features.asof.pull import Pull, all_rows, newest_rows
from tests.features.asof.repository import HOUR, NOON, feast_store, parquet, stats

SOURCE = FileSource(path="drawn.parquet")
STEP = timedelta(microseconds=500)
INSTANTS = st.none() | st.integers(-3, 3).map(lambda steps: NOON + steps * STEP)
ROWS = st.lists(st.tuples(st.sampled_from(("a", "b", None)), INSTANTS, INSTANTS), max_size=12)


def pull(start: datetime | None, end: datetime | None, **changed: Any) -> Pull:
    given: dict[str, Any] = {"keys": ["driver_id"], "features": ["trips"], "timestamp": "event_timestamp"}
    return Pull(**(given | {"source": SOURCE, "created": "created", "start": start, "end": end} | changed))


@given(ROWS, INSTANTS, INSTANTS, st.sampled_from(("ms", "us", "ns")))
@settings(deadline=None, max_examples=200)
def test_the_newest_row_of_each_key_is_the_last_by_instant_creation_and_place(
    drawn: list[Any], start: datetime | None, end: datetime | None, unit: Any
) -> None:
    numbered = [(*row, float(place)) for place, row in enumerate(drawn)]
    frame = stats(*numbered).with_columns(pl.col("event_timestamp").dt.cast_time_unit(unit))
    rows = frame.with_columns(frame["event_timestamp"].dt.cast_time_unit("us")).rows()
    inside = [r for r in rows if r[1] is not None and (not start or r[1] >= start) and (not end or r[1] <= end)]
    assert all_rows(pull(start, end), frame.lazy())["trips"].to_pylist() == [row[3] for row in inside]
    never = datetime.min.replace(tzinfo=NOON.tzinfo)
    newest: dict[str, Any] = {}
    for row in sorted(inside, key=lambda row: (row[1], row[2] or never, row[3])):
        newest[row[0]] = row[3]
    newest.pop(None, None)  # type: ignore[call-overload]
    got = newest_rows(pull(start, end), frame.lazy()).to_pylist()
    assert {row["driver_id"]: row["trips"] for row in got} == newest
    assert len(got) == len(newest)


def test_a_bound_between_two_ticks_of_a_coarse_column_is_not_rounded_over_them() -> None:
    frame = stats(("a", NOON, NOON, 1.0)).with_columns(pl.col("event_timestamp").dt.cast_time_unit("ms"))
    tick = timedelta(microseconds=1)
    assert all_rows(pull(NOON + tick, None), frame.lazy()).num_rows == 0
    assert all_rows(pull(None, NOON - tick), frame.lazy()).num_rows == 0
    assert all_rows(pull(NOON, NOON + tick), frame.lazy()).num_rows == 1


def test_without_keys_the_newest_row_of_all_is_the_one_there_is() -> None:
    frame = stats((None, NOON, NOON, 1.0), (None, NOON + HOUR, NOON, 2.0)).lazy()
    rows = newest_rows(pull(None, None, keys=[]), frame).to_pylist()
    assert [(row["trips"], row["__dummy_id"]) for row in rows] == [(2.0, "")]


def test_missing_columns_and_what_is_no_instant_are_named(tmp_path: Path) -> None:
    source = parquet(tmp_path / "stats.parquet", stats(("a", NOON, NOON, 1.0)))
    store = feast_store(tmp_path)

    def rows(*features: str, timestamp: str = "event_timestamp") -> None:
        AsofOfflineStore.pull_latest_from_table_or_query(
            store.config, source, ["driver_id"], list(features), timestamp, "created", NOON, NOON
        ).to_arrow()

    with pytest.raises(SourceError, match=r"no column rides; it has driver_id, event_timestamp, created, trips"):
        rows("rides")
    with pytest.raises(SourceError, match="trips is Float64: an instant is a timestamp column"):
        rows("trips", timestamp="trips")
