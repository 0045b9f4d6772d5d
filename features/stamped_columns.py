"""Numeric columns of feature views held in memory, each row with the instant it is known from: a row that expires while
it is held is missing from then on, as it is in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from rolecall.features.views import ViewShape

Integers = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = np.iinfo(np.int64).max
"""The stamp of a row that does not exist: it is known at no instant."""


@dataclass(frozen=True, kw_only=True)
class StampedColumns:
    """Columns of one view. `stamps` int64[n]: microseconds since 1970. `columns`: float32[n], NaN where unknown."""

    ttl: timedelta
    stamps: Integers
    columns: Mapping[str, Floats32]

    def read(self, at: datetime, rows: npt.NDArray[np.integer] | None = None) -> dict[str, Floats32]:
        """The columns (of these rows) as known at `at`; NaN where a row is later, or older than the ttl."""
        wanted = slice(None) if rows is None else rows
        stamps, now = self.stamps[wanted], _microseconds(at)
        known = stamps <= now
        if self.ttl:
            known &= stamps >= now - self.ttl // timedelta(microseconds=1)
        if known.all():
            return {name: column[wanted] for name, column in self.columns.items()}
        return {name: np.where(known, column[wanted], np.float32(np.nan)) for name, column in self.columns.items()}

    def take(self, places: Integers) -> StampedColumns:
        """Rows by place; what lies beyond the last is a row that does not exist."""
        stamps = np.append(self.stamps, _NEVER)[places]
        columns = {name: np.append(column, np.float32(np.nan))[places] for name, column in self.columns.items()}
        return StampedColumns(ttl=self.ttl, stamps=stamps, columns=columns)


def stamped(
    view: ViewShape, stamps: Sequence[datetime | None], values: Mapping[str, Sequence[object]]
) -> StampedColumns:
    """The numbers of a view, as read from a store."""
    return StampedColumns(
        ttl=view.ttl,
        stamps=np.array([_NEVER if one is None else _microseconds(one) for one in stamps], np.int64),
        columns={
            name: np.array([np.nan if value is None else value for value in values[name]], np.float32)
            for name in view.numbers
        },
    )


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)
