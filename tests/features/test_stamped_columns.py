"""Columns that are held: at every instant what the store itself would give."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rolecall.features.stamped_columns import stamped
from rolecall.features.views import VIEWS

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VIEW = next(view for view in VIEWS if view.name == "employer_rating")
HOURS = st.integers(-5, 5)


@given(stamps=st.lists(st.none() | HOURS, min_size=1, max_size=6), at=HOURS, ttl=st.integers(0, 4), data=st.data())
def test_a_held_row_is_known_from_its_instant_to_its_ttl(
    stamps: list[int | None], at: int, ttl: int, data: st.DataObject
) -> None:
    values = {name: [float(row) for row in range(len(stamps))] for name in VIEW.numbers}
    instants = [None if one is None else NOON + timedelta(hours=one) for one in stamps]
    held = replace(stamped(VIEW, instants, values), ttl=timedelta(hours=ttl))
    rows = data.draw(st.lists(st.integers(0, len(stamps)), max_size=8))
    read = held.take(np.array(rows, np.int64)).read(NOON + timedelta(hours=at))
    for row, value in zip(rows, read["employer_rating"], strict=True):
        stamp = stamps[row] if row < len(stamps) else None
        known = stamp is not None and stamp <= at and (not ttl or stamp >= at - ttl)
        assert (float(value) == row) if known else np.isnan(value)
