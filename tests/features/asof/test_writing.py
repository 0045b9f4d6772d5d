"""Writing through Feast: appended whole or not at all, read back as written."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable, write_deltalake
from feast import FeatureService, FeatureStore, FileSource
from feast.data_format import DeltaFormat
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import FeatureServiceLoggingSource, LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.types import Float64

from rolecall.features.asof import DeltaSource
from rolecall.features.asof.place import SourceError, place_of
from rolecall.features.asof.sources import scan
from rolecall.features.asof.writing import add_files, replace_parquet
from tests.features.asof.repository import DRIVER, HOUR, NOON, asked, feast_store, feature_view, parquet, stats, trips

KINDS = ["file", "folder", "parts", "feast delta", "delta"]
OPTIONS = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created"}
FIRST, SECOND = stats(("a", NOON, NOON, 1.0)), stats(("a", NOON + HOUR, NOON, 2.0), ("b", NOON, NOON, 3.0))


def source_of(kind: str, home: Path) -> Any:
    """A source of each kind, with the first row in it."""
    path = home / "with a space" / kind
    if kind == "file":
        return parquet(path / "stats.parquet", FIRST)
    if kind in ("folder", "parts"):
        parts = {"partitioning": ["driver_id"], "partitioning_flavor": "hive"} if kind == "parts" else {}
        ds.write_dataset(FIRST.to_arrow(compat_level=pl.CompatLevel.oldest()), path, format="parquet", **parts)
        return FileSource(name="stats", path=str(path), **OPTIONS)
    write_deltalake(path, FIRST)
    if kind == "delta":
        return DeltaSource(name="stats", path=str(path), **OPTIONS)
    return FileSource(name="stats", path=str(path), file_format=DeltaFormat(), **OPTIONS)


def store_of(home: Path, source: Any) -> FeatureStore:
    return feast_store(home / "repo", [DRIVER, feature_view(source, {"trips": Float64})])


@pytest.mark.parametrize("kind", KINDS)
def test_appended_rows_are_found_beside_the_old_ones(tmp_path: Path, kind: str) -> None:
    store = store_of(tmp_path, source_of(kind, tmp_path))
    entities = asked(("a", NOON), ("a", NOON + HOUR), ("b", NOON))
    assert trips(store, entities) == [1.0, 1.0, None]
    store.write_to_offline_store("stats", SECOND.to_pandas())
    assert trips(store, entities) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_do_not_fit_change_nothing(tmp_path: Path, kind: str) -> None:
    source = source_of(kind, tmp_path)
    store, view = store_of(tmp_path, source), feature_view(source, {"trips": Float64})
    write = store._get_provider().offline_store.offline_write_batch
    names = [name for name, _ in source.get_table_column_names_and_types(store.config)]
    rows = SECOND.select(names).to_arrow(compat_level=pl.CompatLevel.oldest())
    words = rows.set_column(names.index("trips"), "trips", pa.array(["many", "more"]))
    for wrong, message in ((words, "do not fit"), (rows.drop_columns(["created"]), "takes in this order")):
        with pytest.raises(SourceError, match=message):
            write(store.config, view, wrong, None)
    assert trips(store, asked(("a", NOON), ("b", NOON))) == [1.0, None]


def test_a_pinned_source_and_a_pattern_are_not_written_to(tmp_path: Path) -> None:
    pinned = source_of("delta", tmp_path).at(0)
    pattern = FileSource(name="stats", path=f"{source_of('folder', tmp_path).path}/*.parquet", **OPTIONS)
    for place, (source, message) in enumerate(((pinned, "pinned to version 0"), (pattern, "give the source a file"))):
        store, view = store_of(tmp_path / str(place), source), feature_view(source, {"trips": Float64})
        rows = FIRST.to_arrow(compat_level=pl.CompatLevel.oldest())
        write = store._get_provider().offline_store.offline_write_batch
        if source is pattern:
            source.get_table_column_names_and_types = lambda config: [(n, "") for n in FIRST.columns]
        with pytest.raises(SourceError, match=message):
            write(store.config, view, rows, None)


@pytest.mark.parametrize("kind", ["file", "folder", "delta"])
def test_writers_at_the_same_time_lose_nothing(tmp_path: Path, kind: str) -> None:
    source = source_of(kind, tmp_path)
    store, view = store_of(tmp_path, source), feature_view(source, {"trips": Float64})
    write = store._get_provider().offline_store.offline_write_batch

    def append(number: int) -> None:
        rows = stats((f"d{number}", NOON, NOON, float(number)))
        write(store.config, view, rows.to_arrow(compat_level=pl.CompatLevel.oldest()), None)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(append, range(12)))
    entities = asked(*((f"d{number}", NOON) for number in range(12)))
    assert trips(store, entities) == [float(number) for number in range(12)]


@pytest.mark.parametrize("kind", ["saved.parquet", "saved", "delta"])
def test_a_saved_dataset_is_what_was_retrieved_and_is_not_overwritten_unasked(tmp_path: Path, kind: str) -> None:
    store = store_of(tmp_path, source_of("file", tmp_path))
    form = {"file_format": DeltaFormat()} if kind == "delta" else {}
    storage = SavedDatasetFileStorage(path=str(tmp_path / kind), **form)
    entities = asked(("a", NOON), ("b", NOON), (None, NOON + HOUR))
    job = store.get_historical_features(entities, ["stats:trips"])
    saved = store.create_saved_dataset(job, "training", storage)
    expected = job.to_arrow().to_pylist()
    assert saved.to_arrow().to_pylist() == expected
    assert store.get_saved_dataset("training").to_df().shape == (3, 3)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        store.create_saved_dataset(job, "training", storage)
    fewer = store.get_historical_features(entities[:1], ["stats:trips"])
    again = store.create_saved_dataset(fewer, "training", storage, allow_overwrite=True)
    assert again.to_arrow().to_pylist() == expected[:1]


@pytest.mark.parametrize("partition_by", [None, ["driver_id"]])
@pytest.mark.parametrize("as_files", [False, True])
def test_logs_are_added_to_and_read_back(tmp_path: Path, partition_by: list[str] | None, as_files: bool) -> None:
    store = store_of(tmp_path, source_of("file", tmp_path))
    destination = FileLoggingDestination(path="logs", partition_by=partition_by)
    service = FeatureService(
        name="served", features=[store.get_feature_view("stats")], logging_config=LoggingConfig(destination)
    )
    store.apply([service])
    schema = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry)
    for number in range(3):
        row = dict.fromkeys(schema.names) | {"driver_id": f"d{number}", "stats__trips": float(number)}
        row |= {"__log_timestamp": NOON, "__log_date": NOON.date(), "__request_id": f"r{number}"}
        logs = pa.Table.from_pylist([row], schema=schema)
        if as_files:
            ds.write_dataset(logs, tmp_path / f"batch{number}", format="parquet")
        store.write_logged_features(tmp_path / f"batch{number}" if as_files else logs, service)
    job = store._get_provider().retrieve_feature_service_logs(
        service, NOON, NOON + timedelta(seconds=1), store.config, store.registry
    )
    rows = {(row["driver_id"], row["stats__trips"]) for row in job.to_arrow().to_pylist()}
    assert rows == {(f"d{number}", float(number)) for number in range(3)}


def _fails_at(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path], bool]) -> None:
    """A rename to such a place fails."""
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if fails(Path(target)):
            raise OSError("no space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)


def test_a_saved_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_of(str(tmp_path / "saved"), None)
    replace_parquet(place, FIRST.to_arrow())
    faults = iter([True])
    _fails_at(monkeypatch, lambda target: target == place.path and next(faults, False))
    with pytest.raises(OSError, match="no space left"):
        replace_parquet(place, SECOND.to_arrow())
    assert pl.read_parquet(place.path).equals(FIRST)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_of_partitioned_rows_that_cannot_all_be_moved_none_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(str(tmp_path / "logs"), None)
    add_files(place, FIRST.to_arrow(), ["driver_id"])
    _fails_at(monkeypatch, lambda target: target.parent.name == "driver_id=b")
    with pytest.raises(OSError, match="no space left"):
        add_files(place, SECOND.to_arrow(), ["driver_id"])
    assert pl.read_parquet(place.path)["trips"].to_list() == [1.0]


def test_rows_are_partitioned_by_as_many_values_as_there_are(tmp_path: Path) -> None:
    rows = pa.table({"driver_id": [f"d{number}" for number in range(1100)], "trips": [1.0] * 1100})
    assert len(add_files(place_of(str(tmp_path / "logs"), None), rows, ["driver_id"])) == 1100


def test_a_result_is_exported_to_the_staging_folder(tmp_path: Path) -> None:
    source = source_of("file", tmp_path)
    view = feature_view(source, {"trips": Float64})
    store = feast_store(tmp_path / "repo", [DRIVER, view], staging_location=str(tmp_path / "staging"))
    job = store.get_historical_features(asked(("a", NOON)), ["stats:trips"])
    assert job.supports_remote_storage_export()
    assert pl.read_parquet(job.to_remote_storage())["trips"].to_list() == [1.0]


def test_a_delta_write_is_one_version(tmp_path: Path) -> None:
    source = source_of("delta", tmp_path)
    store_of(tmp_path, source).write_to_offline_store("stats", SECOND.to_pandas())
    assert DeltaTable(source.path).version() == 1


class Killed(BaseException):
    """The process is gone."""


def _killed_after(renames: int, write: Callable[[], object]) -> None:
    """A write whose process ends after so many renames: from then on nothing on disk changes, whatever cleans up."""
    left, dead = iter(range(renames)), False
    changes = {(Path, "replace"): Path.replace, (Path, "unlink"): Path.unlink, (shutil, "rmtree"): shutil.rmtree}

    def until_killed(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*given: Any, **named: Any) -> Any:
            nonlocal dead
            dead = dead or (name == "replace" and next(left, None) is None)
            if dead:
                raise Killed
            return change(*given, **named)

        return checked

    with pytest.MonkeyPatch.context() as patched, contextlib.suppress(Killed):
        for (where, name), change in changes.items():
            patched.setattr(where, name, until_killed(name, change))
        write()


@pytest.mark.parametrize("renames", range(6))
def test_a_killed_writer_leaves_all_of_its_rows_or_none(tmp_path: Path, renames: int) -> None:
    old, new = FIRST, stats(*[(name, NOON, NOON, 5.0) for name in "pqr"])
    source = FileSource(name="stats", path=str(tmp_path / "saved"), **OPTIONS)
    place = place_of(source.path, None)
    replace_parquet(place, old.to_arrow())
    _killed_after(renames, partial(replace_parquet, place, new.to_arrow()))
    found = scan(source, None).collect()
    assert found.equals(old) or found.equals(new)
    replace_parquet(place, new.to_arrow())
    assert scan(source, None).collect().equals(new)
    assert not list(tmp_path.glob(".saved.*"))


@pytest.mark.parametrize("renames", range(6))
def test_of_partitions_that_a_killed_writer_added_all_are_there_or_none(tmp_path: Path, renames: int) -> None:
    new = stats(*[(name, NOON, NOON, 5.0) for name in "pqr"])
    source = FileSource(name="stats", path=str(tmp_path / "logs"), **OPTIONS)
    place = place_of(source.path, None)
    add_files(place, FIRST.to_arrow(), ["driver_id"])
    _killed_after(renames, partial(add_files, place, new.to_arrow(), ["driver_id"]))
    assert sorted(scan(source, None, ["driver_id"]).collect()["driver_id"]) in (["a"], ["a", "p", "q", "r"])


def test_rows_of_a_key_with_leading_zeros_keep_it(tmp_path: Path) -> None:
    source = FileSource(name="stats", path=str(tmp_path / "parts"), **OPTIONS)
    add_files(place_of(source.path, None), stats(("12", NOON, NOON, 1.0)).to_arrow(), ["driver_id"])
    store_of(tmp_path, source).write_to_offline_store("stats", stats(("007", NOON, NOON, 2.0)).to_pandas())
    assert sorted(scan(source, None, ["driver_id"]).collect()["driver_id"]) == ["007", "12"]
