"""Releases that must go: what is wrong with each, by when its bytes are gone, and whether they are.

A release that holds a forgotten person, or was trained on them, is tainted: it may not be promoted or rolled back to,
and is purged once it is not served any more. The row stays, so that the history keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert, select, update

from rolecall.platform.errors import ConflictError
from rolecall.platform.ledger import TAINTED_RELEASES, write

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Taint:
    """One release that must go. `purged_at`: when its bytes went, None while they are there."""

    release_id: str
    reason: str
    at: datetime
    due_at: datetime
    purged_at: datetime | None


class Taints:
    """The tainted releases of one model name."""

    def __init__(self, engine: Engine, model: str = "rolecall") -> None:
        self.engine = engine
        self.model = model

    def mark(self, release_id: str, reason: str, *, at: datetime, due_at: datetime) -> bool:
        """Taint a release. False, and nothing changes, where it is tainted already."""
        row = {"model": self.model, "release_id": release_id, "reason": reason}
        with write(self.engine, TAINTED_RELEASES) as connection:
            if connection.execute(self._query(release_id)).first():
                return False
            connection.execute(insert(TAINTED_RELEASES).values(**row, at_us=_us(at), due_at_us=_us(due_at)))
        return True

    def purged(self, release_id: str, *, at: datetime) -> None:
        """Say that no byte of a tainted release is left."""
        row = TAINTED_RELEASES.c
        with write(self.engine, TAINTED_RELEASES) as connection:
            connection.execute(
                update(TAINTED_RELEASES)
                .where(row.model == self.model, row.release_id == release_id, row.purged_at_us.is_(None))
                .values(purged_at_us=_us(at))
            )

    def find(self, release_id: str) -> Taint | None:
        """What is wrong with a release, None where nothing is."""
        with self.engine.connect() as connection:
            found = connection.execute(self._query(release_id)).first()
        return _taint(dict(found._mapping)) if found else None

    def all(self) -> list[Taint]:
        """Every tainted release, purged or not, the oldest mark first."""
        row = TAINTED_RELEASES.c
        query = select(TAINTED_RELEASES).where(row.model == self.model).order_by(row.at_us, row.release_id)
        with self.engine.connect() as connection:
            return [_taint(dict(found._mapping)) for found in connection.execute(query)]

    def open(self) -> list[Taint]:
        """Those whose bytes are still there."""
        return [taint for taint in self.all() if taint.purged_at is None]

    def refuse(self, release_id: str) -> None:
        """Raises ConflictError for a tainted release: it may not be served again."""
        taint = self.find(release_id)
        if taint is not None:
            state = f"was purged on {taint.purged_at:%Y-%m-%d}" if taint.purged_at else "is to be purged"
            raise ConflictError(
                f"release {release_id} {state}: {taint.reason}",
                "a release that is not tainted",
                "build the day again: `rolecall run daily --as-of DAY`",
            )

    def _query(self, release_id: str) -> Any:
        row = TAINTED_RELEASES.c
        return select(TAINTED_RELEASES).where(row.model == self.model, row.release_id == release_id)


def _taint(row: Mapping[str, Any]) -> Taint:
    purged = row["purged_at_us"]
    return Taint(
        release_id=row["release_id"], reason=row["reason"], at=_at(row["at_us"]), due_at=_at(row["due_at_us"]),
        purged_at=None if purged is None else _at(purged),
    )  # fmt: skip


def _us(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _at(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
