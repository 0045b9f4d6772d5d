"""What a point-in-time join is given of one feature view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import polars as pl


@dataclass(frozen=True, kw_only=True)
class AsofView:
    """Feature rows, in any order, and what of them an entity row is given.

    `keys`: entity column -> column of `rows`; several are one composite key, none gives every entity row the newest
    of all rows. `timestamp`: when a row's values became true. `created`: when the row was written; of rows with the
    same key and timestamp the one created last wins, and where that ties too, or `created` is None, the last in file
    order. `ttl`: None or zero: a row never expires; else it is seen up to and including `timestamp + ttl`.
    `columns`: column of `rows` -> output column. Timestamps are ms, us or ns, and UTC where they name no zone.
    """

    name: str
    rows: pl.LazyFrame
    keys: Mapping[str, str]
    timestamp: str
    created: str | None
    ttl: timedelta | None
    columns: Mapping[str, str]

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns of `rows` that a join reads, each once."""
        created = () if self.created is None else (self.created,)
        return tuple(dict.fromkeys((*self.keys.values(), self.timestamp, *created, *self.columns)))


class AsofInputError(ValueError):
    """Columns are missing, named twice or of the wrong type, or a ttl is negative; the message says which."""
