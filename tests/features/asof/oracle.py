"""The point-in-time join as it is defined, row by row, in plain Python: slow, and easy to check by eye.

Instants are whole nanoseconds since 1970, which no unit rounds. Keys are compared with `==`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

Row = Mapping[str, object]
Ns = int


@dataclass(frozen=True, kw_only=True)
class OracleView:
    """As `AsofView`; `rows` are dictionaries, `keys` map an entity column to a rows column."""

    rows: Sequence[Row]
    keys: Mapping[str, str]
    timestamp: str
    created: str | None
    ttl: timedelta | None
    columns: Mapping[str, str]


def oracle_join(entities: Sequence[Row], views: Sequence[OracleView], *, at: str, known_only: bool) -> list[Row]:
    """One dictionary an entity row, in order: its columns, then each view's."""
    joined = []
    for entity in entities:
        row = dict(entity)
        for view in views:
            seen = _seen(entity, view, at, known_only)
            row |= {output: None if seen is None else seen[column] for column, output in view.columns.items()}
        joined.append(row)
    return joined


def _seen(entity: Row, view: OracleView, at: str, known_only: bool) -> Row | None:
    best: tuple[Ns, float, int] | None = None
    for position, row in enumerate(view.rows):
        if not _same_key(entity, row, view.keys) or not _visible(entity[at], row, view, known_only):
            continue
        created = row[view.created] if view.created else None
        rank = (row[view.timestamp], -math.inf if created is None else created, position)
        if best is None or rank > best:
            best = rank
    if best is None:
        return None
    return view.rows[best[2]]


def _same_key(entity: Row, row: Row, keys: Mapping[str, str]) -> bool:
    return all(entity[ours] is not None and entity[ours] == row[theirs] for ours, theirs in keys.items())


def _visible(instant: object, row: Row, view: OracleView, known_only: bool) -> bool:
    event = row[view.timestamp]
    if instant is None or event is None or event > instant:
        return False
    if view.ttl and event < instant - view.ttl // timedelta(microseconds=1) * 1000:
        return False
    if known_only and view.created:
        return row[view.created] is not None and row[view.created] <= instant
    return True
