"""For every entity row the feature row it sees, on arrays of integers: a sort and a binary search.

Feature rows are ordered by (key, instant, created, position): where several rows tie, the last is the newest. A row
is visible from its instant on; with `known_only` from the later of its instant and its creation on. Walking the rows
of a key in the order in which they become visible, the row seen is the greatest one so far in the first order; ranks
grow from key to key, so one running maximum over all rows finds it for every key at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from rolecall.features.asof.instants import Instants, Ints, earliest, rounded_up
from rolecall.features.asof.keys import Codes

NO_ROW = -1


@dataclass(frozen=True, kw_only=True)
class FeatureRows:
    """Feature rows in the order in which the last one wins a tie. `created` None: that order alone breaks ties."""

    codes: Codes
    at: Instants
    created: Instants | None


def match(rows: FeatureRows, codes: Codes, at: Instants, *, ttl: timedelta | None, known_only: bool) -> Ints:
    """For each entity row (its key's code, its instant) the position of the feature row it sees, or `NO_ROW`.

    Seen is, of the rows of its key with `instant <= at`, the newest, unless it is more than `ttl` older than `at`;
    ties are broken by `created` (null is oldest), then by position. `known_only`: a row with `created > at`, or
    with none, does not exist. An entity row with a negative code or without an instant sees nothing.
    """
    order = _newest_last(rows, known_only=known_only)
    visible = rounded_up(rows.at.values[order], rows.at.unit, at.unit)
    seen = np.arange(order.size, dtype=np.int64)
    if known_only and rows.created is not None:
        visible = np.maximum(visible, rounded_up(rows.created.values[order], rows.created.unit, at.unit))
        shown = np.lexsort((visible, rows.codes[order]))
        visible, seen = visible[shown], np.maximum.accumulate(shown)
        place = _last_not_after(rows.codes[order][shown], visible, codes, at.values)
    else:
        place = _last_not_after(rows.codes[order], visible, codes, at.values)
    found = np.where(place >= 0, order[seen[place]] if order.size else NO_ROW, NO_ROW)
    ok = (place >= 0) & at.known & (codes >= 0)
    if order.size:
        ok &= rows.codes[found] == codes
        if ttl:
            ok &= rows.at.values[found] >= earliest(at, ttl, rows.at.unit)
    return np.where(ok, found, NO_ROW).astype(np.int64, copy=False)


def _newest_last(rows: FeatureRows, *, known_only: bool) -> Ints:
    exists = rows.at.known & (rows.codes >= 0)
    if known_only and rows.created is not None:
        exists &= rows.created.known
    kept = np.flatnonzero(exists)
    keys = [rows.at.values[kept], rows.codes[kept]]
    if rows.created is not None:
        keys.insert(0, rows.created.values[kept])
    return kept[np.lexsort(keys)]


def _last_not_after(codes: Codes, visible: Ints, wanted: Codes, at: Ints) -> Ints:
    """Of rows ordered by (code, visible) the last with that code and not after `at`; -1, or another code's, if none."""
    times = np.unique(visible)
    room = times.size + 1
    rank = np.searchsorted(times, visible, side="left") + 1
    now = np.searchsorted(times, at, side="right")
    return np.searchsorted(codes * room + rank, wanted * room + now, side="right") - 1
