"""Rows that must be gone from a database file, not only from its tables.

SQLite keeps deleted rows in free pages and in its write-ahead log; PostgreSQL in dead tuples. Both are rewritten here.
Neither reaches a backup, or PostgreSQL's archived log: what an operator keeps of those is theirs to expire.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import Engine, Table, delete, func, select, text

from rolecall.platform.errors import UnavailableError
from rolecall.platform.ledger import METADATA, write

PATIENCE_S = 30.0
CANDIDATE = "candidate_id"


def personal_tables() -> list[Table]:
    """The ledger's tables that name candidates: those with a column `candidate_id`."""
    return [table for table in METADATA.sorted_tables if CANDIDATE in table.c]


def count_candidate(engine: Engine, candidate_id: str) -> int:
    """Rows of the ledger that name a candidate."""
    with engine.connect() as connection:
        counts = (
            connection.scalar(select(func.count()).select_from(table).where(table.c[CANDIDATE] == candidate_id))
            for table in personal_tables()
        )
        return sum(count or 0 for count in counts)


def erase_candidate(engine: Engine, candidate_id: str) -> int:
    """Delete every ledger row that names a candidate and rewrite the files. Returns how many rows went."""
    gone = 0
    for table in personal_tables():
        with write(engine, table) as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            gone += connection.execute(delete(table).where(table.c[CANDIDATE] == candidate_id)).rowcount
    compact(engine, personal_tables())
    return gone


def compact(engine: Engine, tables: Sequence[Table]) -> None:
    """Leave nothing of deleted rows in the files of these tables.

    Raises UnavailableError where readers do not let go of the file.
    """
    if engine.dialect.name == "sqlite":
        compact_sqlite(Path(str(engine.url.database)))
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in tables:
            connection.execute(text(f'VACUUM FULL "{table.name}"'))


def compact_sqlite(file: Path) -> None:
    """Rewrite a SQLite file and empty its write-ahead log; nothing happens where it does not exist."""
    if not file.exists():
        return
    with sqlite_file(file) as database:
        database.execute("VACUUM")
        busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise UnavailableError(
            f"{file} is being read: its write-ahead log could not be emptied in {PATIENCE_S:.0f} s",
            "a moment without a reader",
            "run the command again, or stop the process that reads",
        )


@contextlib.contextmanager
def sqlite_file(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection in autocommit that overwrites what it deletes. Raises UnavailableError where the file is busy."""
    database = sqlite3.connect(file, timeout=PATIENCE_S, isolation_level=None)
    try:
        database.execute("PRAGMA secure_delete=ON")
        yield database
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"{file}: {error}", "a file nobody else writes", "run the command again") from error
    finally:
        database.close()
