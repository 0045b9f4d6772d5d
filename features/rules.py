"""What a row must hold beyond the types of its columns, table by table, as Polars expressions: `row_rules(JOBS)`.

A rule that meets a null holds: what is required is the schema's matter, not a rule's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import polars as pl
import pyarrow as pa

from rolecall.features.schema import (
    CANDIDATE_EVENTS,
    CANDIDATES,
    EMPLOYER_EVENTS,
    EMPLOYERS,
    EMPLOYMENT_TYPES,
    EVENTS,
    JOBS,
    MAX_LIST,
    MAX_SHORT_TEXT,
    MAX_TEXT,
    SENIORITIES,
    VISIBILITIES,
)
from rolecall.platform.tables import TableSchema

_LARGE = 1e15
LONG_TEXTS = frozenset({"description", "resume_text"})
_EVENT_PAIRS = [f"candidate {kind}" for kind in CANDIDATE_EVENTS] + [f"employer {kind}" for kind in EMPLOYER_EVENTS]


@dataclass(frozen=True)
class Rule:
    """A row for which `broken` is true is refused with `reason`, and told `message`."""

    reason: str
    broken: pl.Expr
    message: pl.Expr


def _shown(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).fill_null("(empty)").str.slice(0, 80)


def _words(name: str, allowed: tuple[str, ...]) -> Rule:
    message = pl.format(f"{name} '{{}}': allowed are {', '.join(allowed)}", _shown(name))
    return Rule("unknown_word", ~pl.col(name).is_in(allowed), message)


def _between(name: str, low: float, high: float) -> Rule:
    message = pl.format(f"{name} {{}}: allowed are {low:.15g} to {high:.15g}", _shown(name))
    return Rule("out_of_range", ~pl.col(name).is_between(low, high), message)


def _in_order(start: str, end: str) -> Rule:
    message = pl.format(f"{end} {{}} is before {start} {{}}", _shown(end), _shown(start))
    return Rule("end_before_start", pl.col(end) < pl.col(start), message)


def _not_negative_salary(name: str) -> Rule:
    return Rule("negative_salary", pl.col(name) < 0, pl.format(f"{name} is {{}}", _shown(name)))


def _text_limits(schema: TableSchema) -> list[Rule]:
    rules = []
    for field in schema.columns:
        if pa.types.is_string(field.type):
            rules.append(_text_limit(field.name, pl.col(field.name)))
            rules.append(_no_nul(field.name))
        elif pa.types.is_list(field.type):
            rules.append(_list_limit(field.name))
            rules += _item_limits(field)
    return rules


def _text_limit(name: str, text: pl.Expr) -> Rule:
    limit = MAX_TEXT if name.rpartition(".")[2] in LONG_TEXTS else MAX_SHORT_TEXT
    length = text.str.len_chars()
    return Rule("text_too_long", length > limit, pl.format(f"{name} has {{}} characters: allowed are {limit}", length))


def _no_nul(name: str) -> Rule:
    """Databases cannot keep the character NUL in a text."""
    return Rule("bad_value", pl.col(name).str.contains("\x00", literal=True), pl.lit(f"{name} holds the character NUL"))


def _list_limit(name: str) -> Rule:
    length = pl.col(name).list.len()
    return Rule("list_too_long", length > MAX_LIST, pl.format(f"{name} has {{}} items: allowed are {MAX_LIST}", length))


def _item_limits(field: pa.Field) -> list[Rule]:
    """The longest text of a list, or of each text field of a list of structs."""
    if not pa.types.is_struct(field.type.value_type):
        return [_text_limit(field.name, _longest(pl.col(field.name), pl.element()))]
    texts = [inner.name for inner in field.type.value_type if pa.types.is_string(inner.type)]
    return [
        _text_limit(f"{field.name}.{text}", _longest(pl.col(field.name), pl.element().struct.field(text)))
        for text in texts
    ]


def _longest(items: pl.Expr, text: pl.Expr) -> pl.Expr:
    lengths = text.str.len_chars()
    return items.list.eval(text.sort_by(lengths, nulls_last=False)).list.last()


def _experience_rules() -> list[Rule]:
    start, end = pl.element().struct.field("started_at"), pl.element().struct.field("ended_at")
    broken = pl.col("experience").list.eval((end < start).fill_null(False)).list.any()
    return [Rule("end_before_start", broken, pl.lit("an entry of experience ends before it starts"))]


def _event_kind() -> Rule:
    pair = pl.concat_str(pl.col("actor").fill_null("?"), pl.lit(" "), pl.col("kind").fill_null("?"))
    message = pl.format(f"'{{}}': allowed are {', '.join(_EVENT_PAIRS)}", pair.str.slice(0, 80))
    return Rule("unknown_kind", ~pair.is_in(_EVENT_PAIRS), message)


def _job_rules() -> list[Rule]:
    too_low = pl.col("salary_max") < pl.col("salary_min")
    return [
        _not_negative_salary("salary_min"),
        _not_negative_salary("salary_max"),
        Rule(
            "salary_order",
            too_low,
            pl.format("salary_max {} is below salary_min {}", _shown("salary_max"), _shown("salary_min")),
        ),
        _in_order("posted_at", "expires_at"),
        _words("employment_type", EMPLOYMENT_TYPES),
        *_person_and_place_rules(),
    ]


def _person_and_place_rules() -> list[Rule]:
    return [_words("seniority", SENIORITIES), _between("lat", -90, 90), _between("lon", -180, 180)]


def _employer_rules() -> list[Rule]:
    return [_between("rating", 0, 100), _between("rating_count", 0, _LARGE), _between("size", 0, _LARGE)]


def _event_rules() -> list[Rule]:
    return [
        _event_kind(),
        _between("position", 0, 1_000_000),
        _between("propensity", 0, 1),
        _between("dwell_seconds", 0, _LARGE),
    ]


@cache
def row_rules(schema: TableSchema) -> tuple[Rule, ...]:
    """The rules of one table, the required columns first, in the order in which they are asked."""
    own = {
        JOBS.name: _job_rules,
        CANDIDATES.name: lambda: [*_experience_rules(), _words("visibility", VISIBILITIES), *_person_and_place_rules()],
        EMPLOYERS.name: _employer_rules,
        EVENTS.name: _event_rules,
    }
    return (*_required(schema), *own[schema.name](), *_text_limits(schema))


def _required(schema: TableSchema) -> list[Rule]:
    keys = {*schema.key, "candidate_id", "job_id"}
    return [
        Rule("missing_key" if name in keys else "missing_value", pl.col(name).is_null(), pl.lit(f"{name} is empty"))
        for name in schema.required
    ]
