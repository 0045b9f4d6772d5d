"""Personal data in Delta tables: every table with a column `candidate_id`, whoever wrote it, and quarantine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from rolecall.features.schema import QUARANTINE
from rolecall.pipelines.lifecycle.person import CANDIDATE, Person
from rolecall.platform.table_erasure import (
    column_names,
    erase_history,
    erase_rows,
    history_holds,
    scan_rows,
    table_names,
)
from rolecall.platform.tables import TableStore


class Tables:
    """Rows by candidate id, in the newest version and in every earlier one."""

    name = "tables"

    def __init__(self, store: TableStore) -> None:
        self._store = store

    def holds(self, person: Person) -> int:
        found = 0
        for name in personal_tables(self._store):
            found += rows_naming(self._store, name, person.candidate_id).height
            found += history_holds(self._store, name, CANDIDATE, person.is_them, person.named_in)
        return found

    def erase(self, person: Person) -> int:
        gone = 0
        for name in personal_tables(self._store):
            gone += erase_rows(self._store, name, CANDIDATE, [person.candidate_id])
            erase_history(self._store, name)
        return gone


class Quarantine:
    """Refused rows whose text names the person or holds a text of theirs."""

    name = "quarantine"

    def __init__(self, store: TableStore) -> None:
        self._store = store

    def holds(self, person: Person) -> int:
        past = history_holds(self._store, QUARANTINE.name, "row", person.named_in, person.named_in)
        return past + int(self._naming(person).sum())

    def erase(self, person: Person) -> int:
        naming = self._naming(person)
        if naming.any():
            rows = pl.DataFrame(self._store.read(QUARANTINE)).filter(~naming)
            self._store.replace(QUARANTINE, rows.to_arrow().cast(QUARANTINE.columns))
        if self._store.version(QUARANTINE.name) is not None:
            erase_history(self._store, QUARANTINE.name)
        return int(naming.sum())

    def _naming(self, person: Person) -> pl.Series:
        rows = self._store.read(QUARANTINE, columns=["source", "row", "message"]).to_pylist()
        named = [any(person.named_in(text) for text in row.values() if text) for row in rows]
        return pl.Series(named, dtype=pl.Boolean)


def personal_tables(store: TableStore) -> list[str]:
    """The tables that name candidates."""
    return [name for name in table_names(store) if CANDIDATE in column_names(store, name)]


def rows_naming(store: TableStore, name: str, candidate_id: str) -> pl.DataFrame:
    """The rows of a table that are about a candidate."""
    return scan_rows(store, name).filter(pl.col(CANDIDATE) == candidate_id).collect()


def stored_rows(store: TableStore, candidate_id: str) -> Mapping[str, list[dict[str, Any]]]:
    """Every row about a candidate, by table."""
    found = {name: rows_naming(store, name, candidate_id) for name in personal_tables(store)}
    return {name: rows.to_dicts() for name, rows in found.items() if rows.height}
