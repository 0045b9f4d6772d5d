"""From Feast's views and references to point-in-time joins, with entity rows or for a span of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast.feature_view import DUMMY_ENTITY_ID
from feast.types import String
from feast.utils import _get_requested_feature_views_to_features_dict

from rolecall.features.asof.arrow import plain, to_arrow
from rolecall.features.asof.entities import EVENT_TIMESTAMP, entity_table, time_range, timestamp_column
from rolecall.features.asof.join import asof_join
from rolecall.features.asof.place import SourceError
from rolecall.features.asof.pull import within
from rolecall.features.asof.sources import TableSource, columns_of, mapped, reading, scan, table_source
from rolecall.features.asof.view import AsofInputError, AsofView

_TASK_BYTES = 2**30
"""What a task on a cluster takes where nothing bounds it."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a join may take: bytes of rows in memory (None: all it needs), and where the rest is spilled."""

    memory: int | None = None
    scratch: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """A feature view under the name it was asked by, and which of its features."""

    view: Any
    features: tuple[str, ...]
    full_feature_names: bool

    @property
    def name(self) -> str:
        return str(self.view.projection.name_to_use())

    @property
    def keys(self) -> dict[str, str]:
        """Entity column -> column of the view's rows; a view without entities has none."""
        join_keys = [column.name for column in self.view.entity_columns if column.name != DUMMY_ENTITY_ID]
        renamed = self.view.projection.join_key_map
        keys = {renamed.get(name, name): name for name in join_keys}
        if len(keys) < len(join_keys):
            raise AsofInputError(f"view {self.name}: its join key map {renamed} gives one column to two keys")
        return keys

    @property
    def columns(self) -> dict[str, str]:
        prefix = f"{self.view.projection.name_alias or self.view.name}__" if self.full_feature_names else ""
        return {name: f"{prefix}{name}" for name in self.features}

    @property
    def source(self) -> TableSource:
        """Where its rows lie. Raises SourceError where that is nothing we read."""
        return table_source(self.view.batch_source, f"view {self.name}")

    @property
    def _texts(self) -> list[str]:
        """Columns that the view declares as text."""
        return [column.name for column in (*self.view.entity_columns, *self.view.features) if column.dtype == String]

    def asof_view(self, repo: Path | None, *, held: bool = True) -> AsofView:
        """The view over its source, scanned as `scan` does. Raises SourceError where the source lacks what it needs."""
        source = self.source
        texts = [name for column in self._texts for name in (column, *_files_name(source, column))]
        rows = scan(source, repo, texts, held=held)
        rows = mapped(rows, source.field_mapping, columns_of(rows, source), source)
        names = columns_of(rows, source)

        def column(name: str) -> str:
            return name if name in names else source.field_mapping.get(name, name)

        view = AsofView(
            name=self.name,
            rows=rows,
            keys=self.keys,
            timestamp=column(source.timestamp_field),
            created=column(source.created_timestamp_column) if source.created_timestamp_column else None,
            ttl=self.view.ttl or None,
            columns=self.columns,
        )
        missing = [name for name in view.wanted if name not in names]
        if missing:
            raise SourceError(
                f"view {self.name}: its source {source.path} has no column {', '.join(missing)}; "
                f"it has {', '.join(names)}; correct the view's schema, or map the columns with field_mapping"
            )
        return view


def _files_name(source: TableSource, column: str) -> list[str]:
    """What the files call a column."""
    return [old for old, new in source.field_mapping.items() if new == column]


def requests(views: Sequence[Any], refs: Sequence[str], on_demand: Sequence[Any], *, full: bool) -> list[ViewRequest]:
    """The stored views that the references name, each with its features in the order asked."""
    asked, _ = _get_requested_feature_views_to_features_dict(list(refs), list(views), list(on_demand))
    return [
        ViewRequest(view=view, features=tuple(dict.fromkeys(features)), full_feature_names=full)
        for view, features in asked.items()
    ]


@dataclass(frozen=True, kw_only=True)
class EntityRows:
    """The rows whose features are asked for, from `start` to `end` (None: there are none). `rows` may read sources."""

    rows: Callable[[], pa.Table]
    timestamp: str
    keys: tuple[str, ...]
    start: datetime | None
    end: datetime | None

    @classmethod
    def given(cls, frame: object, asked: Sequence[ViewRequest]) -> EntityRows:
        """A frame's rows. Raises AsofInputError where it has no instants, or lacks a view's join key."""
        table = entity_table(frame)
        timestamp = timestamp_column(table)
        for request in asked:
            _check_keys(table.column_names, request)
        start, end = time_range(table[timestamp])
        keys = tuple(name for name in table.column_names if name != timestamp)
        return cls(rows=lambda: table, timestamp=timestamp, keys=keys, start=start, end=end)

    @classmethod
    def between(cls, asked: Sequence[ViewRequest], start: datetime, end: datetime, *, repo: Path | None) -> EntityRows:
        """Each key at each instant of a span at which a view has a row for it."""
        keys = tuple(sorted({key for request in asked for key in request.keys}))
        return cls(
            rows=lambda: _entities_between(asked, start, end, repo=repo),
            timestamp=EVENT_TIMESTAMP,
            keys=keys,
            start=start,
            end=end,
        )


def joined(
    entities: EntityRows, asked: Sequence[ViewRequest], *, known_only: bool, repo: Path | None, bounds: Bounds
) -> pa.Table:
    """Every entity row with the features known at its instant."""
    views = [request.asof_view(repo) for request in asked]
    with reading([request.source for request in asked], repo):
        table = asof_join(
            entities.rows(),
            views,
            timestamp=entities.timestamp,
            known_only=known_only,
            memory=bounds.memory,
            scratch=bounds.scratch,
        )
    return plain(table, {name for view in views for name in view.columns.values()})


def spread(
    entities: EntityRows,
    asked: Sequence[ViewRequest],
    target: Path,
    *,
    workers: int,
    known_only: bool,
    repo: Path | None,
    bounds: Bounds,
) -> list[Path]:
    """The same by `workers` tasks of a Ray cluster, as Parquet files below `target`, which all machines see; their
    paths, in the order of the entity rows. Only those rows pass through this process."""
    from rolecall.features.asof.cluster import cluster_join

    views = [request.asof_view(repo, held=False) for request in asked]
    target.mkdir(parents=True, exist_ok=True)
    file = target / "entities.parquet"
    with reading([request.source for request in asked], repo):
        pq.write_table(entities.rows(), file)
        try:
            return cluster_join(
                pl.scan_parquet(file),
                views,
                timestamp=entities.timestamp,
                target=target / "rows",
                scratch=target,
                known_only=known_only,
                memory=bounds.memory or _TASK_BYTES,
                workers=workers,
            )
        finally:
            file.unlink()


def _check_keys(names: Sequence[str], request: ViewRequest) -> None:
    missing = [name for name in request.keys if name not in names]
    if missing:
        raise AsofInputError(
            f"entity rows have no column {', '.join(missing)}, a join key of view {request.name}; "
            f"they have {', '.join(names)}; add it, or map the key with with_join_key_map"
        )


def _entities_between(asked: Sequence[ViewRequest], start: datetime, end: datetime, *, repo: Path | None) -> pa.Table:
    """Views with other keys add rows of their own (null in the keys they lack); views without keys add instants
    only where no view has any.
    """
    keyed = [request for request in asked if request.keys] or asked
    each = [_instants_of(request.asof_view(repo), start, end) for request in keyed]
    if len({rows.collect_schema()[EVENT_TIMESTAMP] for rows in each}) > 1:
        each = [rows.with_columns(_micros_up(EVENT_TIMESTAMP, rows)) for rows in each]
    found = pl.concat(each, how="diagonal_relaxed")
    columns = [name for name in found.collect_schema().names() if name != EVENT_TIMESTAMP]
    rows = found.unique().select(*columns, EVENT_TIMESTAMP).sort(EVENT_TIMESTAMP, *columns)
    return to_arrow(rows.collect(engine="streaming"))


def _micros_up(column: str, rows: pl.LazyFrame) -> pl.Expr:
    """The least microseconds that are not before the instants: a row is seen at its own."""
    kind, at = rows.collect_schema()[column], pl.col(column)
    if isinstance(kind, pl.Datetime) and kind.time_unit == "ns":
        ticks = at.to_physical()
        return (ticks // 1_000 + (ticks % 1_000 > 0)).cast(pl.Datetime("us", "UTC")).alias(column)
    return at.cast(pl.Datetime("us", "UTC"))


def _instants_of(view: AsofView, start: datetime, end: datetime) -> pl.LazyFrame:
    rows = within(view.rows, view.timestamp, start, end).drop_nulls(list(view.keys.values()))
    kind = rows.collect_schema()[view.timestamp]
    at = pl.col(view.timestamp)
    if not isinstance(kind, pl.Datetime):
        at = at.cast(pl.Datetime("us"))
    if not isinstance(kind, pl.Datetime) or kind.time_zone is None:
        at = at.dt.replace_time_zone("UTC")
    named = [pl.col(column).alias(name) for name, column in view.keys.items()]
    return rows.select(*named, at.dt.convert_time_zone("UTC").alias(EVENT_TIMESTAMP))
