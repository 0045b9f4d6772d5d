"""The rows whose features are asked for: which types are taken, and which of their columns is the instant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rolecall.features.asof.arrow import to_arrow
from rolecall.features.asof.view import AsofInputError

EVENT_TIMESTAMP = "event_timestamp"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = (
    (end - _EPOCH) // timedelta(microseconds=1)
    for end in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
)


def entity_table(rows: object) -> pa.Table:
    """Entity rows as an Arrow table, columns in their order.

    Takes pandas and Polars frames and Arrow tables. Raises AsofInputError for anything else (SQL among it), and for
    a pandas column that mixes types.
    """
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, pl.DataFrame):
        return to_arrow(rows)
    if isinstance(rows, pd.DataFrame):
        return _from_pandas(rows)
    raise AsofInputError(
        f"entity rows are a {type(rows).__name__}: this store runs no SQL; "
        "give a pandas or Polars frame, an Arrow table, or None with start_date and end_date"
    )


def timestamp_column(table: pa.Table) -> str:
    """`event_timestamp`, or else the only column of timestamps.

    Raises AsofInputError where there is no such one, or it holds no instants.
    """
    if EVENT_TIMESTAMP in table.column_names:
        kind = table.schema.field(EVENT_TIMESTAMP).type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_null(kind):
            return EVENT_TIMESTAMP
        raise AsofInputError(f"entity column {EVENT_TIMESTAMP} is {kind}: give timestamps (ms, us or ns) or dates")
    found = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    if len(found) == 1:
        return str(found[0])
    has = f"the timestamp columns {', '.join(found)}" if found else f"the columns {', '.join(table.column_names)}"
    raise AsofInputError(f"entity rows have {has}: name the instant of each row {EVENT_TIMESTAMP}")


def time_range(column: pa.ChunkedArray) -> tuple[datetime | None, datetime | None]:
    """First and last instant in UTC, at most the ends of what `datetime` holds; None where there is none."""
    instants = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
    ends = pc.call_function("min_max", [instants.cast(pa.int64())]).as_py()
    return _utc(ends["min"]), _utc(ends["max"])


def _utc(micros: int | None) -> datetime | None:
    if micros is None:
        return None
    return _EPOCH + timedelta(microseconds=min(max(micros, _FIRST), _LAST))


def _from_pandas(rows: pd.DataFrame) -> pa.Table:
    names: list[Any] = [name for name in rows.columns if not isinstance(name, str)]
    if names:
        raise AsofInputError(f"entity rows have the column names {names}: name every column with a text")
    if EVENT_TIMESTAMP in rows and rows[EVENT_TIMESTAMP].dtype == object:
        rows = rows.assign(**{EVENT_TIMESTAMP: _instants(rows[EVENT_TIMESTAMP])})
    try:
        return pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise AsofInputError(f"entity rows cannot be read: {error}; give every column one type") from error


def _instants(column: pd.Series[Any]) -> pd.Series[Any]:
    """Texts and datetimes of several zones as instants; a text without a zone is UTC."""
    try:
        return pd.to_datetime(column, utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise AsofInputError(
            f"{EVENT_TIMESTAMP} holds what is no instant: {error}; give timestamps, or texts in ISO 8601"
        ) from error
