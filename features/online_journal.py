"""What the online store was last told: up to which day, and of each row a stamp. Kept beside the rows, so that a store
that lost its rows has lost these too.

    journal = open_journal(file, settings, "rolecall")
    with journal.locked("candidate_profile"):          # one writer of a view at a time, on every machine
        known = journal.stamps("candidate_profile", keys)
        journal.remember("candidate_profile", stamps)
    journal.advance(as_of, counted=17)                 # once all rows are written
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from rolecall.features.online_rows import COUNTED_VALUE, Stamp, key_prefix
from rolecall.features.views import ViewShape
from rolecall.platform.files import locked
from rolecall.platform.settings import FeatureSettings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PATIENCE_S = 30.0
_HOLD_S = 120.0
"""A Redis lock outlives its holder by so much; a holder renews it with every batch."""

_LOOKUP = 20_000
_BOUND = 500
"""Keys in one statement, below what any SQLite takes."""

_THROUGH = "rolecall:online:through"
_COUNTED = "rolecall:online:counted"
_VERSION = "rolecall:online:version"
_STAMPS = "SELECT entity_key, stamp FROM rolecall_written WHERE view = ? AND entity_key IN ({})"
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

    def counted(self) -> int | None:
        """Up to which event of the log the rows of whole days count what was posted; None where nobody said."""
        ...

    def advance(self, as_of: datetime, *, counted: int | None = None) -> None:
        """A day was written whole. An earlier one that ends later takes neither back."""
        ...

    def table(self, view: str) -> int | None:
        """The version of its table that a view's rows were last told whole from; None where nobody said."""
        ...

    def told_from(self, view: str, version: int) -> None:
        """A view's rows were told whole from this version. An earlier one does not take it back."""
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

    def written(self, view: ViewShape) -> Iterator[tuple[bytes, Stamp]]:
        """Every row of a view that was written and not removed."""
        ...

    def remove(self, view: ViewShape, keys: Sequence[bytes]) -> None:
        """Take rows and their stamps out of the store, each row with its stamp in one step."""
        ...

    def locked(self, view: str) -> contextlib.AbstractContextManager[None]:
        """Held by whoever writes rows of a view."""
        ...


def open_journal(file: Path, settings: FeatureSettings, project: str) -> Journal:
    """The journal of the store these settings name. `file`: the SQLite store's."""
    if settings.online_store == "redis":
        return RedisJournal(settings.redis_url, project)
    return SqliteJournal(file, project)


class SqliteJournal:
    """Two tables in the file of the store; readers of its rows go on while one writes (WAL)."""

    def __init__(self, file: Path, project: str) -> None:
        self._file = file
        self._project = project

    def through(self) -> datetime | None:
        stored = self._value(_THROUGH)
        return None if stored is None else _instant(stored)

    def counted(self) -> int | None:
        return self._value(_COUNTED)

    def advance(self, as_of: datetime, *, counted: int | None = None) -> None:
        with self._open() as database:
            database.execute(_LATEST, (_THROUGH, _microseconds(as_of)))
            if counted is not None:
                database.execute(_LATEST, (_COUNTED, counted))
            database.execute(_COUNT_UP, (_VERSION,))

    def table(self, view: str) -> int | None:
        return self._value(_table(view))

    def told_from(self, view: str, version: int) -> None:
        with self._open() as database:
            database.execute(_LATEST, (_table(view), version))

    def version(self) -> int:
        return self._value(_VERSION) or 0

    def _value(self, name: str) -> int | None:
        if not self._file.exists():
            return None
        with self._open() as database:
            row = database.execute("SELECT value FROM rolecall_online WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def stamps(self, view: str, keys: Sequence[bytes]) -> Sequence[Stamp | None]:
        found: dict[bytes, bytes] = {}
        with self._open() as database:
            for start in range(0, len(keys), _BOUND):
                some = keys[start : start + _BOUND]
                query = _STAMPS.format(", ".join("?" * len(some)))
                found.update(database.execute(query, (view, *some)))
        return [Stamp.from_bytes(found[key]) if key in found else None for key in keys]

    def remember(self, view: str, stamps: Mapping[bytes, Stamp]) -> None:
        rows = [(view, key, stamp.to_bytes()) for key, stamp in stamps.items()]
        with self._open() as database:
            database.executemany("INSERT OR REPLACE INTO rolecall_written VALUES (?, ?, ?)", rows)

    def written(self, view: ViewShape) -> Iterator[tuple[bytes, Stamp]]:
        with self._open() as database:
            rows = database.execute("SELECT entity_key, stamp FROM rolecall_written WHERE view = ?", (view.name,))
            for key, stored in rows:
                yield key, Stamp.from_bytes(stored)

    def remove(self, view: ViewShape, keys: Sequence[bytes]) -> None:
        with self._open() as database:
            database.execute("PRAGMA secure_delete=ON")
            database.executemany(
                f'DELETE FROM "{self._project}_{view.name}" WHERE entity_key = ?', [(k,) for k in keys]
            )
            gone = [(view.name, key) for key in keys]
            database.executemany("DELETE FROM rolecall_written WHERE view = ? AND entity_key = ?", gone)

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

    def counted(self) -> int | None:
        return self._value(_COUNTED)

    def advance(self, as_of: datetime, *, counted: int | None = None) -> None:
        latest = {_THROUGH: _microseconds(as_of)} | ({} if counted is None else {_COUNTED: counted})
        self._raise(latest)
        self._client.incr(_VERSION)

    def table(self, view: str) -> int | None:
        return self._value(_table(view))

    def told_from(self, view: str, version: int) -> None:
        self._raise({_table(view): version})

    def _value(self, name: str) -> int | None:
        stored = self._client.get(name)
        return None if stored is None else int(stored)

    def _raise(self, latest: Mapping[str, int]) -> None:
        """Set several numbers in one step, none of them back."""
        with self._client.lock(f"{_THROUGH}:lock", timeout=_HOLD_S):
            known = {name: self._value(name) for name in latest}
            self._client.mset({name: max(known[name] or 0, value) for name, value in latest.items()})

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

    def written(self, view: ViewShape) -> Iterator[tuple[bytes, Stamp]]:
        found = self._client.scan_iter(match=key_prefix(view) + b"*" + self._project, count=_LOOKUP)
        while some := list(itertools.islice(found, _LOOKUP)):
            keys = [key[: len(key) - len(self._project)] for key in some]
            for key, stamp in zip(keys, self.stamps(view.name, keys), strict=True):
                if stamp is not None:
                    yield key, stamp

    def remove(self, view: ViewShape, keys: Sequence[bytes]) -> None:
        from feast.infra.online_stores.helpers import _mmh3

        fields = [_mmh3(f"{view.name}:{name}") for name in (*view.columns, COUNTED_VALUE)]
        with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hdel(key + self._project, f"_ts:{view.name}", _field(view.name), *fields)
            pipe.execute()

    @contextlib.contextmanager
    def locked(self, view: str) -> Iterator[None]:
        with self._client.lock(f"rolecall:online:{view}:lock", timeout=_HOLD_S) as held:
            self._held[view] = held
            try:
                yield
            finally:
                del self._held[view]


def _table(view: str) -> str:
    return f"rolecall:online:table:{view}"


def _field(view: str) -> str:
    return f"_stamp:{view}"


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _instant(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
