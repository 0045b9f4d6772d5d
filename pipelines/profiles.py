"""Profiles as they were: a candidate who edits a profile must not lose the one that past requests were made with.

The candidates table holds the newest row of each candidate. Features of the past are joined with the profile of the
past, so each daily run first keeps the rows it has not kept yet in the table `profiles`, and features are built from
both (`knowledge.profiles_as_of`). A profile edited twice between two runs is kept as the later run saw it; so did
serving.
"""

from __future__ import annotations

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
