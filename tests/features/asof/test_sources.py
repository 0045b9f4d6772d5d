"""Every kind of source reads alike; a pinned one reads the same for ever; what cannot be read is said."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest
from deltalake import write_deltalake
from feast import FeatureStore, FileSource
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.bigquery_source import BigQuerySource
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.types import Float64
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.features.asof import DeltaSource
from rolecall.features.asof.place import SourceError
from rolecall.features.asof.sources import scan
from rolecall.features.asof.view import AsofInputError
from tests.features.asof.repository import DRIVER, HOUR, NOON, asked, feast_store, feature_view, parquet, stats, trips
from tests.services import S3Bucket

OPTIONS: dict[str, Any] = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created"}
ROWS = stats(("b", NOON, NOON, 2.0), ("a", NOON + HOUR, NOON, 3.0), ("a", NOON, NOON, 1.0))
ENTITIES = asked(("a", NOON), ("b", NOON + HOUR), ("a", NOON + 2 * HOUR), ("x", NOON))
EXPECTED = [1.0, 2.0, 3.0, None]


def sources(folder: str, endpoint: str = "") -> list[DataSource]:
    """One source a kind below a folder or bucket, named alike. The files are yet to be written."""
    given = OPTIONS | {"name": "stats", "s3_endpoint_override": endpoint}
    return [
        FileSource(path=f"{folder}/file/stats.parquet", **given),
        FileSource(path=f"{folder}/parts", **given),
        FileSource(path=f"{folder}/parts/*.parquet", **given),
        FileSource(path=f"{folder}/delta", file_format=DeltaFormat(), **given),
        DeltaSource(path=f"{folder}/delta", **given),
        DeltaSource(path=f"{folder}/delta", version=0, **given),
    ]


def store_of(home: Path, source: DataSource) -> FeatureStore:
    return feast_store(home, [DRIVER, feature_view(source, {"trips": Float64})])


def write_local(folder: Path) -> None:
    parquet(folder / "file" / "stats.parquet", ROWS)
    for place in range(ROWS.height):
        parquet(folder / "parts" / f"{place}.parquet", ROWS[place])
    (folder / "parts" / ".unfinished.parquet").write_bytes(b"half a file")
    write_deltalake(folder / "delta", ROWS)


@pytest.mark.parametrize("name", ["plain", "ein schöner ort", "100%"])
def test_files_folders_patterns_and_tables_read_alike(tmp_path: Path, name: str) -> None:
    write_local(tmp_path / name)
    for place, source in enumerate(sources(str(tmp_path / name))):
        assert trips(store_of(tmp_path / str(place), source), ENTITIES) == EXPECTED


def test_a_relative_path_counts_from_the_repository(tmp_path: Path) -> None:
    write_local(tmp_path / "0" / "data")
    for source in sources("data"):
        assert trips(store_of(tmp_path / "0", source), ENTITIES) == EXPECTED


def test_an_object_store_reads_and_takes_rows_like_a_folder(
    tmp_path: Path, s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_bucket.options.items():
        if name != "AWS_ENDPOINT_URL":
            monkeypatch.setenv(name, value)
    endpoint = s3_bucket.options["AWS_ENDPOINT_URL"]
    with s3_bucket.filesystem.open_output_stream(f"{s3_bucket.name}/file/stats.parquet") as file:
        ROWS.write_parquet(file)
    for place in range(ROWS.height):
        with s3_bucket.filesystem.open_output_stream(f"{s3_bucket.name}/parts/{place}.parquet") as file:
            ROWS[place].write_parquet(file)
    write_deltalake(f"{s3_bucket.uri}/delta", ROWS, storage_options=s3_bucket.options)
    given = sources(s3_bucket.uri, endpoint)
    stores = [store_of(tmp_path / str(place), source) for place, source in enumerate(given)]
    assert [trips(store, ENTITIES) for store in stores] == [EXPECTED] * len(given)
    storage = SavedDatasetFileStorage(path=f"{s3_bucket.uri}/saved", s3_endpoint_override=endpoint)
    for rows in (ENTITIES, ENTITIES[:2]):
        job = stores[0].get_historical_features(rows, ["stats:trips"])
        saved = stores[0].create_saved_dataset(job, "saved", storage, allow_overwrite=True)
        assert saved.to_arrow()["trips"].to_pylist() == EXPECTED[: rows.height]
    for store in (stores[0], stores[1], stores[4]):
        store.write_to_offline_store("stats", stats(("x", NOON, NOON, 9.0)).to_pandas())
        assert trips(store, ENTITIES) == [1.0, 2.0, 3.0, 9.0]
    assert trips(stores[5], ENTITIES) == EXPECTED


def test_a_file_replaced_while_it_is_read_is_read_as_it_was(tmp_path: Path) -> None:
    parquet(tmp_path / "stats.parquet", ROWS)
    rows = scan(FileSource(path=str(tmp_path / "stats.parquet"), **OPTIONS), tmp_path)
    names = rows.collect_schema().names()
    parquet(tmp_path / "later.parquet", pl.concat([ROWS] * 1000))
    (tmp_path / "later.parquet").replace(tmp_path / "stats.parquet")
    assert rows.select(names).collect().equals(ROWS)
    assert rows.slice(1, 1).collect().equals(ROWS.slice(1, 1))


def test_a_pinned_table_gives_the_same_rows_whatever_is_committed_later(tmp_path: Path) -> None:
    path = tmp_path / "stats"
    write_deltalake(path, ROWS)
    newest = DeltaSource(name="stats", path=str(path), **OPTIONS)
    pinned = newest.pinned()
    assert pinned.version == 0
    write_deltalake(path, stats(("x", NOON, NOON, 9.0)), mode="append")
    write_deltalake(path, ROWS.with_columns(pl.col("trips") * 10), mode="overwrite")
    for place, (source, expected) in enumerate(
        [(pinned, EXPECTED), (newest.at(1), [1.0, 2.0, 3.0, 9.0]), (newest, [10.0, 20.0, 30.0, None])]
    ):
        assert trips(store_of(tmp_path / str(place), source), ENTITIES) == expected


def test_a_delta_source_comes_back_from_the_registry_as_it_went_in(tmp_path: Path) -> None:
    path = tmp_path / "stats"
    write_deltalake(path, ROWS)
    source = DeltaSource(
        path=str(path),
        version=0,
        name="stats",
        field_mapping={"trips": "rides"},
        s3_endpoint_override="http://127.0.0.1:1",
        description="what drivers did",
        tags={"team": "rides"},
        owner="someone",
        **OPTIONS,
    )
    view = feature_view(source, {"rides": Float64})
    feast_store(tmp_path / "repo", [DRIVER, view])
    reader = FeatureStore(config=feast_store(tmp_path / "repo").config)
    assert reader.get_data_source("stats") == source
    assert reader.get_feature_view("stats").batch_source == source
    assert source != source.at(None)
    assert hash(source) == hash(source.at(0))
    assert trips(reader, ENTITIES, ["stats:rides"]) == EXPECTED


def test_a_source_of_two_files_with_other_columns_is_refused(tmp_path: Path) -> None:
    write_local(tmp_path)
    source = FileSource(name="stats", path=str(tmp_path / "parts"), **OPTIONS)
    other = tmp_path / "parts" / "9.parquet"
    parquet(other, ROWS.rename({"trips": "rides"}))
    refused(tmp_path, source, "files differ: unlike 0.parquet, 9.parquet lacks trips and has rides; write them anew")
    parquet(other, ROWS.with_columns(pl.col("trips").cast(pl.Int32)))
    refused(tmp_path, source, "unlike 0.parquet, 9.parquet has trips as int32 and not double")
    store = store_of(tmp_path / "repo", source)
    pulled = store._get_provider().offline_store.pull_latest_from_table_or_query(
        store.config, source, ["driver_id"], ["trips"], "event_timestamp", "created"
    )
    with pytest.raises(SourceError, match="has trips as int32"):
        pulled.to_arrow()


NAMES = st.one_of(
    st.from_regex(r"0{0,3}[0-9]{1,3}", fullmatch=True), st.sampled_from(["x", "2026-03-01", "1e3", "a b"])
)


@settings(max_examples=25, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_keys_that_folders_name_are_read_as_the_text_they_are(names: list[str]) -> None:
    """`driver_id=007` is nobody else's than `007`'s, also where every folder looks like a number."""
    with tempfile.TemporaryDirectory() as home:
        for place, name in enumerate(names):
            rows = stats((name, NOON, NOON, float(place)))
            parquet(Path(home, "parts", f"driver_id={quote(name)}", "0.parquet"), rows.drop("driver_id"))
        source = FileSource(name="stats", path=str(Path(home, "parts")), **OPTIONS)
        view = feature_view(source, {"trips": Float64})
        store = feast_store(Path(home, "repo"))
        entities = asked(*((name, NOON) for name in [*names, "nobody", f"0{names[0]}"]))
        wanted = [float(names.index(name)) if name in names else None for name in entities["driver_id"]]
        table = store._get_provider().offline_store.get_historical_features(
            store.config, [view], ["stats:trips"], entities, store.registry, store.project
        )
        assert table.to_arrow()["trips"].to_pylist() == wanted


def test_a_number_with_a_leading_zero_in_a_folder_name_is_text_also_where_nobody_says_so(tmp_path: Path) -> None:
    for name in ("007", "12"):
        parquet(tmp_path / f"driver_id={name}" / "0.parquet", stats((name, NOON, NOON, 1.0)).drop("driver_id"))
    assert scan(FileSource(path=str(tmp_path), **OPTIONS), None).collect()["driver_id"].to_list() == ["007", "12"]


def test_empty_folders_and_patterns_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (str(tmp_path / "empty"), str(tmp_path / "empty" / "*.parquet")):
        with pytest.raises(ValueError, match="empty"):
            read(tmp_path, FileSource(path=path, **OPTIONS))


def read(home: Path, source: DataSource, entities: Any = ENTITIES, **options: Any) -> None:
    store = feast_store(home)
    view = feature_view(source, {"trips": Float64})
    store._get_provider().offline_store.get_historical_features(
        store.config, [view], ["stats:trips"], entities, store.registry, store.project, **options
    ).to_arrow()


def refused(home: Path, source: DataSource, message: str, entities: Any = ENTITIES, **options: Any) -> None:
    with pytest.raises(ValueError, match=message):
        read(home, source, entities, **options)


def test_a_store_that_asks_for_a_name_in_sql_is_told_what_reads_a_delta_table(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="AsofOfflineStore"):
        DeltaSource(path=str(tmp_path), **OPTIONS).get_table_query_string()


def test_sources_that_cannot_be_read_say_what_to_do(tmp_path: Path) -> None:
    write_local(tmp_path)
    (tmp_path / "empty").mkdir()
    path = str(tmp_path / "file" / "stats.parquet")
    refused(tmp_path, FileSource(path=str(tmp_path / "none.parquet"), **OPTIONS), "no file or folder at")
    refused(tmp_path, FileSource(path=str(tmp_path / "empty"), **OPTIONS), "holds no Parquet file")
    refused(tmp_path, DeltaSource(path=str(tmp_path / "none"), **OPTIONS), "no Delta table at")
    refused(tmp_path, DeltaSource(path=str(tmp_path / "delta"), version=4, **OPTIONS), "no version 4: there are 0 to 0")
    refused(tmp_path, BigQuerySource(table="t", timestamp_field="event_timestamp"), "BigQuerySource: this store reads")
    refused(tmp_path, FileSource(path=path, timestamp_field="at"), "no column at; it has driver_id, event_timestamp")
    refused(tmp_path, FileSource(path=path, timestamp_field="trips"), "view stats: trips is Float64: an instant is")
    parquet(tmp_path / "clash.parquet", ROWS.with_columns(rides=pl.col("trips")))
    clash = FileSource(path=str(tmp_path / "clash.parquet"), field_mapping={"rides": "trips"}, **OPTIONS)
    refused(tmp_path, clash, "gives the name trips, which is a column of it already")
    with pytest.raises(SourceError, match="version -1"):
        DeltaSource(path="x", version=-1)
    with pytest.raises(SourceError, match="has no column at"):
        DeltaSource(path=str(tmp_path / "delta"), timestamp_field="at").validate(feast_store(tmp_path).config)


def test_entity_rows_that_cannot_be_answered_say_what_to_do(tmp_path: Path) -> None:
    source = parquet(tmp_path / "stats.parquet", ROWS)
    refused(tmp_path, source, "a str: this store runs no SQL", "SELECT * FROM drivers")
    refused(tmp_path, source, "no column driver_id, a join key of view stats", ENTITIES.drop("driver_id"))
    refused(tmp_path, source, "name the instant of each row event_timestamp", ENTITIES.select("driver_id"))
    twice = ENTITIES.rename({"event_timestamp": "one"}).with_columns(two=pl.col("one"))
    refused(tmp_path, source, "timestamp columns one, two", twice)
    refused(tmp_path, source, "holds what is no instant", asked(("a", NOON)).to_pandas().assign(event_timestamp="soon"))
    refused(tmp_path, source, "event_timestamp is int32: give", ENTITIES.with_columns(event_timestamp=pl.lit(1)))
    refused(tmp_path, source, "key driver_id is Int32", ENTITIES.with_columns(driver_id=pl.lit(1)))
    mixed = ENTITIES.to_pandas().assign(label=["a", 1, 2.0, None])
    refused(tmp_path, source, "give every column one type", mixed)
    refused(tmp_path, source, "named twice in the result: trips", ENTITIES.with_columns(trips=pl.lit(1.0)))
    assert issubclass(AsofInputError, ValueError)


def test_a_date_is_its_midnight(tmp_path: Path) -> None:
    rows = ROWS.with_columns(pl.col("event_timestamp").dt.date())
    source = parquet(tmp_path / "stats.parquet", rows)
    midnight = NOON.replace(hour=0)
    store = store_of(tmp_path, source)
    assert trips(store, asked(("b", midnight), ("b", midnight - timedelta(microseconds=1)))) == [2.0, None]
    job = store.get_historical_features(features=["stats:trips"], start_date=midnight, end_date=midnight)
    assert job.to_arrow()["trips"].to_pylist() == [1.0, 2.0]
