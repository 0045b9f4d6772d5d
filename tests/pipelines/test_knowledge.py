"""What may be known at an instant: nothing of a row decides but when it was recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.features.schema import CANDIDATES, EMPLOYERS, EVENTS, JOBS
from rolecall.pipelines.knowledge import (
    ANSWER_DAYS,
    Window,
    Windows,
    catalogue_as_of,
    midnight_before,
    read_as_of,
    recorded,
)
from rolecall.platform.errors import InputError
from rolecall.platform.settings import RankingSettings

if TYPE_CHECKING:
    from conftest import World

DAY = timedelta(days=1)
instants = st.integers(0, 10**15).map(lambda us: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))


@given(instants, st.integers(1, 60), st.integers(1, 60))
@settings(deadline=None)
def test_learning_ends_where_evaluation_begins(as_of: datetime, train: int, judged: int) -> None:
    windows = Windows.of(as_of, RankingSettings(train_days=train, evaluation_days=judged))
    assert windows.learning.end == windows.evaluation.start == as_of - judged * DAY
    assert windows.people_learning.end == windows.people_evaluation.start
    assert windows.people_learning.end == windows.learning.end - ANSWER_DAYS * DAY
    assert windows.evaluation.end == windows.people_evaluation.end == as_of
    assert windows.earliest == min(windows.learning.start, windows.people_evaluation.start)


@given(st.lists(instants, max_size=20), instants, st.integers(0, 30))
@settings(deadline=None)
def test_labels_of_a_window_end_where_it_does(times: list[datetime], start: datetime, days: int) -> None:
    window = Window(start=start, end=start + days * DAY)
    log = pl.DataFrame({"occurred_at": times}, schema={"occurred_at": pl.Datetime("us", "UTC")})
    assert window.told(log)["occurred_at"].to_list() == [at for at in times if at < window.end]
    assert log.filter(window.asks())["occurred_at"].to_list() == [at for at in times if start <= at < window.end]


@pytest.mark.parametrize(("schema", "at_the_instant"), [(EVENTS, 0), (JOBS, 1), (CANDIDATES, 1), (EMPLOYERS, 1)])
def test_an_event_is_known_after_its_instant_and_all_else_from_it_on(schema: object, at_the_instant: int) -> None:
    at = datetime(2026, 9, 1, 12, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    rows = pl.DataFrame({schema.time: [at - tick, at, at + tick]})  # type: ignore[attr-defined]
    assert rows.filter(recorded(at, schema)).height == 1 + at_the_instant  # type: ignore[arg-type]


@given(instants, st.integers(-12, 14))
@settings(deadline=None)
def test_daily_features_are_of_the_midnight_before_in_utc(at: datetime, zone: int) -> None:
    midnight = midnight_before(at.astimezone(timezone(timedelta(hours=zone))))
    assert midnight.utcoffset() == timedelta(0)
    assert timedelta(0) <= at - midnight < DAY
    assert midnight == midnight_before(midnight)


def test_the_catalogue_holds_what_could_be_shown_in_the_window_before(world: World) -> None:
    moment, window = world.start + 5 * DAY, 3 * DAY
    jobs = pl.DataFrame(catalogue_as_of(world.tables, world.versions, moment, window=window))
    whole = read_as_of(world.tables, JOBS, world.versions, moment)
    posted = pl.col("posted_at").is_null() | (pl.col("posted_at") <= moment)
    live = pl.col("expires_at").is_null() | (pl.col("expires_at") > moment - window)
    shown = whole.filter(posted, live)
    assert 0 < shown.height < world.pairs.catalogue.table.num_rows
    assert jobs["job_id"].to_list() == sorted(shown["job_id"])


def test_a_table_that_did_not_exist_is_empty(world: World) -> None:
    assert read_as_of(world.tables, JOBS, {}, world.as_of).is_empty()
    with pytest.raises(InputError, match="no job was live"):
        catalogue_as_of(world.tables, {}, world.as_of, window=DAY)
