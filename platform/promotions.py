"""The promotions table: who made which release the champion, when, instead of what, and why.

It is the truth; MLflow aliases mirror it. Rows are numbered 1, 2, 3... per model and never change, except that
`mirrored` turns true. A rollback holds automatic promotion until someone resumes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, insert, select, update

from rolecall.platform.errors import ConflictError, InputError
from rolecall.platform.ledger import PROMOTIONS, write

Action = Literal["promote", "rollback", "follow", "resume"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One row. `follow`: the alias was moved outside RoleCall. `to_release` is the champion from then on."""

    sequence: int
    at: datetime
    action: Action
    who: str
    from_release: str | None
    to_release: str | None
    why: str
    gated: bool
    mirrored: bool


class Promotions:
    """The table for one model. Each change is one transaction, conditional on the champion it was judged against."""

    def __init__(self, engine: Engine, model: str = "rolecall") -> None:
        self.engine = engine
        self.model = model

    def promote(
        self,
        to: str,
        *,
        expected: str | None,
        who: str,
        why: str,
        gated: bool = True,
        automatic: bool = False,
        at: datetime | None = None,
    ) -> Promotion:
        """Make `to` the champion if the champion still is `expected` (None: there is none yet).

        Returns the standing row unchanged where `to` is the champion already, so a repeated call is harmless.
        Raises ConflictError when another release became champion meanwhile, or, for an automatic promotion,
        while a rollback holds it.
        """
        with write(self.engine, PROMOTIONS) as connection:
            rows = self._rows(connection)
            last = rows[-1] if rows else None
            if last and last.to_release == to:
                return last
            if automatic and (hold := _hold(rows)):
                raise _held(hold)
            return self._append(
                connection, rows, "promote", to, expected=expected, who=who, why=why, gated=gated, at=at
            )

    def roll_back(self, to: str, *, expected: str | None, who: str, why: str, at: datetime | None = None) -> Promotion:
        """Return to an earlier champion and hold automatic promotion. Raises ConflictError as `promote` does."""
        with write(self.engine, PROMOTIONS) as connection:
            rows = self._rows(connection)
            return self._append(
                connection, rows, "rollback", to, expected=expected, who=who, why=why, gated=False, at=at
            )

    def follow(self, to: str, *, expected: str | None, at: datetime | None = None) -> Promotion:
        """Enter a `champion` alias that was moved outside as an ungated promotion. Raises ConflictError."""
        why = "the champion alias was moved outside RoleCall"
        with write(self.engine, PROMOTIONS) as connection:
            rows = self._rows(connection)
            return self._append(
                connection, rows, "follow", to, expected=expected, who="mlflow", why=why, gated=False, at=at
            )

    def resume(self, *, who: str, why: str, at: datetime | None = None) -> bool:
        """End the hold after a rollback. False where nothing was held."""
        with write(self.engine, PROMOTIONS) as connection:
            rows = self._rows(connection)
            if not _hold(rows):
                return False
            champion = rows[-1].to_release
            self._append(
                connection, rows, "resume", champion, expected=champion, who=who, why=why, gated=False, at=at,
                mirrored=rows[-1].mirrored,
            )  # fmt: skip
            return True

    def mark_mirrored(self, sequence: int) -> None:
        """Say that the aliases show this row and every one before it."""
        table = PROMOTIONS.c
        with write(self.engine, PROMOTIONS) as connection:
            connection.execute(
                update(PROMOTIONS).where(table.model == self.model, table.sequence <= sequence).values(mirrored=True)
            )

    def current(self) -> Promotion | None:
        """The newest row: its `to_release` is the champion. None before the first promotion."""
        rows = self.history()
        return rows[-1] if rows else None

    def held(self) -> Promotion | None:
        """The rollback that holds automatic promotion, or None."""
        return _hold(self.history())

    def history(self) -> list[Promotion]:
        """Every row, oldest first."""
        with self.engine.connect() as connection:
            return self._rows(connection)

    def trail(self) -> tuple[str, ...]:
        """The releases a rollback can walk back through, oldest first; the champion is last.

        A promotion adds one; a rollback takes away what it left, so that rolling back twice goes
        back two steps and does not return to the release that was just left.
        """
        trail: list[str] = []
        for row in self.history():
            release = row.to_release
            if release is None or row.action == "resume":
                continue
            if row.action == "rollback" and release in trail:
                del trail[_last_index(trail, release) + 1 :]
            else:
                trail.append(release)
        return tuple(trail)

    def _rows(self, connection: Connection) -> list[Promotion]:
        table = PROMOTIONS.c
        query = select(PROMOTIONS).where(table.model == self.model).order_by(table.sequence)
        return [_promotion(row) for row in connection.execute(query)]

    def _append(
        self,
        connection: Connection,
        rows: list[Promotion],
        action: Action,
        to: str | None,
        *,
        expected: str | None,
        who: str,
        why: str,
        gated: bool,
        at: datetime | None,
        mirrored: bool = False,
    ) -> Promotion:
        if not why.strip():
            raise InputError(f"{action} of {to} without a reason", "a sentence", "say why")
        champion = rows[-1].to_release if rows else None
        if champion != expected:
            raise ConflictError(
                f"the champion is {champion or 'not set'}",
                f"{expected or 'not set'}, against which {to} was judged",
                "judge it against the present champion",
            )
        row = Promotion(
            sequence=len(rows) + 1, at=at or datetime.now(UTC), action=action, who=who, from_release=champion,
            to_release=to, why=why, gated=gated, mirrored=mirrored,
        )  # fmt: skip
        connection.execute(insert(PROMOTIONS).values(**_columns(self.model, row)))
        return row


def _hold(rows: list[Promotion]) -> Promotion | None:
    for row in reversed(rows):
        if row.action == "rollback":
            return row
        if row.action == "resume":
            return None
    return None


def _held(hold: Promotion) -> ConflictError:
    return ConflictError(
        f"automatic promotion is held since {hold.who} rolled back to {hold.to_release}: {hold.why}",
        "promotion by a person",
        "`rolecall releases resume` ends the hold",
    )


def _last_index(items: list[str], item: str) -> int:
    return len(items) - 1 - items[::-1].index(item)


def _columns(model: str, row: Promotion) -> dict[str, Any]:
    at_us = (row.at - _EPOCH) // timedelta(microseconds=1)
    fields = ("sequence", "action", "who", "from_release", "to_release", "why", "gated", "mirrored")
    return {"model": model, "at_us": at_us, **{name: getattr(row, name) for name in fields}}


def _promotion(row: Row[Any]) -> Promotion:
    return Promotion(
        sequence=row.sequence, at=_EPOCH + timedelta(microseconds=row.at_us), action=row.action, who=row.who,
        from_release=row.from_release, to_release=row.to_release, why=row.why, gated=row.gated, mirrored=row.mirrored,
    )  # fmt: skip
