"""Rows of one source in a span of time: all of them, or the newest of each key (what goes online)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL

from rolecall.features.asof.arrow import to_arrow
from rolecall.features.asof.place import SourceError
from rolecall.features.asof.sources import TableSource, columns_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOS = {"ms": 1_000_000, "us": 1_000, "ns": 1}
_LEAST, _MOST = -(2**63) + 1, 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Pull:
    """Columns by their names in the source; `start` and `end` inclusive, UTC where they name no zone, None: open."""

    source: TableSource
    keys: Sequence[str]
    features: Sequence[str]
    timestamp: str
    created: str | None
    start: datetime | None
    end: datetime | None

    @property
    def columns(self) -> list[str]:
        stamps = [self.timestamp] + ([self.created] if self.created else [])
        return list(dict.fromkeys([*self.keys, *self.features, *stamps]))


def all_rows(pull: Pull, rows: pl.LazyFrame) -> pa.Table:
    """Every row of the span, in file order. Raises SourceError where a column is missing or is no timestamp."""
    return _arrow(pull, _within(pull, rows))


def newest_rows(pull: Pull, rows: pl.LazyFrame) -> pa.Table:
    """The newest row of each key in the span: by timestamp, then `created`, then file order.

    A row with a null in its key is nobody's. Without keys: the newest row of all.
    """
    order = [pull.timestamp] + ([pull.created] if pull.created else [])
    newest = _within(pull, rows).drop_nulls(list(pull.keys)).sort(order, nulls_last=False, maintain_order=True)
    if not pull.keys:
        return _arrow(pull, newest.tail(1))
    return _arrow(pull, newest.unique(subset=list(pull.keys), keep="last", maintain_order=True))


def _arrow(pull: Pull, rows: pl.LazyFrame) -> pa.Table:
    if not pull.keys:
        rows = rows.with_columns(pl.lit(DUMMY_ENTITY_VAL).alias(DUMMY_ENTITY_ID))
    return to_arrow(rows.collect(engine="streaming"))


def _within(pull: Pull, rows: pl.LazyFrame) -> pl.LazyFrame:
    names = columns_of(rows, pull.source)
    missing = [name for name in pull.columns if name not in names]
    if missing:
        raise SourceError(
            f"{pull.source.path} has no column {', '.join(missing)}; it has {', '.join(names)}; "
            "correct the feature view, or map the columns with field_mapping"
        )
    return within(rows.select(pull.columns), pull.timestamp, pull.start, pull.end)


def within(rows: pl.LazyFrame, timestamp: str, start: datetime | None, end: datetime | None) -> pl.LazyFrame:
    """Rows with `start <= timestamp <= end`, compared exactly in the column's own unit; without a timestamp: none.

    Raises SourceError where the column holds neither timestamps nor dates.
    """
    kind = rows.collect_schema()[timestamp]
    if not isinstance(kind, pl.Datetime | pl.Date):
        raise SourceError(f"{timestamp} is {kind}: an instant is a timestamp column (ms, us or ns) or a date")
    at = pl.col(timestamp)
    if isinstance(kind, pl.Date):
        kind, at = pl.Datetime("us"), at.cast(pl.Datetime("us"))
    rows = rows.filter(at.is_not_null())
    if start is not None:
        rows = rows.filter(at >= _literal(start, kind, up=True))
    if end is not None:
        rows = rows.filter(at <= _literal(end, kind, up=False))
    return rows


def _literal(at: datetime, kind: pl.Datetime, *, up: bool) -> pl.Expr:
    aware = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    nanos = (aware - _EPOCH) // timedelta(microseconds=1) * 1_000
    value = -(-nanos // _NANOS[kind.time_unit]) if up else nanos // _NANOS[kind.time_unit]
    return pl.lit(min(max(value, _LEAST), _MOST), dtype=pl.Int64).cast(kind)
