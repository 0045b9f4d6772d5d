"""From what a file holds to what a table holds: text (or native values) become typed columns.

`convert` never raises on a bad value: it answers null and a reason code, so that one row can go to
quarantine and the rest go on. Everything is a whole column at a time.

Instants may be written as ISO 8601 with `Z`, `UTC`, `GMT` or an offset, or as seconds, milliseconds or
microseconds since 1970 (10, 13 or 16 digits). An instant without a zone is refused unless the mapping names one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

UTC_MICROSECONDS = pl.Datetime("us", "UTC")
TRUE_WORDS = ("true", "t", "yes", "y", "1", "1.0")
FALSE_WORDS = ("false", "f", "no", "n", "0", "0.0")

_DATE = r"\d{4}-\d{2}-\d{2}"
_CLOCK = r"\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?"
_ZONE = r"(?i:Z|UTC|GMT)|[+-]\d{2}(?::?\d{2})?"
_INSTANT = rf"^({_DATE})(?:[T ]({_CLOCK}))?\s*({_ZONE})?$"
_EPOCH = r"^-?\d{9,17}(?:\.\d+)?$"
_EARLIEST, _LATEST = 1900, 2200


@dataclass(frozen=True, kw_only=True)
class Parse:
    """How one column is written. `format`: strptime; `zone`: IANA zone of instants that name none."""

    format: str | None = None
    zone: str | None = None


@dataclass(frozen=True, kw_only=True)
class Converted:
    """`values`: typed, null where absent or bad; `fault`: a reason code where bad, else null. Same length."""

    values: pl.Series
    fault: pl.Series


PLAIN = Parse()


def convert(values: pl.Series, kind: pa.DataType, parse: Parse = PLAIN) -> Converted:
    """`values` as `kind`, one of the types that `features/schema.py` uses."""
    if values.null_count() == len(values):
        nothing = pl.Series(pa.nulls(len(values), kind))
        return Converted(values=nothing, fault=_no_fault(len(values)))
    if pa.types.is_timestamp(kind):
        return _instants(values, parse)
    if pa.types.is_date(kind):
        return _dates(values, parse)
    if pa.types.is_boolean(kind):
        return _booleans(values)
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return _numbers(values, kind)
    if pa.types.is_list(kind):
        return _lists(values, kind)
    text = as_text(values)
    return _converted(text, text, "bad_value")


def as_text(values: pl.Series) -> pl.Series:
    """Trimmed text; empty text is null. Lists and structs become JSON."""
    kind = values.dtype
    if kind == pl.Null:
        return values.cast(pl.String)
    if kind.is_nested():
        return values.to_frame("v").select(_nested_text(kind)).to_series()
    if kind == pl.Binary:
        values = values.cast(pl.String, strict=False)
    elif kind != pl.String:
        values = values.cast(pl.String)
    values = values.str.strip_chars()
    return values.set(values == "", None)


def _nested_text(kind: pl.DataType) -> pl.Expr:
    """JSON text of a list or struct column (`struct.json_encode` wants a struct around a list)."""
    if isinstance(kind, pl.Struct):
        return pl.col("v").struct.json_encode()
    wrapped = pl.struct("v").struct.json_encode()
    return pl.when(pl.col("v").is_not_null()).then(wrapped.str.slice(5, wrapped.str.len_chars() - 6))


def _converted(text: pl.Series, values: pl.Series, reason: str, fault: pl.Series | None = None) -> Converted:
    """`reason` wherever text was there and no value came of it; `fault` says it more exactly where not null."""
    bad = text.is_not_null() & values.is_null()
    if not bad.any():
        return Converted(values=values, fault=_no_fault(len(text)))
    frame = pl.DataFrame({"bad": bad, "own": _no_fault(len(text)) if fault is None else fault})
    chosen = frame.select(pl.when("bad").then(pl.coalesce("own", pl.lit(reason)))).to_series()
    return Converted(values=values, fault=chosen)


def _no_fault(length: int) -> pl.Series:
    return pl.Series([None] * length, dtype=pl.String)


def _instants(values: pl.Series, parse: Parse) -> Converted:
    if isinstance(values.dtype, pl.Datetime):
        return _native_instants(values, parse)
    text = as_text(values)
    if parse.format is not None:
        return _formatted_instants(text, parse)
    parts = _instant_parts(text)
    frame = parts.select(
        pl.coalesce(_zoned(), _epoch(), _local(parse.zone)).alias("at"),
        pl.when(pl.col("date").is_not_null() & pl.col("zone").is_null() & pl.lit(parse.zone is None))
        .then(pl.lit("no_zone"))
        .alias("fault"),
    )
    return _in_range(text, frame["at"], "bad_time", frame["fault"])


def _instant_parts(text: pl.Series) -> pl.DataFrame:
    whole = text.to_frame("text")
    return whole.with_columns(
        date=pl.col("text").str.extract(_INSTANT, 1),
        clock=pl.col("text").str.extract(_INSTANT, 2).fill_null("00:00:00"),
        zone=pl.col("text").str.extract(_INSTANT, 3).str.to_uppercase(),
        epoch=pl.when(pl.col("text").str.contains(_EPOCH)).then(pl.col("text")),
    ).with_columns(
        clock=pl.when(pl.col("clock").str.len_chars() == 5)
        .then(pl.col("clock") + ":00")
        .otherwise(pl.col("clock").str.replace(r"(\.\d{6})\d+$", "$1"))
    )


def _zoned() -> pl.Expr:
    zone = pl.col("zone")
    digits = zone.str.replace(":", "", literal=True)
    offset = (
        pl.when(zone.is_in(["Z", "UTC", "GMT"]))
        .then(pl.lit("+0000"))
        .when(digits.str.len_chars() == 3)
        .then(digits + "00")
        .otherwise(digits)
    )
    return (pl.col("date") + "T" + pl.col("clock") + offset).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", time_zone="UTC", strict=False
    )


def _local(zone: str | None) -> pl.Expr:
    if zone is None:
        return pl.lit(None, dtype=UTC_MICROSECONDS)
    naive = (pl.when(pl.col("zone").is_null()).then(pl.col("date") + "T" + pl.col("clock"))).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False
    )
    return _at_zone(naive, zone)


def _at_zone(naive: pl.Expr, zone: str) -> pl.Expr:
    """Of a local time that occurs twice the earlier; one that the clocks skip is no time."""
    return naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")


def _epoch() -> pl.Expr:
    whole = pl.col("epoch").str.strip_chars_start("-").str.replace(r"\..*$", "").str.len_chars()
    scale = pl.when(whole <= 11).then(1_000_000.0).when(whole <= 14).then(1_000.0).otherwise(1.0)
    number = pl.col("epoch").cast(pl.Float64, strict=False)
    return (number * scale).round(0).cast(pl.Int64, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _native_instants(values: pl.Series, parse: Parse) -> Converted:
    frame = values.to_frame("at")
    if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is not None:
        zoned = frame.select(pl.col("at").dt.cast_time_unit("us").dt.convert_time_zone("UTC")).to_series()
        return _in_range(values, zoned, "bad_time", None)
    if parse.zone is None:
        nothing = pl.Series([None] * len(values), dtype=UTC_MICROSECONDS)
        return _converted(values, nothing, "no_zone")
    return _in_range(
        values, frame.select(_at_zone(pl.col("at").dt.cast_time_unit("us"), parse.zone)).to_series(), "bad_time", None
    )


def _formatted_instants(text: pl.Series, parse: Parse) -> Converted:
    form = parse.format or ""
    frame = text.to_frame("at")
    column = pl.col("at")
    if "%z" in form:
        at = frame.select(column.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)).to_series()
        return _in_range(text, at, "bad_time", None)
    clock = any(code in form for code in ("%H", "%I", "%T", "%R", "%s"))
    naive = (
        column.str.to_datetime(form, time_unit="us", strict=False)
        if clock
        else column.str.to_date(form, strict=False).cast(pl.Datetime("us"))
    )
    if parse.zone is None:
        return _converted(text, pl.Series([None] * len(text), dtype=UTC_MICROSECONDS), "no_zone")
    return _in_range(text, frame.select(_at_zone(naive, parse.zone)).to_series(), "bad_time", None)


def _in_range(text: pl.Series, values: pl.Series, reason: str, fault: pl.Series | None) -> Converted:
    """Years a job board cannot mean are bad values, not early ones."""
    year = values.dt.year()
    outside = ((year < _EARLIEST) | (year >= _LATEST)).fill_null(False)
    if not outside.any():
        return _converted(text, values, reason, fault)
    own = pl.DataFrame({"out": outside, "own": _no_fault(len(text)) if fault is None else fault}).select(
        pl.when("out").then(pl.lit("out_of_range")).otherwise("own")
    )
    return _converted(text, values.set(outside, None), reason, own.to_series())


def _dates(values: pl.Series, parse: Parse) -> Converted:
    if values.dtype == pl.Date or isinstance(values.dtype, pl.Datetime):
        return _in_range(values, values.cast(pl.Date), "bad_date", None)
    text = as_text(values)
    if parse.format is not None:
        return _in_range(text, text.str.to_date(parse.format, strict=False), "bad_date", None)
    day = text.str.extract(rf"^({_DATE})(?:[T ]{_CLOCK}.*)?$", 1).str.to_date("%Y-%m-%d", strict=False)
    return _in_range(text, day, "bad_date", None)


def _booleans(values: pl.Series) -> Converted:
    if values.dtype == pl.Boolean:
        return _converted(values, values, "bad_value")
    text = as_text(values)
    word = pl.col("w").str.to_lowercase()
    answer = (
        text.to_frame("w")
        .select(pl.when(word.is_in(TRUE_WORDS)).then(True).when(word.is_in(FALSE_WORDS)).then(False))
        .to_series()
    )
    return _converted(text, answer, "bad_value")


def _numbers(values: pl.Series, kind: pa.DataType) -> Converted:
    if values.dtype == pl.Boolean:
        return _converted(values, pl.Series([None] * len(values), dtype=_number_type(kind)), "bad_number")
    text = as_text(values)
    number = text.cast(pl.Float64, strict=False)
    number = number.set(~number.is_finite().fill_null(True), None)
    if pa.types.is_integer(kind):
        number = number.set((number != number.round(0)).fill_null(False), None)
    return _converted(text, number.cast(_number_type(kind), strict=False), "bad_number")


def _number_type(kind: pa.DataType) -> pl.DataType:
    if pa.types.is_integer(kind):
        return pl.Int32() if kind.bit_width == 32 else pl.Int64()
    return pl.Float64()


def _lists(values: pl.Series, kind: pa.DataType) -> Converted:
    """Native lists, or text that is a JSON array. Nulls and blanks in a list of texts are dropped."""
    structs = pa.types.is_struct(kind.value_type)
    if isinstance(values.dtype, pl.List) and not structs:
        frame = values.to_frame("v").select(pl.col("v").cast(pl.List(pl.String)))
        item = pl.element().str.strip_chars()
        cleaned = frame.select(pl.col("v").list.eval(item.filter(item.is_not_null() & (item != ""))))
        return _converted(values, cleaned.to_series(), "bad_value")
    text = as_text(values)
    decoded = [_decode(one, kind.value_type) if one is not None else None for one in text.to_list()]
    target = pl.Series(pa.array([one[0] if one else None for one in decoded], type=kind))
    fault = pl.Series([one[1] if one else None for one in decoded], dtype=pl.String)
    return _converted(text, target, "bad_value", fault)


def _decode(text: str, item: pa.DataType) -> tuple[list[Any] | None, str | None]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None, "bad_json"
    if not isinstance(found, list):
        return None, "bad_value"
    if not pa.types.is_struct(item):
        if not all(isinstance(one, str | int | float) or one is None for one in found):
            return None, "bad_value"
        return [word for one in found if one is not None and (word := str(one).strip())], None
    return _entries(found, item)


def _entries(found: list[Any], item: pa.DataType) -> tuple[list[Any] | None, str | None]:
    """A list of objects with the struct's fields, each converted like a column of its own."""
    names = [field.name for field in item]
    if not all(isinstance(one, dict) and set(one) <= set(names) for one in found):
        return None, "bad_value"
    columns: dict[str, list[Any]] = {}
    for field in item:
        given = [one.get(field.name) for one in found]
        column = convert(pl.Series([None if g is None else str(g) for g in given], dtype=pl.String), field.type)
        faults = column.fault.drop_nulls()
        if len(faults):
            return None, str(faults[0])
        columns[field.name] = column.values.to_list()
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)], None
