"""Small Feast repositories on real files, with `AsofOfflineStore` as offline store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.data_source import DataSource
from feast.types import Float64, Int64, String

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.STRING)
TYPE = "rolecall.features.asof.AsofOfflineStore"
_FEAST_TYPES = {pl.Float64: Float64, pl.Int64: Int64, pl.String: String}


def feast_store(home: Path, objects: Iterable[Any] = (), **offline: Any) -> FeatureStore:
    """A Feast store whose registry and online store are files in `home`; `offline`: settings of the offline store."""
    home.mkdir(parents=True, exist_ok=True)
    config = RepoConfig(
        project="test",
        provider="local",
        registry=str(home / "registry.db"),
        offline_store={"type": TYPE} | offline,
        online_store={"type": "sqlite", "path": str(home / "online.db")},
        entity_key_serialization_version=3,
        repo_path=home,
    )
    store = FeatureStore(repo_path=str(home), config=config)
    store.apply(list(objects))
    return store


def feature_view(
    source: DataSource, features: dict[str, Any], *, name: str = "stats", ttl: timedelta | None = None
) -> FeatureView:
    """A view of drivers (String keys) with the features named."""
    fields = [Field(name="driver_id", dtype=String)]
    fields += [Field(name=feature, dtype=dtype) for feature, dtype in features.items()]
    return FeatureView(name=name, entities=[DRIVER], ttl=ttl, schema=fields, source=source)


def parquet(path: Path, rows: pl.DataFrame, **options: Any) -> FileSource:
    """A file with the rows, and the source that names it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path)
    given = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created"}
    return FileSource(name=path.stem, path=str(path), **(given | options))


def stats(*rows: tuple[str | None, datetime | None, datetime | None, float | None]) -> pl.DataFrame:
    """Driver, event_timestamp, created, trips."""
    stamp = pl.Datetime("us", "UTC")
    schema = {"driver_id": pl.String, "event_timestamp": stamp, "created": stamp, "trips": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def asked(*rows: tuple[str | None, datetime]) -> pl.DataFrame:
    """Driver, event_timestamp."""
    schema = {"driver_id": pl.String, "event_timestamp": pl.Datetime("us", "UTC")}
    return pl.DataFrame(rows, schema=schema, orient="row")


def trips(store: FeatureStore, entities: Any, refs: Sequence[str] = ("stats:trips",), **options: Any) -> list[Any]:
    """The first feature's values, in the order of the entity rows."""
    table = store.get_historical_features(entity_df=entities, features=list(refs), **options).to_arrow()
    return table[refs[0].split(":")[1]].to_pylist()
