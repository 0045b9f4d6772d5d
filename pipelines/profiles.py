"""Profiles as they were: a candidate who edits a profile must not lose the one that past requests were made with.

The candidates table holds the newest row of each candidate. Features of the past are joined with the profile of the
past, so each daily run first keeps the rows it has not kept yet in the table `profiles`, and features are built from
both. A profile edited twice between two runs is kept as the later run saw it; so did serving.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from rolecall.features.schema import CANDIDATES, PROFILES
from rolecall.platform.tables import TableStore


def remember_profiles(tables: TableStore) -> int:
    """Copy every candidate's row that `profiles` lacks into it. Returns how many were new."""
    key = list(PROFILES.key)
    known = tables.scan(PROFILES).select(key)
    fresh = tables.scan(CANDIDATES).join(known, on=key, how="anti").select(CANDIDATES.columns.names).collect()
    if not fresh.height:
        return 0
    rows = fresh.to_arrow().cast(PROFILES.columns)
    return tables.upsert(PROFILES, rows, replace=False).inserted


def profiles_as_of(tables: TableStore, versions: Mapping[str, int | None], as_of: datetime) -> pl.DataFrame:
    """One row a candidate and `updated_at`, known at `as_of`, from the pinned versions of both tables.

    A row of the candidates table wins over one kept for the same instant: it was corrected without a new time.
    """
    key, known = list(PROFILES.key), pl.col(PROFILES.time) <= as_of
    now = _rows(tables, CANDIDATES.name, versions).filter(known)
    then = _rows(tables, PROFILES.name, versions).filter(known)
    return pl.concat([now, then.join(now.select(key), on=key, how="anti")]).collect()


def consents_after(tables: TableStore, versions: Mapping[str, int | None], as_of: datetime) -> pl.DataFrame:
    """The candidates rows of the pinned version that were recorded after `as_of`, for the consent in them.

    A profile counts as it was at the instant; a consent that was taken back since, or narrowed, is obeyed at once.
    """
    return _rows(tables, CANDIDATES.name, versions).filter(pl.col(CANDIDATES.time) > as_of).collect()


def _rows(tables: TableStore, name: str, versions: Mapping[str, int | None]) -> pl.LazyFrame:
    schema = CANDIDATES if name == CANDIDATES.name else PROFILES
    version = versions.get(name)
    if version is None:
        return pl.LazyFrame(pl.from_arrow(schema.columns.empty_table()))
    return tables.scan(schema, version=version).select(schema.columns.names)
