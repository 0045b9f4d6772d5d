"""A section of a mapping applied to rows of its files: source columns become columns of the table.

    checked = map_rows(spec, mapping, rows)       # one chunk: typed columns, a reason in each row refused
    whole, refused = fold_rows(spec, checked)     # only where the section folds

What is here knows frames, not files: reading is `pipelines/sources.py`.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable

import polars as pl
import pyarrow as pa

from rolecall.features.mapping import ColumnSpec, Mapping, TableSpec
from rolecall.features.schema import TIMESTAMP
from rolecall.features.validation import MESSAGE, REASON, RESERVED, ROW, check_columns, check_rows
from rolecall.features.values import Parse, as_text, convert

POSITION = "__position"
MEMBERS = "__members"
_KEY = "__key"
_ORDER = "__order"
_TAG = re.compile(r"<[^>]{0,2000}>")
_ESCAPED = re.compile(r"\\[rnt]")


def map_rows(spec: TableSpec, mapping: Mapping, rows: pl.DataFrame) -> pl.DataFrame:
    """One chunk of source rows as typed rows of the table, or, where the section folds, as the parts to fold.

    `rows` holds source columns and the reserved ones; so does the answer hold the table's and those.
    """
    rows = _without_nulls(mapping, rows)
    rows = _refuse_out_of_order(spec, rows)
    columns = spec.resolved()
    parse = {name: mapping.parse(column) for name, column in columns.items()}
    made = rows.select(*(_column(rows, column).alias(name) for name, column in columns.items() if not column.fields))
    made = made.with_columns(rows[name] for name in RESERVED)
    if not spec.fold:
        return check_rows(spec.schema_, check_columns(spec.schema_.columns, made, parse))
    return _parts(spec, rows, made, parse)


def fold_rows(spec: TableSpec, parts: pl.DataFrame) -> pl.DataFrame:
    """Parts with the same `fold` columns as one row. MEMBERS lists the POSITIONs of its parts; ROW is the first's."""
    columns = spec.resolved()
    ordered = parts.sort(_ORDER, nulls_last=False, maintain_order=True)
    folded = ordered.group_by(_KEY, maintain_order=True).agg(
        *(_collected(name, column).alias(name) for name, column in columns.items()),
        pl.col(POSITION).sort().alias(MEMBERS),
        pl.col(ROW).min(),
        pl.lit(None, dtype=pl.String).alias(REASON),
        pl.lit(None, dtype=pl.String).alias(MESSAGE),
    )
    absent = [field for field in spec.schema_.columns if field.name not in columns]
    empty = [pl.Series(pa.nulls(folded.height, field.type)).alias(field.name) for field in absent]
    return check_rows(spec.schema_, folded.with_columns(empty).sort(ROW, maintain_order=True))


def _without_nulls(mapping: Mapping, rows: pl.DataFrame) -> pl.DataFrame:
    texts = [name for name, kind in rows.schema.items() if kind == pl.String and name not in RESERVED]
    trimmed = [pl.col(name).str.strip_chars() for name in texts]
    rows = rows.with_columns(trimmed)
    return rows.with_columns(
        pl.when(~pl.col(name).is_in(["", *mapping.nulls])).then(pl.col(name)).alias(name) for name in texts
    )


def _refuse_out_of_order(spec: TableSpec, rows: pl.DataFrame) -> pl.DataFrame:
    for start, end in spec.ordered:
        if start not in rows.columns or end not in rows.columns:
            continue
        at = [convert(rows[name], TIMESTAMP, Parse(zone="UTC")).values for name in (start, end)]
        broken = (at[1] < at[0]).fill_null(False) & rows[REASON].is_null()
        told = pl.format(
            f"{end} {{}} is before {start} {{}}", pl.col(end).cast(pl.String), pl.col(start).cast(pl.String)
        )
        rows = rows.with_columns(
            pl.when(broken).then(pl.lit("end_before_start")).otherwise(REASON).alias(REASON),
            pl.when(broken).then(told).otherwise(MESSAGE).alias(MESSAGE),
        )
    return rows


def _column(rows: pl.DataFrame, spec: ColumnSpec) -> pl.Series:
    """One column before its type: text, or what the file held natively."""
    made = _origin(rows, spec)
    if spec.html:
        made = _each(as_text(made), _plain)
    if spec.values:
        made = as_text(made).replace(spec.values)
    if spec.split is not None:
        made = as_text(made).str.split(spec.split)
    return made


def _origin(rows: pl.DataFrame, spec: ColumnSpec) -> pl.Series:
    if spec.constant is not None:
        text = spec.constant if isinstance(spec.constant, str) else json.dumps(spec.constant)
        return pl.Series([text] * rows.height, dtype=pl.String)
    if spec.hash:
        return _hashed(rows, spec.hash)
    if spec.concat:
        parts = [as_text(_source(rows, name)).alias(f"{at}") for at, name in enumerate(spec.concat)]
        frame = pl.DataFrame(parts)
        return as_text(frame.select(pl.concat_str(pl.all(), separator=spec.separator, ignore_nulls=True)).to_series())
    return _source(rows, spec.source or "")


def _source(rows: pl.DataFrame, name: str) -> pl.Series:
    """A section's files need not all have a column: where it is absent it is null."""
    return rows[name] if name in rows.columns else pl.Series([None] * rows.height, dtype=pl.String)


def _hashed(rows: pl.DataFrame, names: tuple[str, ...]) -> pl.Series:
    """The same values give the same id on any machine; where one is missing there is none."""
    texts = [as_text(_source(rows, name)).to_list() for name in names]
    ids = [
        None if None in row else hashlib.sha256(json.dumps(row).encode()).hexdigest()[:16]
        for row in zip(*texts, strict=True)
    ]
    return pl.Series(ids, dtype=pl.String)


def _each(values: pl.Series, change: Callable[[str], str]) -> pl.Series:
    return pl.Series([None if one is None else change(one) for one in values.to_list()], dtype=pl.String)


def _plain(text: str) -> str:
    """Text of an HTML fragment: no tags, no entities, one space between words."""
    return " ".join(html.unescape(_TAG.sub(" ", _ESCAPED.sub(" ", text))).split())


def _parts(spec: TableSpec, rows: pl.DataFrame, made: pl.DataFrame, parse: dict[str, Parse]) -> pl.DataFrame:
    """The rows to fold: each collected column holds one value (or list), each struct its fields."""
    fields = [_part_field(spec, name, made) for name in spec.resolved() if name in made.columns]
    structs: dict[str, ColumnSpec] = {name: c for name, c in spec.resolved().items() if c.fields}
    for name, column in structs.items():
        kind = spec.schema_.columns.field(name).type.value_type
        made = made.with_columns(
            _source(rows, source).alias(f"{name}.{field}") for field, source in column.fields.items()
        )
        fields += [pa.field(f"{name}.{field}", kind.field(field).type) for field in column.fields]
    checked = _refuse_without_key(spec, rows, check_columns(pa.schema(fields), made, parse))
    checked = checked.with_columns(_struct(spec, name, column) for name, column in structs.items())
    return checked.with_columns(_fold_key(spec, rows), _fold_order(spec, rows))


def _part_field(spec: TableSpec, name: str, made: pl.DataFrame) -> pa.Field:
    kind = spec.schema_.columns.field(name).type
    single = pa.types.is_list(kind) and not isinstance(made.schema[name], pl.List)
    return pa.field(name, kind.value_type if single and spec.resolved()[name].collect == "list" else kind)


def _refuse_without_key(spec: TableSpec, rows: pl.DataFrame, checked: pl.DataFrame) -> pl.DataFrame:
    empty = pl.DataFrame([as_text(_source(rows, name)).is_null().alias(name) for name in spec.fold])
    broken = empty.select(pl.any_horizontal(pl.all())).to_series() & checked[REASON].is_null()
    return checked.with_columns(
        pl.when(broken).then(pl.lit("missing_key")).otherwise(REASON).alias(REASON),
        pl.when(broken).then(pl.lit(f"{', '.join(spec.fold)} is empty")).otherwise(MESSAGE).alias(MESSAGE),
    )


def _struct(spec: TableSpec, name: str, column: ColumnSpec) -> pl.Expr:
    """A struct with every field of the schema; null where all the mapped ones are."""
    kind = spec.schema_.columns.field(name).type.value_type
    empty = {field.name: pl.lit(pl.Series(pa.nulls(1, field.type))).first() for field in kind}
    inner = [pl.col(f"{name}.{f}").alias(f) if f in column.fields else empty[f].alias(f) for f in empty]
    there = pl.any_horizontal(pl.col(f"{name}.{field}").is_not_null() for field in column.fields)
    return pl.when(there).then(pl.struct(inner)).alias(name)


def _fold_key(spec: TableSpec, rows: pl.DataFrame) -> pl.Series:
    return pl.Series(
        _KEY, [json.dumps(row) for row in zip(*(as_text(_source(rows, n)).to_list() for n in spec.fold), strict=True)]
    )


def _fold_order(spec: TableSpec, rows: pl.DataFrame) -> pl.Series:
    """A number to sort by: the column's numbers, or its instants or dates in microseconds."""
    if spec.order_by is None:
        return pl.Series(_ORDER, [0.0] * rows.height)
    values = as_text(_source(rows, spec.order_by.removeprefix("-")))
    instants = convert(values, TIMESTAMP, Parse(zone="UTC")).values.cast(pl.Int64).cast(pl.Float64)
    frame = pl.DataFrame({"n": values.cast(pl.Float64, strict=False), "t": instants})
    sign = -1.0 if spec.order_by.startswith("-") else 1.0
    return frame.select((pl.coalesce("n", "t") * sign).alias(_ORDER)).to_series()


def _collected(name: str, column: ColumnSpec) -> pl.Expr:
    values = pl.col(name).drop_nulls()
    if column.collect == "list":
        return values.unique(maintain_order=True)
    return {"first": values.first(), "last": values.last(), "min": values.min(), "max": values.max()}[column.collect]
