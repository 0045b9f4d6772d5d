"""Who asked to be forgotten, by a keyed digest of the id: so that an old export or a late event brings nobody back.

people = ForgottenPeople(open_ledger(url))
people.add("c-17", at=now, due_at=now + timedelta(days=30))
people.contains(["c-17", "c-18"])      # [True, False]

The digest is HMAC-SHA256 with a random key that never leaves the ledger. Whoever holds the ledger *and* guesses an id
can test the guess; nobody can read an id from it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from rolecall.platform.ledger import FORGOTTEN, LEDGER_KEYS, write

Stage = Literal["asked", "marked", "erased", "done"]
"""asked: nothing new is taken in; marked: their releases are known; erased: no store holds them; done: no release."""

STAGES: tuple[Stage, ...] = get_args(Stage)
SHOWN = 8
"""Hex digits of a digest that reports and messages show."""

_KEY = "forgotten"
_LOOKUP = 500  # digests per SELECT, below every database's limit on bound values
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """One erasure: how far it has come, and by when it must be done. `name` stands for the person in reports."""

    name: str
    asked_at: datetime
    due_at: datetime
    stage: Stage


class ForgottenPeople:
    """The list of forgotten people. Any thread may ask; a change elsewhere is seen after at most `poll_s`."""

    def __init__(self, engine: Engine, *, poll_s: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine = engine
        self._poll_s = poll_s
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at = -float("inf")
        self._state: tuple[int, int] = (0, 0)
        self._digests: frozenset[str] = frozenset()
        self._salt = b""

    def contains(self, candidate_ids: Sequence[str | None], *, fresh: bool = False) -> npt.NDArray[np.bool_]:
        """True for each forgotten id, bool[n]. Two microseconds an id once anybody is forgotten, nothing before.

        `fresh`: ask the ledger now, whenever it was asked last.
        """
        if fresh:
            self._asked_at = -float("inf")
        digests = self._current()
        if not digests:
            return np.zeros(len(candidate_ids), np.bool_)
        known = (name is not None and self._digest(name) in digests for name in candidate_ids)
        return np.fromiter(known, np.bool_, count=len(candidate_ids))

    def among(self, connection: Connection, candidate_ids: Sequence[str]) -> set[str]:
        """Which of these ids are forgotten, asked inside a transaction of `write` on the ledger.

        An erasure enters the list before it deletes, and deletes under the same lock: whoever asks here and writes in
        the same transaction leaves either nothing, or a row that the erasure still finds.
        """
        row = FORGOTTEN.c
        if connection.scalar(select(row.digest).limit(1)) is None:
            return set()
        names = {self._digest(name): name for name in candidate_ids}
        asked = list(names)
        found: set[str] = set()
        for start in range(0, len(asked), _LOOKUP):
            query = select(row.digest).where(row.digest.in_(asked[start : start + _LOOKUP]))
            found.update(names[digest] for digest in connection.scalars(query))
        return found

    def add(self, candidate_id: str, *, at: datetime, due_at: datetime) -> Forgetting:
        """Forget an id from now on. For one that is forgotten already the erasure that stands, unchanged."""
        row = {"digest": self._digest(candidate_id), "asked_at_us": _us(at), "due_at_us": _us(due_at)}
        with write(self.engine, FORGOTTEN) as connection:
            found = connection.execute(select(FORGOTTEN).where(FORGOTTEN.c.digest == row["digest"])).first()
            if found is None:
                connection.execute(insert(FORGOTTEN).values(**row, stage=STAGES[0]))
        self._asked_at = -float("inf")
        return _forgetting(dict(dict(found._mapping)) if found else {**row, "stage": STAGES[0]})

    def advance(self, candidate_id: str, stage: Stage) -> None:
        """Say that an erasure has come to this stage; never back."""
        digest, later = self._digest(candidate_id), STAGES[: STAGES.index(stage)]
        with write(self.engine, FORGOTTEN) as connection:
            row = FORGOTTEN.c
            connection.execute(update(FORGOTTEN).where(row.digest == digest, row.stage.in_(later)).values(stage=stage))

    def advance_all(self, before: Stage, stage: Stage) -> int:
        """Every erasure that stands at `before` is at `stage` now. Returns how many."""
        with write(self.engine, FORGOTTEN) as connection:
            done = connection.execute(update(FORGOTTEN).where(FORGOTTEN.c.stage == before).values(stage=stage))
            return done.rowcount

    def remove(self, candidate_id: str) -> bool:
        """Take an id off the list: rows of theirs are taken in again. False where it was not on it."""
        digest = self._digest(candidate_id)
        with write(self.engine, FORGOTTEN) as connection:
            removed = connection.execute(delete(FORGOTTEN).where(FORGOTTEN.c.digest == digest)).rowcount
        self._asked_at = -float("inf")
        return bool(removed)

    def find(self, candidate_id: str) -> Forgetting | None:
        """The erasure of this id, or None."""
        query = select(FORGOTTEN).where(FORGOTTEN.c.digest == self._digest(candidate_id))
        with self.engine.connect() as connection:
            found = connection.execute(query).first()
        return _forgetting(dict(found._mapping)) if found else None

    def open(self) -> list[Forgetting]:
        """Erasures that are not done, the oldest first."""
        row = FORGOTTEN.c
        query = select(FORGOTTEN).where(row.stage != STAGES[-1]).order_by(row.asked_at_us, row.digest)
        with self.engine.connect() as connection:
            return [_forgetting(dict(found._mapping)) for found in connection.execute(query)]

    def _current(self) -> frozenset[str]:
        with self._lock:
            now = self._clock()
            if now - self._asked_at >= self._poll_s:
                self._refresh()
                self._asked_at = now
            return self._digests

    def _refresh(self) -> None:
        row = FORGOTTEN.c
        with self.engine.connect() as connection:
            count, newest = connection.execute(select(func.count(), func.max(row.asked_at_us))).one()
            if (count, newest or 0) == self._state:
                return
            self._digests = frozenset(connection.scalars(select(row.digest)))
            self._state = (count, newest or 0)

    def _digest(self, candidate_id: str) -> str:
        if not self._salt:
            self._salt = bytes.fromhex(_salt(self.engine))
        return hmac.digest(self._salt, candidate_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


def _salt(engine: Engine) -> str:
    """The ledger's key, made once."""
    query = select(LEDGER_KEYS.c.value).where(LEDGER_KEYS.c.name == _KEY)
    with engine.connect() as connection:
        found = connection.scalar(query)
    if found is None:
        with write(engine, LEDGER_KEYS) as connection:
            found = connection.scalar(query)
            if found is None:
                found = secrets.token_hex(32)
                connection.execute(insert(LEDGER_KEYS).values(name=_KEY, value=found))
    return str(found)


def _forgetting(row: Mapping[str, Any]) -> Forgetting:
    return Forgetting(
        name=row["digest"][:SHOWN], asked_at=_at(row["asked_at_us"]), due_at=_at(row["due_at_us"]), stage=row["stage"]
    )


def _us(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _at(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
