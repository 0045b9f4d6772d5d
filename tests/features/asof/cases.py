"""Drawn point-in-time joins: awkward frames as Arrow tables for the engine, and as plain rows for the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
from hypothesis import strategies as st

from rolecall.features.asof.view import AsofView
from tests.features.asof.oracle import OracleView, Row, oracle_join

AT = "asked_at"
START = 1_700_000_000 * 10**9
PER_UNIT = {"ns": 1, "us": 10**3, "ms": 10**6}
KEY_TYPES = {
    "text": (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())),
    "whole": (pa.int64(), pa.int32(), pa.int16(), pa.uint8(), pa.float64()),
    "wide": (pa.uint64(), pa.int64()),
    "bytes": (pa.large_binary(),),
    "day": (pa.date32(),),
}
KEY_VALUES: dict[str, Sequence[Any]] = {
    "text": ("a", "b", "", "a much longer key, kept outside of a string view"),
    "whole": (0, 1, 2, 200),
    "wide": (0, 7, 2**40, 2**62),
    "bytes": (b"a", b"b", b""),
    "day": (0, 1, 19000),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One join: what the engine is given and, as plain rows, what the oracle is given."""

    entities: pa.Table
    views: tuple[AsofView, ...]
    rows: Sequence[Row]
    oracle: tuple[OracleView, ...]
    known_only: bool

    def expected(self) -> list[Row]:
        """The oracle's view columns, a dictionary an entity row."""
        names = [name for view in self.views for name in view.columns.values()]
        joined = oracle_join(self.rows, self.oracle, at=AT, known_only=self.known_only)
        return [{name: row[name] for name in names} for row in joined]


def got(case: Case, joined: pa.Table) -> list[Row]:
    """The view columns of a result, in the oracle's form; the entity columns must have come through unchanged."""
    names = case.entities.column_names
    assert joined.column_names[: len(names)] == names
    assert joined.select(names).equals(case.entities)
    return joined.drop_columns(names).to_pylist() if joined.num_columns > len(names) else [{}] * joined.num_rows


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Entity rows and one to three views that share some keys and instants, in every awkward combination."""
    kinds = draw(st.lists(st.sampled_from(sorted(KEY_TYPES)), min_size=1, max_size=2))
    clock = st.integers(-6, 6).map(lambda step: START + step * 10**9) | st.sampled_from(_EDGES)
    names = [f"key {place}" for place in range(len(kinds))]
    count = draw(st.integers(0, 9))
    rows = [
        {name: draw(st.sampled_from((*KEY_VALUES[kind], None))) for name, kind in zip(names, kinds, strict=True)}
        | {AT: draw(st.none() | clock), "order": place}
        for place in range(count)
    ]
    unit = draw(st.sampled_from(("ns", "us", "ms")))
    types = {name: draw(st.sampled_from(KEY_TYPES[kind])) for name, kind in zip(names, kinds, strict=True)}
    rows = [row | {AT: _floor(row[AT], unit)} for row in rows]
    entities = _table(rows, types | {AT: _stamp(unit, draw(_ZONES)), "order": pa.int64()})
    drawn = [draw(_views(f"view{place}", dict(zip(names, kinds, strict=True)), clock)) for place in range(draw(_FEW))]
    return Case(
        entities=entities,
        views=tuple(view for view, _ in drawn),
        rows=rows,
        oracle=tuple(oracle for _, oracle in drawn),
        known_only=draw(st.booleans()),
    )


_FEW = st.integers(1, 3)
_ZONES = st.sampled_from((None, "UTC", "America/New_York"))
_EDGES = tuple(START + extra for extra in (1, -1, 999, 1000, 1001, -999, 500_000, 10**6, 10**6 + 1, 10**9 - 1))
_TTLS = (
    None,
    timedelta(0),
    timedelta(seconds=1),
    timedelta(seconds=3),
    timedelta(microseconds=1),
    timedelta(days=9000),
)


@st.composite
def _views(draw: st.DrawFn, name: str, kinds: Mapping[str, str], clock: st.SearchStrategy[int]) -> Any:
    taken = draw(st.lists(st.sampled_from(sorted(kinds)), unique=True, max_size=len(kinds)))
    keys = {ours: f"{name} {ours}" for ours in taken}
    created = draw(st.sampled_from((None, "written")))
    units = {column: draw(st.sampled_from(("ns", "us", "ms"))) for column in ("happened", "written")}
    rows = [
        {theirs: draw(st.sampled_from((*KEY_VALUES[kinds[ours]], None))) for ours, theirs in keys.items()}
        | {column: _floor(draw(st.none() | clock), unit) for column, unit in units.items()}
        | _values(draw, place)
        for place in range(draw(st.integers(0, 12)))
    ]
    types = {theirs: draw(st.sampled_from(KEY_TYPES[kinds[ours]])) for ours, theirs in keys.items()}
    stamps = {column: _stamp(unit, draw(_ZONES)) for column, unit in units.items()}
    table = _table(rows, types | stamps | _VALUE_TYPES)
    ttl = draw(st.sampled_from(_TTLS))
    columns = {column: f"{name}__{column}" for column in _VALUE_TYPES}
    shared: dict[str, Any] = {
        "keys": keys, "timestamp": "happened", "created": created, "ttl": ttl, "columns": columns,
    }  # fmt: skip
    frame = pl.DataFrame(table).lazy()
    return AsofView(name=name, rows=frame, **shared), OracleView(rows=rows, **shared)


_VALUE_TYPES = {
    "number": pa.int64(),
    "texts": pa.large_list(pa.large_string()),
    "label": pa.dictionary(pa.uint32(), pa.large_string()),
    "price": pa.decimal128(12, 2),
    "pair": pa.struct([("a", pa.int64()), ("b", pa.large_string())]),
}


def _values(draw: st.DrawFn, place: int) -> dict[str, Any]:
    if draw(st.integers(0, 9)) == 0:
        return dict.fromkeys(_VALUE_TYPES)
    text = str(place)
    pair = {"a": place, "b": text}
    return {"number": place, "texts": [text, None], "label": text, "price": Decimal(place).scaleb(-2), "pair": pair}


def _floor(instant: int | None, unit: str) -> int | None:
    return None if instant is None else instant // PER_UNIT[unit] * PER_UNIT[unit]


def _stamp(unit: str, zone: str | None) -> pa.DataType:
    return pa.timestamp(unit, tz=zone)


def _table(rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType]) -> pa.Table:
    return pa.table({name: _column([row[name] for row in rows], kind) for name, kind in types.items()})


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return pa.array([None if v is None else v // PER_UNIT[kind.unit] for v in values], pa.int64()).cast(kind)
    if pa.types.is_date(kind):
        return pa.array(values, pa.int32()).cast(kind)
    return pa.array(values, kind)
