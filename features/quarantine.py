"""Refused rows, kept with their reason so that someone can mend them: rows of the QUARANTINE table.

A row is named by (source, table, row number). Ingesting a source again replaces what quarantine says of it:
a row that is accepted now leaves it. One that is refused again for the same reason keeps its first `refused_at`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from rolecall.features.schema import MAX_TEXT, QUARANTINE
from rolecall.features.validation import MESSAGE, REASON, RESERVED, ROW
from rolecall.features.values import as_text
from rolecall.platform.tables import TableStore

_NAMES = [name for name in QUARANTINE.columns.names if name != "refused_at"]
_SCHEMA = {name: pl.Int64 if name == "row_number" else pl.String for name in _NAMES}


def no_rows() -> pl.DataFrame:
    """An empty quarantine frame."""
    return pl.DataFrame(schema=_SCHEMA)


def refused_rows(source: str, table: str, checked: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """The refused rows of `checked`, with the text of the same row of `rows` (both in the same order)."""
    refused = checked[REASON].is_not_null()
    if not refused.any():
        return no_rows()
    found = checked.filter(refused)
    return _frame(source, table, found[ROW], _texts(rows.filter(refused)), found[REASON], found[MESSAGE])


def unread_rows(source: str, table: str, broken: Sequence[tuple[int, str, str, str]]) -> pl.DataFrame:
    """Rows that could not be read: (row number, reason, message, text)."""
    if not broken:
        return no_rows()
    columns = list(zip(*broken, strict=True))
    texts = [pl.Series(column, dtype=pl.String) for column in columns[1:]]
    return _frame(source, table, pl.Series(columns[0], dtype=pl.Int64), texts[2], texts[0], texts[1])


def keep(store: TableStore, sources: Sequence[tuple[str, str]], refused: pl.DataFrame, *, at: datetime) -> None:
    """Make `refused` all that quarantine says of these (source, table) pairs; what is new was refused at `at`."""
    read = pl.DataFrame(list(sources), schema={"source": pl.String, "table": pl.String}, orient="row")
    stored = store.scan(QUARANTINE).select(QUARANTINE.columns.names).collect()
    refused = _dated(refused, stored, at)
    others = stored.join(read, on=["source", "table"], how="anti", maintain_order="left")
    stale = stored.join(read, on=["source", "table"], how="semi").join(refused, on=list(QUARANTINE.key), how="anti")
    if stale.height:
        store.replace(QUARANTINE, pl.concat([others, refused]).to_arrow().cast(QUARANTINE.columns))
    elif refused.height:
        store.upsert(QUARANTINE, refused.to_arrow().cast(QUARANTINE.columns))


def _dated(refused: pl.DataFrame, stored: pl.DataFrame, at: datetime) -> pl.DataFrame:
    known = stored.with_columns(pl.lit(True).alias("known"))
    dated = refused.join(known, on=_NAMES, how="left", nulls_equal=True, maintain_order="left")
    first = pl.when(pl.col("known")).then("refused_at").otherwise(pl.lit(at).cast(pl.Datetime("us", "UTC")))
    return dated.with_columns(first.alias("refused_at")).select(QUARANTINE.columns.names)


def _frame(
    source: str, table: str, numbers: pl.Series, texts: pl.Series, reasons: pl.Series, messages: pl.Series
) -> pl.DataFrame:
    frame = pl.DataFrame(
        [numbers.alias("row_number"), texts.alias("row"), reasons.alias("reason"), messages.alias("message")]
    )
    named = frame.with_columns(source=pl.lit(source), table=pl.lit(table))
    return named.with_columns(pl.col("row").str.slice(0, MAX_TEXT)).select(_NAMES)


def _texts(rows: pl.DataFrame) -> pl.Series:
    """Each row as one JSON object of its source columns."""
    texts = [as_text(rows[name]).alias(name) for name in rows.columns if name not in RESERVED]
    return pl.DataFrame(texts).select(pl.struct(pl.all()).struct.json_encode()).to_series()
