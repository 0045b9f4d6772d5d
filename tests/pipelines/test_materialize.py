"""The feature step: what a run as of an instant may know."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest

from rolecall.features.schema import CANDIDATES, EVENTS
from rolecall.pipelines.materialize import feature_sources, materialize, read_as_of

if TYPE_CHECKING:
    from conftest import World


def test_a_run_sees_events_strictly_before_its_instant_and_everything_else_up_to_it(world: World) -> None:
    moment = world.events["occurred_at"].sort()[500]
    seen = read_as_of(world.tables, EVENTS, world.versions, moment)
    assert seen.height == (world.events["occurred_at"] < moment).sum()
    newest = world.candidates["updated_at"].max()
    assert read_as_of(world.tables, CANDIDATES, world.versions, newest).height == world.candidates.height


def test_a_table_that_did_not_exist_reads_as_empty(world: World) -> None:
    assert read_as_of(world.tables, EVENTS, {"events": None}, world.as_of).is_empty()


def test_rows_written_after_the_pin_change_nothing(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    pinned = {**world.versions, "events": 0}
    before = read_as_of(world.tables, EVENTS, pinned, world.as_of).sort("event_id")
    late = world.events.head(1).with_columns(pl.lit("late").alias("event_id"))
    world.tables.upsert(EVENTS, late.select(EVENTS.columns.names).to_arrow().cast(EVENTS.columns))
    assert read_as_of(world.tables, EVENTS, pinned, world.as_of).sort("event_id").equals(before)


def test_a_past_days_run_gives_that_days_rows_and_leaves_the_online_store_alone(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    past = world.as_of - timedelta(days=5)
    report = materialize(
        world.tables, world.versions, as_of=past, settings=world.settings, folder=tmp_path_factory.mktemp("past")
    )
    assert not report.online
    whole = feature_sources(
        world.events, world.candidates, world.employers, settings=world.settings, as_of=world.as_of
    )["candidate_history"]
    assert report.rows["candidate_history"] == (whole["event_timestamp"] <= past).sum()
