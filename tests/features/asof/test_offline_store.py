"""`AsofOfflineStore` through real Feast: what a retrieval gives, held against the definition of the join."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource
from feast.data_source import DataSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Bytes, Float64, String
from hypothesis import HealthCheck, given, settings

from rolecall.features.asof import AsofOfflineStore, DeltaSource
from rolecall.features.asof.view import AsofView
from tests.features.asof.cases import Case, cases, got
from tests.features.asof.repository import DRIVER, HOUR, NOON, asked, feast_store, feature_view, parquet, stats, trips

DRAWN = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store with nothing registered."""
    return feast_store(tmp_path_factory.mktemp("empty"))


def objects_of(case: Case, home: Path, *, folders: bool) -> list[Any]:
    """Feast's objects for a drawn join: each view's rows in a file, or in a folder of two."""
    return [thing for view in case.views for thing in _view_objects(view, home, folders=folders)]


def _view_objects(view: AsofView, home: Path, *, folders: bool) -> list[Any]:
    rows, path = view.rows.collect(), home / (view.name if folders else f"{view.name}.parquet")
    if folders:
        path.mkdir()
        half = rows.height // 2
        rows[:half].write_parquet(path / "a.parquet")
        rows[half:].write_parquet(path / "b.parquet")
    else:
        rows.write_parquet(path)
    source = FileSource(
        name=view.name, path=str(path), timestamp_field=view.timestamp, created_timestamp_column=view.created or ""
    )
    entities = [Entity(name=key, join_keys=[key]) for key in view.keys.values()]
    return [*entities, _feast_view(view, source, entities)]


def _feast_view(view: AsofView, source: FileSource, entities: Sequence[Entity]) -> FeatureView:
    fields = [Field(name=name, dtype=Bytes) for name in (*view.keys.values(), *view.columns)]
    return FeatureView(name=view.name, entities=list(entities), ttl=view.ttl, schema=fields, source=source)


def retrieved(case: Case, home: Path, empty: FeatureStore, *, folders: bool) -> pa.Table:
    objects = objects_of(case, home, folders=folders)
    views = [thing for thing in objects if isinstance(thing, FeatureView)]
    mapped = [
        feast.with_join_key_map({theirs: ours for ours, theirs in view.keys.items()}) if view.keys else feast
        for feast, view in zip(views, case.views, strict=True)
    ]
    job = AsofOfflineStore.get_historical_features(
        config=empty.config,
        feature_views=mapped,
        feature_refs=[f"{view.name}:{column}" for view in case.views for column in view.columns],
        entity_df=case.entities,
        registry=empty.registry,
        project=empty.project,
        full_feature_names=True,
        filter_by_created_timestamp=case.known_only,
    )
    return job.to_arrow()


@given(cases())
@settings(DRAWN, max_examples=60)
def test_files_and_folders_give_what_the_definition_says(empty: FeatureStore, case: Case) -> None:
    for folders in (False, True):
        with tempfile.TemporaryDirectory() as home:
            assert got(case, retrieved(case, Path(home), empty, folders=folders)) == case.expected()


@pytest.mark.slow
@given(cases())
@settings(DRAWN, max_examples=2000)
def test_files_give_what_the_definition_says_in_two_thousand_cases(empty: FeatureStore, case: Case) -> None:
    with tempfile.TemporaryDirectory() as home:
        assert got(case, retrieved(case, Path(home), empty, folders=False)) == case.expected()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


ROWS = stats(
    ("a", NOON + 2 * HOUR, NOON + 2 * HOUR, 3.0),
    ("a", NOON, NOON, 1.0),
    ("a", NOON, NOON + 5 * HOUR, 2.0),
    ("b", NOON, NOON, 7.0),
    (None, NOON, NOON, 9.0),
)


def store_of(home: Path, rows: pl.DataFrame = ROWS, *, ttl: timedelta | None = None, **options: Any) -> FeatureStore:
    source = parquet(home / "stats.parquet", rows, **options)
    return feast_store(home, [DRIVER, feature_view(source, {"trips": Float64}, ttl=ttl)])


def test_rows_keep_their_order_their_columns_and_their_repeats(home: Path) -> None:
    entities = asked(("b", NOON), ("a", NOON + HOUR), (None, NOON), ("b", NOON), ("a", NOON - HOUR), ("x", NOON))
    entities = entities.with_columns(label=pl.Series(range(entities.height)))
    table = store_of(home).get_historical_features(entity_df=entities, features=["stats:trips"]).to_arrow()
    assert table.column_names == ["driver_id", "event_timestamp", "label", "trips"]
    assert table["label"].to_pylist() == list(range(6))
    assert table["trips"].to_pylist() == [7.0, 2.0, None, 7.0, None, None]


def test_pandas_polars_and_arrow_rows_are_answered_alike(home: Path) -> None:
    store, frame = store_of(home), asked(("a", NOON + HOUR), ("b", NOON))
    for entities in (frame, frame.to_pandas(), frame.to_arrow()):
        assert trips(store, entities) == [2.0, 7.0]
    assert store.get_historical_features(frame.to_pandas(), ["stats:trips"]).to_df()["trips"].tolist() == [2.0, 7.0]


def test_an_instant_is_one_whatever_its_zone_unit_and_spelling(home: Path) -> None:
    store, york = store_of(home), ZoneInfo("America/New_York")
    texts = ["2026-03-01T12:00:00Z", "2026-03-01T07:00:00-05:00", "2026-03-01 12:00:00"]
    mixed = [NOON, NOON.astimezone(york), pd.Timestamp(NOON)]
    for instants in (texts, mixed, pd.to_datetime([NOON] * 3), pd.to_datetime([NOON.astimezone(york)] * 3)):
        frame = pd.DataFrame({"driver_id": ["a", "a", "b"], "event_timestamp": instants})
        assert trips(store, frame) == [2.0, 2.0, 7.0]
    naive = pl.Series([NOON.replace(tzinfo=None)]).dt.cast_time_unit("ns")
    assert trips(store, pl.DataFrame({"driver_id": ["b"], "event_timestamp": naive})) == [7.0]


def test_a_lone_timestamp_column_is_the_instant(home: Path) -> None:
    frame = asked(("a", NOON + 3 * HOUR)).rename({"event_timestamp": "shown_at"})
    assert trips(store_of(home), frame) == [3.0]


def test_no_entity_rows_and_no_feature_rows_give_empty_and_null(home: Path) -> None:
    assert trips(store_of(home / "some"), asked()) == []
    assert trips(store_of(home / "none", ROWS.clear()), asked(("a", NOON))) == [None]


def test_ttl_is_inclusive_and_each_view_has_its_own(home: Path) -> None:
    source = parquet(home / "stats.parquet", stats(("b", NOON, NOON, 7.0)))
    views = [
        feature_view(source, {"trips": Float64}, name=name, ttl=ttl)
        for name, ttl in (("hour", HOUR), ("day", 24 * HOUR), ("ever", None))
    ]
    entities = asked(("b", NOON + HOUR), ("b", NOON + HOUR + timedelta(microseconds=1)), ("b", NOON + 25 * HOUR))
    table = feast_store(home, [DRIVER, *views]).get_historical_features(
        entity_df=entities, features=[f"{view.name}:trips" for view in views], full_feature_names=True
    )
    assert table.to_arrow().select(["hour__trips", "day__trips", "ever__trips"]).to_pydict() == {
        "hour__trips": [7.0, None, None],
        "day__trips": [7.0, 7.0, None],
        "ever__trips": [7.0, 7.0, 7.0],
    }


def test_what_was_not_yet_written_is_unknown_where_asked_so(home: Path) -> None:
    store, entities = store_of(home), asked(("a", NOON + HOUR), ("a", NOON + 6 * HOUR))
    assert trips(store, entities) == [2.0, 3.0]
    assert trips(store, entities, filter_by_created_timestamp=True) == [1.0, 3.0]
    assert trips(store, asked(("a", NOON - HOUR)), filter_by_created_timestamp=True) == [None]


def test_columns_are_mapped_before_anything_else(home: Path) -> None:
    rows = ROWS.rename({"driver_id": "id", "event_timestamp": "at", "trips": "n", "created": "written"})
    mapping = {"id": "driver_id", "at": "event_timestamp", "n": "trips", "written": "created", "none": "such"}
    store = store_of(home, rows, field_mapping=mapping)
    assert trips(store, asked(("a", NOON + HOUR), ("b", NOON))) == [2.0, 7.0]


def test_one_view_is_asked_for_two_keys_under_two_names(home: Path) -> None:
    store = store_of(home)
    view = store.get_feature_view("stats")
    both = [view.with_name(n).with_join_key_map({"driver_id": f"{n}_id"}) for n in ("first", "second")]
    service = FeatureService(name="pair", features=both)
    store.apply([service])
    entities = pl.DataFrame({"first_id": ["a"], "second_id": ["b"], "event_timestamp": [NOON + HOUR]})
    table = store.get_historical_features(entities, features=service, full_feature_names=True).to_arrow()
    assert (table["first__trips"].to_pylist(), table["second__trips"].to_pylist()) == ([2.0], [7.0])


def test_on_demand_features_are_computed_from_rows_and_request(home: Path) -> None:
    source = parquet(home / "stats.parquet", ROWS)
    view = feature_view(source, {"trips": Float64})
    request = RequestSource(name="request", schema=[Field(name="extra", dtype=Float64)])

    @on_demand_feature_view(
        sources=[view, request],
        schema=[Field(name="total", dtype=Float64), Field(name="twice", dtype=Float64)],
        mode="python",
    )
    def sums(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pairs = zip(inputs["trips"], inputs["extra"], strict=True)
        return {"total": [a + b for a, b in pairs], "twice": [2 * a for a in inputs["trips"]]}

    store = feast_store(home, [DRIVER, view, request, sums])
    entities = asked(("a", NOON + HOUR), ("b", NOON)).with_columns(extra=pl.Series([0.5, 1.5]))
    job = store.get_historical_features(entities, features=["sums:total"])
    assert job.to_arrow()["total"].to_pylist() == [2.5, 8.5]
    assert "twice" not in job.to_df().columns
    assert [row for batch in job.to_arrow_batches(rows=1) for row in batch["total"].to_pylist()] == [2.5, 8.5]


def test_without_entity_rows_every_key_comes_at_each_of_its_instants(home: Path) -> None:
    store = store_of(home, ttl=HOUR)
    for start, end, expected in (
        (NOON, NOON + 2 * HOUR, {("a", NOON): 2.0, ("a", NOON + 2 * HOUR): 3.0, ("b", NOON): 7.0}),
        (NOON + HOUR, NOON + 2 * HOUR, {("a", NOON + 2 * HOUR): 3.0}),
        (NOON - HOUR, NOON - timedelta(microseconds=1), {}),
    ):
        job = store.get_historical_features(features=["stats:trips"], start_date=start, end_date=end)
        rows = job.to_arrow().to_pylist()
        assert {(row["driver_id"], row["event_timestamp"]): row["trips"] for row in rows} == expected
        assert job.metadata is not None
        assert job.metadata.keys == ["driver_id"]


@pytest.mark.parametrize("other", ["us", "ms"])
def test_without_entity_rows_an_instant_of_another_unit_still_sees_its_own_row(home: Path, other: Any) -> None:
    """The finer view's row is not yet there at its instant rounded down to the other's unit."""
    late = stats(("a", NOON, NOON, 1.0)).with_columns(pl.col("event_timestamp").dt.cast_time_unit("ns"))
    late = late.with_columns((pl.col("event_timestamp").to_physical() + 1).cast(pl.Datetime("ns", "UTC")))
    early = stats(("b", NOON, NOON, 2.0)).with_columns(pl.col("event_timestamp").dt.cast_time_unit(other))
    views = [
        feature_view(parquet(home / f"{name}.parquet", rows), {"trips": Float64}, name=name)
        for name, rows in (("fine", late), ("coarse", early))
    ]
    store = feast_store(home / "repo", [DRIVER, *views])
    found = store.get_historical_features(
        entity_df=None,
        features=["fine:trips", "coarse:trips"],
        start_date=NOON - HOUR,
        end_date=NOON + HOUR,
        full_feature_names=True,
    ).to_arrow()
    seen = {(row["driver_id"], row["fine__trips"], row["coarse__trips"]) for row in found.to_pylist()}
    assert seen == {("a", 1.0, None), ("b", None, 2.0)}


def test_a_view_without_entities_gives_every_row_the_newest(home: Path) -> None:
    source = parquet(home / "world.parquet", stats((None, NOON, NOON, 1.0), (None, NOON + HOUR, NOON, 2.0)))
    view = FeatureView(name="world", entities=[], schema=[Field(name="trips", dtype=Float64)], source=source)
    store = feast_store(home, [view])
    assert trips(store, asked(("a", NOON), ("b", NOON + HOUR), (None, NOON - HOUR)), ["world:trips"]) == [1, 2, None]
    job = store.get_historical_features(features=["world:trips"], start_date=NOON, end_date=NOON + HOUR)
    assert job.to_arrow()["trips"].to_pylist() == [1.0, 2.0]


def test_views_with_other_keys_each_bring_their_own_rows(home: Path) -> None:
    city = Entity(name="city", join_keys=["city_id"])
    weather = ROWS.rename({"driver_id": "city_id", "trips": "rain"})
    fields = [Field(name="city_id", dtype=String), Field(name="rain", dtype=Float64)]
    source = parquet(home / "weather.parquet", weather)
    view = FeatureView(name="weather", entities=[city], schema=fields, source=source)
    drivers = feature_view(parquet(home / "stats.parquet", ROWS), {"trips": Float64})
    store = feast_store(home, [DRIVER, city, drivers, view])
    job = store.get_historical_features(features=["stats:trips", "weather:rain"], start_date=NOON, end_date=NOON)
    rows = {(row["driver_id"], row["city_id"]): (row["trips"], row["rain"]) for row in job.to_arrow().to_pylist()}
    one_side: dict[Any, Any] = {(key, None): (value, None) for key, value in (("a", 2.0), ("b", 7.0))}
    assert rows == one_side | {(None, key): (None, value) for key, value in (("a", 2.0), ("b", 7.0))}


def test_a_repository_names_the_store_by_its_dotted_path_and_serves_what_it_materialized(home: Path) -> None:
    (home / "feature_store.yaml").write_text(
        "project: test\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
        "materialization:\n  pull_latest_features: true\n"
        "offline_store:\n  type: rolecall.features.asof.AsofOfflineStore\n  memory: 1GB\n"
        "online_store:\n  type: sqlite\n  path: online.db\n"
    )
    store = FeatureStore(repo_path=str(home))
    parquet(home / "stats.parquet", ROWS)
    parquet(home / "world.parquet", stats((None, NOON, NOON, 1.0), (None, NOON + HOUR, NOON, 2.0)))
    options = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created"}
    world = FeatureView(
        name="world",
        entities=[],
        schema=[Field(name="storms", dtype=Float64)],
        source=FileSource(path="world.parquet", field_mapping={"trips": "storms"}, **options),
    )
    view = feature_view(FileSource(path="stats.parquet", **options), {"trips": Float64})
    store.apply([DRIVER, view, world])
    store.materialize(NOON - HOUR, NOON + 3 * HOUR)
    reply = store.get_online_features(["stats:trips", "world:storms"], [{"driver_id": "a"}, {"driver_id": "x"}])
    assert reply.to_dict()["trips"] == [3.0, None]
    assert reply.to_dict()["storms"] == [2.0, 2.0]


def test_nothing_is_read_before_the_result_is_asked_for(home: Path) -> None:
    store = store_of(home)
    job = store.get_historical_features(asked(("b", NOON)), ["stats:trips"])
    parquet(home / "stats.parquet", stats(("b", NOON, NOON, 8.0)))
    assert job.to_arrow()["trips"].to_pylist() == [8.0]


def test_the_package_needs_nothing_else_of_this_repository() -> None:
    code = (
        "import sys; import rolecall.features.asof.join; assert 'feast' not in sys.modules;"
        "from rolecall.features.asof import AsofOfflineStore, DeltaSource;"
        "ours = {name for name in sys.modules if name.startswith('rolecall.')};"
        "assert all(n == 'rolecall.features' or n.startswith('rolecall.features.asof') for n in ours), ours"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("micros", [-(2**62), -62_135_596_800_000_000, 253_402_300_740_000_000, 2**62])
def test_instants_at_the_ends_of_the_calendar_and_past_them_are_asked_about(
    home: Path, micros: int, zone: str | None
) -> None:
    source = parquet(home / "stats.parquet", stats(("a", NOON, NOON, 1.0)))
    store = feast_store(home / "repo", [DRIVER, feature_view(source, {"trips": Float64})])
    at = pa.array([micros], pa.int64()).cast(pa.timestamp("us", zone))
    assert trips(store, pa.table({"driver_id": ["a"], "event_timestamp": at})) == [1.0 if micros > 0 else None]


def test_metadata_names_features_keys_and_span(home: Path) -> None:
    frame = asked(("a", NOON), ("b", NOON + HOUR)).with_columns(label=pl.lit(1))
    metadata = store_of(home).get_historical_features(frame, ["stats:trips"]).metadata
    assert metadata is not None
    assert (metadata.features, metadata.keys) == (["stats:trips"], ["driver_id", "label"])
    span: tuple[datetime | None, datetime | None] = (metadata.min_event_timestamp, metadata.max_event_timestamp)
    assert span == (NOON, NOON + HOUR)


def test_a_memory_bound_changes_no_row(home: Path) -> None:
    """Rows that take 14 MB to join, in a file and in a table whose path Polars cannot read by itself, in 1 MiB."""
    steps = [NOON + timedelta(minutes=step) for step in range(500)]
    rows = pl.concat([stats(*((f"d{d}", at, at, float(d * 500 + s)) for s, at in enumerate(steps))) for d in range(80)])
    frame = asked(*((f"d{n % 90}", NOON + timedelta(minutes=7 * n % 600, seconds=1)) for n in range(3000)))
    path = home / "with a space" / "stats"
    write_deltalake(path, rows)
    table = DeltaSource(name="stats", path=str(path), timestamp_field="event_timestamp")
    given: list[DataSource] = [parquet(home / "stats.parquet", rows), table]
    for place, source in enumerate(given):
        view = feature_view(source, {"trips": Float64}, ttl=HOUR)
        free, bound = (
            feast_store(home / f"{place}{name}", [DRIVER, view], **options)
            for name, options in (("free", {}), ("bound", {"memory": "1MiB", "scratch": str(home)}))
        )
        expected = trips(free, frame)
        assert trips(bound, frame) == expected
        assert 0 < expected.count(None) < len(expected)
