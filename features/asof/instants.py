"""Instants as 64-bit integers, compared exactly across units: nothing is rounded into the past or the future.

A row's instant is rounded *up* where it is brought to a coarser unit ("visible from"), a lower bound likewise; so
`a <= b` holds after the change of unit exactly where it held before. Values past the range of a finer unit stop at
its ends (a `9999-12-31` in microseconds has no nanosecond form).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Unit = Literal["ms", "us", "ns"]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_PER_SECOND: dict[Unit, int] = {"ms": 10**3, "us": 10**6, "ns": 10**9}
_MIN, _MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Instants:
    """UTC instants since 1970: `values` in `unit`; `known` False where there is none (its value is the least)."""

    values: Ints
    known: Bools
    unit: Unit

    def taken(self, place: Ints) -> Instants:
        """Only those at `place`."""
        return Instants(values=self.values[place], known=self.known[place], unit=self.unit)


def instants(series: pl.Series, of: str) -> Instants:
    """The instants of a column; one without a zone is UTC, a date is its midnight.

    Raises TypeError for a column of another type, naming it `of`.
    """
    if series.dtype == pl.Null:
        series = series.cast(pl.Datetime("us"))
    if series.dtype == pl.Date:
        series = series.cast(pl.Datetime("us"))
    if not isinstance(series.dtype, pl.Datetime):
        raise TypeError(f"{of} is {series.dtype}: an instant is a timestamp column (ms, us or ns) or a date")
    known = series.is_not_null().to_numpy()
    values = series.to_physical().fill_null(_MIN).to_numpy()
    return Instants(values=values, known=known, unit=series.dtype.time_unit)


def rounded_up(values: Ints, unit: Unit, to: Unit) -> Ints:
    """The least instants of unit `to` that are not before `values`; past the range of `to`, its ends."""
    if unit == to:
        return values
    have, want = _PER_SECOND[unit], _PER_SECOND[to]
    if have > want:
        return _divided_up(values, have // want)
    return _multiplied(values, want // have)


def earliest(at: Instants, ttl: timedelta, unit: Unit) -> Ints:
    """The least instants of `unit` that are at most `ttl` before `at`."""
    fine: Unit = "ns" if at.unit == "ns" else "us"
    length = min(_micros(ttl) * (_PER_SECOND[fine] // 10**6), _MAX)
    values = rounded_up(at.values, at.unit, fine)
    return rounded_up(np.maximum(values, _MIN + length) - length, fine, unit)


def _micros(length: timedelta) -> int:
    return length // timedelta(microseconds=1)


def _divided_up(values: Ints, by: int) -> Ints:
    down, rest = np.divmod(values, by)
    return np.asarray(down + (rest > 0), dtype=np.int64)


def _multiplied(values: Ints, by: int) -> Ints:
    return np.where(values > _MAX // by, _MAX, np.where(values < -(_MAX // by), _MIN, values * by))
