"""Point-in-time joins: for every entity row the feature values known at its instant, for any number of views.

    asof_join(entities, [AsofView(name="rating", rows=pl.scan_parquet("rating.parquet"), keys={"employer": "id"},
                                  timestamp="at", created="written_at", ttl=timedelta(days=30),
                                  columns={"stars": "rating__stars"})], timestamp="event_timestamp")

Stands alone: it needs numpy, polars and pyarrow only.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa

from rolecall.features.asof.instants import instants
from rolecall.features.asof.keys import aligned, key_codes
from rolecall.features.asof.match import NO_ROW, FeatureRows, match
from rolecall.features.asof.view import AsofInputError, AsofView


def asof_join(
    entities: pa.Table,
    views: Sequence[AsofView],
    *,
    timestamp: str,
    known_only: bool = False,
    memory: int | None = None,
    scratch: Path | None = None,
) -> pa.Table:
    """Each entity row, in order, with all its columns, then the columns of each view as known at its `timestamp`.

    A row of a view is seen where `event <= T` and `event >= T - ttl`; the newest wins (ties: `AsofView`). Exactly one
    output row an entity row; null where nothing matches, where a part of the key is null (or NaN), or T is.
    `known_only`: rows with `created > T`, or without `created` in a view that has it, do not exist at T.
    `memory`: where the join would take more bytes than this beyond `entities` and the result, it is done in parts
    with files below `scratch` (default: the system's temporary folder); None never does that.
    Raises AsofInputError for inputs that cannot be joined, before anything is read.
    """
    check(entities.schema, views, timestamp)
    asked = pl.DataFrame(entities.select(_asked(views, timestamp)))
    if memory is not None and not _fits(asked, views, memory):
        return _spilled(entities, asked, views, timestamp, known_only, memory, scratch)
    table = entities
    for view in views:
        rows = view.rows.select(view.wanted).collect().rechunk()
        columns = seen(asked, rows, view, timestamp=timestamp, known_only=known_only)
        for name, column in zip(view.columns.values(), columns, strict=True):
            table = table.append_column(name, column.to_arrow(compat_level=pl.CompatLevel.oldest()))
    return table


def seen(
    asked: pl.DataFrame, rows: pl.DataFrame, view: AsofView, *, timestamp: str, known_only: bool
) -> list[pl.Series]:
    """The columns of `rows`, the view's feature rows in memory, that each entity row of `asked` sees."""
    ours, theirs = key_codes(rows, asked, view.keys)
    created = instants(rows[view.created], view.created) if view.created else None
    features = FeatureRows(codes=ours, at=instants(rows[view.timestamp], view.timestamp), created=created)
    at = instants(asked[timestamp], timestamp)
    found = match(features, theirs, at, ttl=view.ttl, known_only=known_only)
    place = pl.Series(pa.array(found, mask=found == NO_ROW))
    return [rows[column].gather(place) if rows.height else _nulls(rows[column], place) for column in view.columns]


def check(entities: pa.Schema, views: Sequence[AsofView], timestamp: str) -> None:
    """Raises AsofInputError where columns are missing, cannot be compared, or would be there twice in the result."""
    names = list(entities.names)
    for view in views:
        _present("the entity rows", names, (*view.keys, timestamp))
        asked = pl.DataFrame(entities.empty_table().select([*dict.fromkeys((*view.keys, timestamp))]))
        _present(f"view {view.name}", view.rows.collect_schema().names(), view.wanted)
        try:
            _comparable(asked, view, timestamp)
        except TypeError as error:
            raise AsofInputError(f"view {view.name}: {error}") from error
        if view.ttl is not None and view.ttl < timedelta(0):
            raise AsofInputError(f"view {view.name}: ttl is {view.ttl}: None, zero (never expires) or a positive time")
    given = [*names, *(name for view in views for name in view.columns.values())]
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise AsofInputError(f"columns named twice in the result: {', '.join(twice)}; use full feature names")


def _comparable(entities: pl.DataFrame, view: AsofView, timestamp: str) -> None:
    rows = view.rows.collect_schema().to_frame()
    for ours, theirs in view.keys.items():
        aligned(entities[ours], rows[theirs], ours)
    instants(entities[timestamp], f"entity column {timestamp}")
    for column in (view.timestamp, view.created):
        if column is not None:
            instants(rows[column], column)


def _present(where: str, have: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in dict.fromkeys(needed) if name not in have]
    if missing:
        raise AsofInputError(f"{where}: no column {', '.join(missing)}; there are {', '.join(have)}")


def _asked(views: Sequence[AsofView], timestamp: str) -> list[str]:
    return list(dict.fromkeys((*(name for view in views for name in view.keys), timestamp)))


def _fits(asked: pl.DataFrame, views: Sequence[AsofView], memory: int) -> bool:
    from rolecall.features.asof.plan import working_bytes

    if not asked.height:
        return True
    return asked.estimated_size() + sum(working_bytes(view.rows.select(view.wanted)) for view in views) <= memory


def _spilled(
    entities: pa.Table,
    asked: pl.DataFrame,
    views: Sequence[AsofView],
    timestamp: str,
    known_only: bool,
    memory: int,
    scratch: Path | None,
) -> pa.Table:
    from rolecall.features.asof.spill import spilled_join

    batches = spilled_join(
        asked.lazy(), views, timestamp=timestamp, known_only=known_only, memory=memory, scratch=scratch
    )
    found = pa.concat_tables([batch.to_arrow(compat_level=pl.CompatLevel.oldest()) for batch in batches])
    table = entities
    for name in found.column_names:
        table = table.append_column(name, found[name])
    return table


def _nulls(column: pl.Series, place: pl.Series) -> pl.Series:
    return pl.Series(column.name, [None] * len(place), dtype=column.dtype)
