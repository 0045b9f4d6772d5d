"""What the online store was last told: up to which day, and of each row a stamp. Kept beside the rows, so that a store
that lost its rows has lost these too.

    journal = open_journal(file, settings)
    with journal.locked("candidate_profile"):          # one writer of a view at a time, on every machine
        known = journal.stamps("candidate_profile", keys)
        journal.remember("candidate_profile", stamps)
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from rolecall.features.online_rows import Stamp
from rolecall.platform.files import locked
from rolecall.platform.settings import FeatureSettings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PATIENCE_S = 30.0
_HOLD_S = 120.0
"""A Redis lock outlives its holder by so much; a holder renews it with every batch."""

_LOOKUP = 20_000
_THROUGH = "rolecall:online:through"
_VERSION = "rolecall:online:version"
_LATEST = "INSERT INTO rolecall_online VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET value = max(value, excluded.value)"
_COUNT_UP = "INSERT INTO rolecall_online VALUES (?, 1) ON CONFLICT(name) DO UPDATE SET value = value + 1"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS rolecall_written (view TEXT NOT NULL, entity_key BLOB NOT NULL, stamp BLOB NOT NULL, "
    "PRIMARY KEY (view, entity_key)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS rolecall_online (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)


class Journal(Protocol):
    """Safe to use from several threads and processes."""

    def through(self) -> datetime | None:
        """The newest day that was written whole; None before the first."""
        ...

    def advance(self, as_of: datetime) -> None:
        """A day was written whole. An earlier one that ends later does not take it back."""
        ...

    def version(self) -> int:
        """Another number after every `advance`; 0 before the first."""
        ...

    def stamps(self, view: str, keys: Sequence[bytes]) -> Sequence[Stamp | None]:
        """The stamp of each row; None where no row was written."""
        ...

    def remember(self, view: str, stamps: Mapping[bytes, Stamp]) -> None:
        """These rows were written."""
        ...

    def locked(self, view: str) -> contextlib.AbstractContextManager[None]:
        """Held by whoever writes rows of a view."""
        ...


def open_journal(file: Path, settings: FeatureSettings, project: str) -> Journal:
    """The journal of the store these settings name. `file`: the SQLite store's."""
    if settings.online_store == "redis":
        return RedisJournal(settings.redis_url, project)
    return SqliteJournal(file)


class SqliteJournal:
    """Two tables in the file of the store; readers of its rows go on while one writes (WAL)."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def through(self) -> datetime | None:
        stored = self._value(_THROUGH)
        return None if stored is None else _instant(stored)

    def advance(self, as_of: datetime) -> None:
        with self._open() as database:
            database.execute(_LATEST, (_THROUGH, _microseconds(as_of)))
            database.execute(_COUNT_UP, (_VERSION,))

    def version(self) -> int:
        return self._value(_VERSION) or 0

    def _value(self, name: str) -> int | None:
        if not self._file.exists():
            return None
        with self._open() as database:
            row = database.execute("SELECT value FROM rolecall_online WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def stamps(self, view: str, keys: Sequence[bytes]) -> Sequence[Stamp | None]:
        with self._open() as database:
            found = dict(database.execute("SELECT entity_key, stamp FROM rolecall_written WHERE view = ?", (view,)))
        return [Stamp.from_bytes(found[key]) if key in found else None for key in keys]

    def remember(self, view: str, stamps: Mapping[bytes, Stamp]) -> None:
        rows = [(view, key, stamp.to_bytes()) for key, stamp in stamps.items()]
        with self._open() as database:
            database.executemany("INSERT OR REPLACE INTO rolecall_written VALUES (?, ?, ?)", rows)

    @contextlib.contextmanager
    def locked(self, view: str) -> Iterator[None]:
        with locked(self._file.with_name(f"{self._file.name}.{view}.lock")):
            yield

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self._file, timeout=_PATIENCE_S)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            with database:
                for statement in _SCHEMA:
                    database.execute(statement)
                yield database


class RedisJournal:
    """A field beside each view's fields in the entity's own hash, and one key for the day."""

    def __init__(self, url: str, project: str) -> None:
        import redis

        self._client: Any = redis.Redis.from_url(url)
        self._project = project.encode()
        self._held: dict[str, Any] = {}

    def through(self) -> datetime | None:
        stored = self._client.get(_THROUGH)
        return None if stored is None else _instant(int(stored))

    def advance(self, as_of: datetime) -> None:
        with self._client.lock(f"{_THROUGH}:lock", timeout=_HOLD_S):
            self._client.set(_THROUGH, max(int(self._client.get(_THROUGH) or 0), _microseconds(as_of)))
        self._client.incr(_VERSION)

    def version(self) -> int:
        return int(self._client.get(_VERSION) or 0)

    def stamps(self, view: str, keys: Sequence[bytes]) -> Sequence[Stamp | None]:
        told: list[Stamp | None] = []
        for start in range(0, len(keys), _LOOKUP):
            with self._client.pipeline(transaction=False) as pipe:
                for key in keys[start : start + _LOOKUP]:
                    pipe.hget(key + self._project, _field(view))
                told += [None if stored is None else Stamp.from_bytes(stored) for stored in pipe.execute()]
        return told

    def remember(self, view: str, stamps: Mapping[bytes, Stamp]) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            for key, stamp in stamps.items():
                pipe.hset(key + self._project, _field(view), stamp.to_bytes())
            pipe.execute()
        if view in self._held:
            self._held[view].reacquire()

    @contextlib.contextmanager
    def locked(self, view: str) -> Iterator[None]:
        with self._client.lock(f"rolecall:online:{view}:lock", timeout=_HOLD_S) as held:
            self._held[view] = held
            try:
                yield
            finally:
                del self._held[view]


def _field(view: str) -> str:
    return f"_stamp:{view}"


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _instant(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
