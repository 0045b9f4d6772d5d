"""For every entity row the feature row it sees, on arrays of integers: one sort and one binary search.

Key and instant are packed into one unsigned integer, ordered as the pair is, so that a single sort orders feature rows
by (key, instant) and a single search finds the last one not after an entity row; only rows that tie are looked at
again. With `known_only` a row becomes visible at the later of its instant and its creation: walking the rows of a key
in the order in which they become visible, the row seen is the newest so far; ranks by (key, instant, created,
position) grow from key to key, so one running maximum finds it for every key at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from rolecall.features.asof.instants import Bools, Instants, Ints, earliest, rounded_up
from rolecall.features.asof.keys import Codes

NO_ROW = -1
_WORD = 64
_Packed = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class FeatureRows:
    """Feature rows in the order in which the last one wins a tie. `created` None: that order alone breaks ties."""

    codes: Codes
    at: Instants
    created: Instants | None

    def taken(self, place: Ints | None) -> FeatureRows:
        """Only the rows at `place`; all where it is None."""
        if place is None:
            return self
        created = None if self.created is None else self.created.taken(place)
        return FeatureRows(codes=self.codes[place], at=self.at.taken(place), created=created)


def match(rows: FeatureRows, codes: Codes, at: Instants, *, ttl: timedelta | None, known_only: bool) -> Ints:
    """For each entity row (its key's code, its instant) the position of the feature row it sees, or `NO_ROW`.

    Seen is, of the rows of its key with `instant <= at`, the newest, unless it is more than `ttl` older than `at`;
    ties are broken by `created` (null is oldest), then by position. `known_only`: a row with `created > at`, or
    with none, does not exist. An entity row with a negative code or without an instant sees nothing.
    """
    found = np.full(codes.size, NO_ROW, dtype=np.int64)
    exists = _places(_exists(rows, known_only))
    asks = _places((codes >= 0) & at.known)
    rows = rows.taken(exists)
    wanted, now = (codes, at) if asks is None else (codes[asks], at.taken(asks))
    if rows.codes.size and wanted.size:
        seen = _seen(rows, wanted, now, known_only)
        if ttl:
            stale = rows.at.values[seen] < earliest(now, ttl, rows.at.unit)
            seen[stale] = NO_ROW
        kept = seen if exists is None else np.where(seen == NO_ROW, NO_ROW, exists[seen])
        found[slice(None) if asks is None else asks] = kept
    return found


def _exists(rows: FeatureRows, known_only: bool) -> Bools:
    exists = rows.at.known & (rows.codes >= 0)
    return exists & rows.created.known if known_only and rows.created is not None else exists


def _places(chosen: Bools) -> Ints | None:
    return None if chosen.all() else np.flatnonzero(chosen)


def _seen(rows: FeatureRows, codes: Codes, at: Instants, known_only: bool) -> Ints:
    visible = rounded_up(rows.at.values, rows.at.unit, at.unit)
    if not known_only or rows.created is None:
        axis = _axis(visible, max(int(rows.codes.max()), int(codes.max())))
        packed = axis.packed(rows.codes, visible)
        order = _newest_last(packed, rows)
        return _last(order, packed[order], axis, codes, at.values)
    axis = _axis(rows.at.values, int(rows.codes.max()))
    newest = _newest_last(axis.packed(rows.codes, rows.at.values), rows)
    visible = np.maximum(visible, rounded_up(rows.created.values, rows.created.unit, at.unit))
    axis = _axis(visible, max(int(rows.codes.max()), int(codes.max())))
    packed = axis.packed(rows.codes, visible)[newest]
    shown = np.argsort(packed, kind="stable")
    return _last(newest[np.maximum.accumulate(shown)], packed[shown], axis, codes, at.values)


def _newest_last(packed: _Packed, rows: FeatureRows) -> Ints:
    order = np.argsort(packed)
    ordered = packed[order]
    same = ordered[1:] == ordered[:-1]
    if same.any():
        tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        among = order[tied]
        keys = [among, rows.at.values[among], packed[among]]
        if rows.created is not None:
            keys.insert(1, rows.created.values[among])
        order[tied] = among[np.lexsort(keys)]
    return order


def _last(order: Ints, ordered: _Packed, axis: _Axis, codes: Codes, at: Ints) -> Ints:
    asked = axis.packed(codes, axis.last_not_after(at))
    by_key = np.argsort(asked)
    place = np.empty(codes.size, dtype=np.int64)
    place[by_key] = np.searchsorted(ordered, asked[by_key], side="right") - 1
    ok = (place >= 0) & (at >= axis.least)
    ok &= axis.codes(ordered[place]) == codes
    return np.where(ok, order[place], NO_ROW).astype(np.int64, copy=False)


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Instants from `least` to `most`, and the lowest `bits` bits they take in a packed word.

    `ticks`: the distinct instants, where they are counted instead of measured.
    """

    least: int
    most: int
    bits: int
    ticks: Ints | None

    def last_not_after(self, at: Ints) -> Ints:
        """The last instant of the axis not after each of `at`; for one before the axis, its first."""
        clipped = np.clip(at, self.least, self.most)
        if self.ticks is None:
            return clipped
        return self.ticks[np.searchsorted(self.ticks, clipped, side="right") - 1]

    def packed(self, codes: Codes, instants: Ints) -> _Packed:
        """Codes and instants, which must lie on the axis, as one integer, ordered as the pair is."""
        if self.ticks is None:
            low = instants.view(np.uint64) - np.array([self.least]).view(np.uint64)
        else:
            low = np.searchsorted(self.ticks, instants).view(np.uint64)
        return (codes.view(np.uint64) << np.uint64(self.bits)) | low

    def codes(self, packed: _Packed) -> Codes:
        """The codes that were packed."""
        return (packed >> np.uint64(self.bits)).view(np.int64)


def _axis(instants: Ints, greatest_code: int) -> _Axis:
    least, most = int(instants.min()), int(instants.max())
    bits = max((most - least).bit_length(), 1)
    if bits + greatest_code.bit_length() <= _WORD - 1:
        return _Axis(least=least, most=most, bits=bits, ticks=None)
    ticks = np.unique(instants)
    return _Axis(least=least, most=most, bits=ticks.size.bit_length(), ticks=ticks)
