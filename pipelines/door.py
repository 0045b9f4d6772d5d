"""Who is not let in: rows of people who asked to be forgotten, however old the export they come in."""

from __future__ import annotations

import re
from dataclasses import replace

import polars as pl

from rolecall.pipelines.sources import Broken
from rolecall.platform.forgotten import ForgottenPeople

CANDIDATE = "candidate_id"
_BETWEEN = re.compile(r"""[\s,;|{}\[\]"':=]+""")


class Door:
    """Asks the list of forgotten people. Without a list everybody is let in."""

    def __init__(self, people: ForgottenPeople | None) -> None:
        self._people = people

    def lets_in(self, rows: pl.DataFrame) -> pl.Series:
        """True for each row that may be kept; a table without candidates is let in whole."""
        everybody = pl.Series([True] * rows.height, dtype=pl.Boolean)
        if self._people is None or CANDIDATE not in rows.columns:
            return everybody
        names = rows[CANDIDATE].cast(pl.String).unique().drop_nulls().to_list()
        forgotten = [name for name, gone in zip(names, self._people.contains(names), strict=True) if gone]
        return ~rows[CANDIDATE].is_in(forgotten).fill_null(False) if forgotten else everybody

    def without_forgotten(self, row: Broken) -> Broken:
        """A row that could not be read, without its text where a word of it is a forgotten id."""
        if self._people is None or not self._people.contains(_BETWEEN.split(row.text)).any():
            return row
        return replace(row, text="", message="the row names somebody who asked to be forgotten")
