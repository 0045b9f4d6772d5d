"""Vectors by (embedder hash, text hash) in one SQLite file.

A commit is whole or absent, also after a kill; several processes may read and write at once. The
embedder's hash is part of the key, so a changed model or token limit never meets old vectors.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rolecall.platform.database_erasure import compact_sqlite
from rolecall.platform.errors import InputError

_CREATE = """
CREATE TABLE IF NOT EXISTS vectors (
    embedder TEXT NOT NULL, text BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (embedder, text)
) WITHOUT ROWID
"""
_CHUNK = 500


def _wanted(database: sqlite3.Connection, texts: Iterable[bytes]) -> str:
    """The hashes as a subquery; they are kept in a temporary table of this connection."""
    database.execute("CREATE TEMP TABLE wanted (text BLOB PRIMARY KEY) WITHOUT ROWID")
    database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ((text,) for text in texts))
    return "(SELECT text FROM wanted)"


class VectorCache:
    """The cache file at `path`, made at first use. Holds no open connection: safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lookup(self, embedder: str, texts: Sequence[bytes]) -> dict[bytes, npt.NDArray[np.float32]]:
        """The known ones among the given text hashes, float32 [dimension] each."""
        found: dict[bytes, npt.NDArray[np.float32]] = {}
        with self._connected() as database:
            for start in range(0, len(texts), _CHUNK):
                chunk = texts[start : start + _CHUNK]
                marks = ",".join("?" * len(chunk))
                rows = database.execute(
                    f"SELECT text, vector FROM vectors WHERE embedder = ? AND text IN ({marks})", (embedder, *chunk)
                )
                found.update((text, np.frombuffer(vector, dtype="<f4")) for text, vector in rows)
        return found

    def store(self, embedder: str, texts: Sequence[bytes], vectors: npt.NDArray[np.float32]) -> None:
        """Keep one vector a text hash, all in one commit; a hash already known keeps the vector it has."""
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise InputError(f"{len(texts)} texts with vectors of shape {vectors.shape}", "one row a text")
        blobs = [row.tobytes() for row in np.ascontiguousarray(vectors, dtype="<f4")]
        with self._connected() as database:
            database.executemany(
                "INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)",
                [(embedder, text, blob) for text, blob in zip(texts, blobs, strict=True)],
            )

    def count(self, embedder: str) -> int:
        """How many vectors of one embedder there are."""
        with self._connected() as database:
            return int(database.execute("SELECT count(*) FROM vectors WHERE embedder = ?", (embedder,)).fetchone()[0])

    def known(self, texts: Iterable[bytes]) -> int:
        """How many of the text hashes have a vector, of whatever embedder."""
        with self._connected() as database:
            found = database.execute(
                "SELECT count(DISTINCT text) FROM vectors WHERE text IN " + _wanted(database, texts)
            )
            return int(found.fetchone()[0])

    def keep_only(self, texts: Iterable[bytes]) -> int:
        """Remove every vector whose text hash is not among `texts`, and rewrite the file. Returns how many went."""
        if not self.path.exists():
            return 0
        with self._connected() as database:
            database.execute("PRAGMA secure_delete=ON")
            gone = database.execute("DELETE FROM vectors WHERE text NOT IN " + _wanted(database, texts)).rowcount
        compact_sqlite(self.path)
        return gone

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=60.0)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            with database:
                database.execute(_CREATE)
                yield database
        finally:
            database.close()
