"""The one validator: every row of every source goes through `check_columns` and `check_rows`.

    validate(JOBS, frame)                          a whole frame: accepted rows, refusals, duplicates counted
    validate_events([{"event_id": "e1", ...}])     the same rules for events posted over HTTP

A row is refused with one reason code of `REASONS`, the first that applies, and the rest go on. Where a key
occurs more than once the row with the latest time is kept (of equal times the last in order) and the others
count as duplicates. So accepted + duplicate + quarantined = rows given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa

from rolecall.features.rules import Rule, row_rules
from rolecall.features.schema import EVENTS
from rolecall.features.values import PLAIN, Parse, as_text, convert
from rolecall.platform.errors import SchemaError
from rolecall.platform.tables import TableSchema

ROW = "__row"
REASON = "__reason"
MESSAGE = "__message"
RESERVED = (ROW, REASON, MESSAGE)

REASONS: dict[str, str] = {
    "bad_utf8": "the row holds bytes that are not text in the file's encoding",
    "bad_json": "the line is not a JSON object, or a list column is not a JSON array",
    "ragged_row": "the row has more or fewer fields than the header, or a quote that is never closed",
    "unknown_field": "the row has a field that the table does not have",
    "missing_key": "a column that names the row, its candidate or its job is empty",
    "missing_value": "another required column is empty",
    "no_zone": "an instant names no time zone and the mapping declares none",
    "bad_time": "an instant cannot be read",
    "bad_date": "a date cannot be read",
    "bad_number": "a number cannot be read, is not finite, or is not whole where it must be",
    "bad_value": "another value cannot be read",
    "out_of_range": "a number or year is outside what it can mean",
    "end_before_start": "something ends before it starts",
    "negative_salary": "a salary is below zero",
    "salary_order": "salary_max is below salary_min",
    "unknown_kind": "actor and kind of an event are not a pair the schema has",
    "unknown_word": "seniority, employment_type or visibility is not a word the schema has",
    "text_too_long": "a text is longer than the schema allows",
    "list_too_long": "a list has more items than the schema allows",
}
_FIXES = {
    "no_zone": "write Z or an offset, or declare `zone` in the mapping",
    "bad_time": "write ISO 8601 with a zone or seconds since 1970, or declare `format` in the mapping",
    "bad_date": "write YYYY-MM-DD, or declare `format` in the mapping",
    "bad_json": 'write a JSON array such as ["a", "b"], or declare `split` in the mapping',
}
PERSONAL_COLUMNS = ("candidate_id", "resume_text", "desired_titles", "experience")
_SHOWN = 80


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One refused row: `row` counts from 1 in a file, from 0 in a posted batch."""

    row: int
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Validated:
    """`accepted`: rows in the schema's columns, each key once; `refused`: one entry a row; `duplicate`: how many."""

    accepted: pa.Table
    refused: tuple[Refusal, ...]
    duplicate: int


@dataclass(frozen=True, kw_only=True)
class ValidatedEvents:
    """Posted events after validation. `accepted` rows hold every column of EVENTS, times as UTC datetimes."""

    accepted: tuple[dict[str, Any], ...]
    refused: tuple[Refusal, ...]
    duplicate: int


def validate(
    schema: TableSchema, frame: pl.DataFrame, *, parse: Mapping[str, Parse] | None = None, first_row: int = 1
) -> Validated:
    """Rows of `frame` (columns by the schema's names, text or native values) as rows of the table.

    Raises SchemaError where `frame` has a column the table does not have, or lacks a required one.
    """
    _refuse_wrong_columns(schema, frame)
    numbered = with_reserved(frame, first_row=first_row)
    checked = check_rows(schema, check_columns(schema.columns, numbered, parse or {}))
    kept, duplicate = newest(schema, checked.filter(pl.col(REASON).is_null()))
    return Validated(accepted=as_table(schema, kept), refused=refusals(checked), duplicate=duplicate)


def validate_events(events: Sequence[Mapping[str, object]]) -> ValidatedEvents:
    """Events as a caller posted them; `Refusal.row` is the index in `events`. Never raises on what they hold."""
    frame = with_reserved(pl.DataFrame(_event_columns(events)), first_row=0)
    faults = [_event_fault(event) for event in events]
    frame = frame.with_columns(
        pl.Series(REASON, [reason for reason, _ in faults], dtype=pl.String),
        pl.Series(MESSAGE, [message for _, message in faults], dtype=pl.String),
    )
    checked = check_rows(EVENTS, check_columns(EVENTS.columns, frame, {}))
    kept, duplicate = newest(EVENTS, checked.filter(pl.col(REASON).is_null()))
    accepted = as_table(EVENTS, kept).to_pylist()
    return ValidatedEvents(accepted=tuple(accepted), refused=refusals(checked), duplicate=duplicate)


def with_reserved(frame: pl.DataFrame, *, first_row: int = 1) -> pl.DataFrame:
    """`frame` with the columns that carry a row's number, reason and message, where it lacks them."""
    if ROW not in frame.columns:
        numbers = pl.int_range(first_row, first_row + frame.height, dtype=pl.Int64, eager=True)
        frame = frame.with_columns(numbers.alias(ROW))
    absent = [name for name in (REASON, MESSAGE) if name not in frame.columns]
    return frame.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in absent)


def check_columns(columns: pa.Schema, frame: pl.DataFrame, parse: Mapping[str, Parse]) -> pl.DataFrame:
    """Each column as its Arrow type; a column the frame lacks is null. A bad value gives its row a reason."""
    typed: list[pl.Series] = []
    reason, message = frame[REASON], frame[MESSAGE]
    for field in columns:
        given = frame[field.name] if field.name in frame.columns else pl.Series([None] * frame.height, dtype=pl.String)
        made = convert(given, field.type, parse.get(field.name, PLAIN))
        typed.append(made.values.alias(field.name))
        if made.fault.null_count() < frame.height:
            told = _told(field.name, as_text(given), made.fault)
            reason, message = _first(reason, message, made.fault, told)
    return pl.DataFrame([*typed, frame[ROW], reason.alias(REASON), message.alias(MESSAGE)])


def check_rows(schema: TableSchema, frame: pl.DataFrame) -> pl.DataFrame:
    """What a row of the table must hold beyond its types: `row_rules` and the required columns."""
    rules = row_rules(schema)
    broken = frame.select(pl.any_horizontal(rule.broken.fill_null(False) for rule in rules)).to_series()
    if not broken.any():
        return frame
    answers = frame.filter(broken).select(
        pl.coalesce(_if_broken(rule, pl.lit(rule.reason)) for rule in rules).alias(REASON),
        pl.coalesce(_if_broken(rule, rule.message) for rule in rules).alias(MESSAGE),
    )
    at = broken.arg_true()
    new, told = (_scattered(frame.height, at, answers[name]) for name in (REASON, MESSAGE))
    reason, message = _first(frame[REASON], frame[MESSAGE], new, told)
    return frame.with_columns(reason.alias(REASON), message.alias(MESSAGE))


def newest(schema: TableSchema, frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Each key once, the row with the latest time (of equal times the last in order), and how many were dropped."""
    kept = frame.sort(schema.time, maintain_order=True).unique(schema.key, keep="last", maintain_order=True)
    return kept, frame.height - kept.height


def as_table(schema: TableSchema, frame: pl.DataFrame) -> pa.Table:
    return frame.select(schema.columns.names).to_arrow().cast(schema.columns)


def refusals(frame: pl.DataFrame) -> tuple[Refusal, ...]:
    """The refused rows of a checked frame, in order."""
    refused = frame.filter(pl.col(REASON).is_not_null()).select(RESERVED).sort(ROW, maintain_order=True)
    return tuple(Refusal(row=row, reason=reason, message=message) for row, reason, message in refused.iter_rows())


def _refuse_wrong_columns(schema: TableSchema, frame: pl.DataFrame) -> None:
    given = [name for name in frame.columns if name not in RESERVED]
    reasons = [f"column {name} is missing" for name in schema.required if name not in given]
    reasons += [f"column {name} is unknown" for name in given if name not in schema.columns.names]
    if reasons:
        raise SchemaError(f"{schema.name}: {'; '.join(reasons[:10])}", f"{schema.columns.names}", "map the columns")


def _if_broken(rule: Rule, answer: pl.Expr) -> pl.Expr:
    return pl.when(rule.broken.fill_null(False)).then(answer)


def _scattered(height: int, at: pl.Series, answers: pl.Series) -> pl.Series:
    return pl.Series([None] * height, dtype=pl.String).scatter(at, answers)


def _first(reason: pl.Series, message: pl.Series, new: pl.Series, told: pl.Series) -> tuple[pl.Series, pl.Series]:
    """A row's first reason stays."""
    frame = pl.DataFrame({"r": reason, "m": message, "nr": new, "nm": told})
    free = pl.col("r").is_null()
    chosen = frame.select(
        pl.when(free).then("nr").otherwise("r").alias("r"), pl.when(free).then("nm").otherwise("m").alias("m")
    )
    return chosen["r"], chosen["m"]


def _told(name: str, text: pl.Series, fault: pl.Series) -> pl.Series:
    """`occurred_at '2026-03-01 12:00' (an instant names no time zone ...): write Z or an offset`.

    A value that tells about a person is not repeated: messages are printed, and land in logs.
    """
    meaning = {code: REASONS[code] + (f": {_FIXES[code]}" if code in _FIXES else "") for code in REASONS}
    frame = pl.DataFrame({"text": text, "fault": fault})
    said = pl.col("fault").replace_strict(meaning, default=None, return_dtype=pl.String)
    shown = pl.lit("...") if name in PERSONAL_COLUMNS else pl.col("text").fill_null("").str.slice(0, _SHOWN)
    return frame.select(
        pl.when(pl.col("fault").is_not_null()).then(pl.format(f"{name} '{{}}': {{}}", shown, said))
    ).to_series()


def _event_columns(events: Sequence[Mapping[str, object]]) -> dict[str, pl.Series]:
    return {
        name: pl.Series([_plain_text(event.get(name)) for event in events], dtype=pl.String)
        for name in EVENTS.columns.names
    }


def _event_fault(event: Mapping[str, object]) -> tuple[str | None, str | None]:
    unknown = sorted(str(name) for name in event if name not in EVENTS.columns.names)
    if unknown:
        return "unknown_field", f"{', '.join(unknown)}: allowed are {', '.join(EVENTS.columns.names)}"
    for name, value in event.items():
        if isinstance(value, str) and not _is_unicode(value):
            return "bad_utf8", f"{name} holds a lone surrogate, which is no character"
        if isinstance(value, list | tuple | dict):
            return "bad_value", f"{name} holds a {type(value).__name__}: allowed are text, numbers and null"
    return None, None


def _plain_text(value: object) -> str | None:
    """The text a value would have in a file; text that no encoding can write is left out (`_event_fault` says so)."""
    if value is None:
        return None
    if isinstance(value, str):
        return value if _is_unicode(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value, default=str)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
