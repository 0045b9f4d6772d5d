"""The feature step: what a run as of an instant may know."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from rolecall.features.mapping import load_mapping
from rolecall.features.schema import CANDIDATES, EVENTS
from rolecall.pipelines.ingest import ingest
from rolecall.pipelines.materialize import (
    feature_sources,
    feature_store,
    materialize,
    publish_consents,
    read_as_of,
)
from rolecall.platform.tables import TableStore

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


def test_a_consent_taken_back_is_obeyed_once_it_is_ingested(world: World, tmp_path: Path) -> None:
    settings = world.settings.model_copy(update={"home": tmp_path / "home"})
    tables, before = TableStore(settings.tables_uri), world.as_of - timedelta(days=3)
    someone = world.candidates.head(1).with_columns(consent=pl.lit(True), updated_at=pl.lit(before))
    name = someone["candidate_id"][0]

    def agreed() -> object:
        return feature_store(settings).online_consent([name], at=world.as_of)[0]["consent"]

    publish_consents(settings, CANDIDATES, someone)
    assert agreed() is None, "no release shows anybody yet"
    tables.upsert(CANDIDATES, someone.to_arrow().cast(CANDIDATES.columns))
    materialize(tables, {"candidates": 0}, as_of=world.as_of, settings=settings, folder=tmp_path / "views")
    assert agreed() == 1.0
    row = {"candidate_id": name, "consent": False, "updated_at": (before + timedelta(days=1)).isoformat()}
    (tmp_path / "candidates.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    ingest(tmp_path / "candidates.jsonl", load_mapping("native"), tables, publish=partial(publish_consents, settings))
    assert agreed() == 0.0
    # a run that was pinned before goes on
    materialize(tables, {"candidates": 0}, as_of=world.as_of, settings=settings, folder=tmp_path / "again")
    assert agreed() == 0.0
