"""The ledger database: the event log, its watermarks, served features, the promotions and the schedules, in SQLite or
PostgreSQL.

What is committed here is on disk: SQLite runs with a write-ahead log and full synchronisation. Every
change goes through `write`, which lets one writer in at a time, so a read followed by a write is one
step nobody comes between, and sequence numbers become visible in the order they were given out.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from rolecall.platform.errors import ConflictError, SettingsError
from rolecall.platform.files import locked

BUSY_TIMEOUT_S = 30.0
_WRITE = "rolecall_write"
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only in an INTEGER column

METADATA = MetaData()

EVENT_LOG = Table(
    "event_log",
    METADATA,
    Column("sequence", _NUMBER, primary_key=True, autoincrement=True),
    Column("event_id", String(1000), nullable=False, unique=True),
    Column("candidate_id", String(1000), nullable=False),
    Column("job_id", String(1000), nullable=False),
    Column("kind", String(1000), nullable=False),
    Column("occurred_at_us", BigInteger, nullable=False),
    Column("received_at_us", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("event_log_by_candidate", "candidate_id", "sequence"),
    sqlite_autoincrement=True,
)

WATERMARKS = Table(
    "watermarks",
    METADATA,
    Column("name", String(256), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)

PROMOTIONS = Table(
    "promotions",
    METADATA,
    Column("model", String(256), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("action", String(32), nullable=False),
    Column("who", String(256), nullable=False),
    Column("from_release", String(64)),
    Column("to_release", String(64)),
    Column("why", Text, nullable=False),
    Column("gated", Boolean, nullable=False),
    Column("mirrored", Boolean, nullable=False),
)

SCHEDULES = Table(
    "schedules",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("pipeline", String(64), nullable=False),
    Column("at", String(5), nullable=False),
    Column("zone", String(64), nullable=False),
    Column("start", Date, nullable=False),
    Column("end", Date),
    Column("catch_up", Boolean, nullable=False),
    Column("reprocess", String(16), nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("backoff_us", BigInteger, nullable=False),
    Column("backoff_cap_us", BigInteger, nullable=False),
    Column("grace_us", BigInteger, nullable=False),
    Column("promote", Boolean, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("since_us", BigInteger, nullable=False),
)

SCHEDULE_RUNS = Table(
    "schedule_runs",
    METADATA,
    Column("schedule", String(64), nullable=False),
    Column("logical_date", Date, nullable=False),
    Column("as_of_us", BigInteger, nullable=False),
    Column("origin", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("entered_us", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("next_attempt_us", BigInteger),
    Column("submission_id", String(256), unique=True),
    Column("error", Text),
    Column("owner", String(256)),
    Column("lease_until_us", BigInteger),
    Column("heartbeat_us", BigInteger),
    Column("started_us", BigInteger),
    Column("finished_us", BigInteger),
    UniqueConstraint("schedule", "logical_date", name="schedule_runs_once_a_date"),
)

Index(
    "schedule_runs_one_at_a_time",
    SCHEDULE_RUNS.c.schedule,
    unique=True,
    sqlite_where=SCHEDULE_RUNS.c.state == "running",
    postgresql_where=SCHEDULE_RUNS.c.state == "running",
)

SERVED_FEATURES = Table(
    "served_features",
    METADATA,
    Column("request_id", String(256), primary_key=True),
    Column("candidate_id", String(1000), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("release_id", String(64), nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("counted", BigInteger, nullable=False),
    Column("jobs_through_us", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("served_features_by_time", "at_us"),
    Index("served_features_by_candidate", "candidate_id"),
)

FORGOTTEN = Table(
    "forgotten",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("asked_at_us", BigInteger, nullable=False),
    Column("due_at_us", BigInteger, nullable=False),
    Column("stage", String(16), nullable=False),
)

LEDGER_KEYS = Table(
    "ledger_keys",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("value", String(128), nullable=False),
)

TAINTED_RELEASES = Table(
    "tainted_releases",
    METADATA,
    Column("model", String(256), primary_key=True),
    Column("release_id", String(64), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("due_at_us", BigInteger, nullable=False),
    Column("purged_at_us", BigInteger),
)


def open_ledger(url: str) -> Engine:
    """Connect to the ledger and create its tables where they are missing; safe when two processes start at once.

    Raises SettingsError for a URL that is neither a SQLite file nor PostgreSQL.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise SettingsError(f"ledger URL {url} keeps nothing", "sqlite:///FILE", "name a file")
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif parsed.get_backend_name() == "postgresql":
        engine = create_engine(parsed, pool_pre_ping=True)
    else:
        raise SettingsError(
            f"ledger URL of kind {parsed.get_backend_name()}",
            "sqlite:///FILE or postgresql+DRIVER://",
            "change ledger_url",
        )
    with exclusive(engine, "schema"), engine.begin() as connection:
        METADATA.create_all(connection)
    return engine


@contextmanager
def write(engine: Engine, table: Table) -> Iterator[Connection]:
    """One durable transaction that no other writer of `table` runs beside. Rolls back when the block raises."""
    with engine.connect().execution_options(**{_WRITE: True}) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text(f'LOCK TABLE "{table.name}" IN EXCLUSIVE MODE'))
        yield connection


@contextmanager
def exclusive(engine: Engine, name: str) -> Iterator[None]:
    """Hold the ledger-wide lock `name` across processes while work outside the database happens (not re-entrant).

    Events are appended meanwhile: on SQLite the lock is a file beside the database, on PostgreSQL an advisory lock.
    """
    if engine.dialect.name == "sqlite":
        with locked(Path(f"{engine.url.database}.{name}.lock")):
            yield
        return
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _lock_key(name)})
        yield


@contextmanager
def claimed(engine: Engine, name: str) -> Iterator[None]:
    """Hold `name` across every machine that shares the ledger, for as long as a job may take; a dead holder frees it.

    Raises ConflictError at once where another process holds it, and at the end where the hold was lost meanwhile. On
    SQLite the lock is a file beside the database. On PostgreSQL it lives in a session: the server frees it when the
    holder's machine has not answered for a minute.
    """
    if engine.dialect.name == "sqlite":
        with _claimed_file(Path(f"{engine.url.database}.{name}.lock"), name):
            yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for setting in ("idle = 30", "interval = 10", "count = 3"):
            connection.exec_driver_sql(f"SET tcp_keepalives_{setting}")
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _lock_key(name)}):
            raise _taken(name)
        try:
            yield
        finally:
            _give_back(connection, name)


def _give_back(connection: Connection, name: str) -> None:
    try:
        held = connection.scalar(text("SELECT pg_advisory_unlock(:key)"), {"key": _lock_key(name)})
    except DBAPIError as error:
        connection.invalidate()
        raise ConflictError(f"the claim on {name} was lost with its connection", todo="run it again") from error
    if not held:
        raise ConflictError(f"the claim on {name} was lost", todo="run it again")


@contextmanager
def _claimed_file(file: Path, name: str) -> Iterator[None]:
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _taken(name) from error
        yield


def _taken(name: str) -> ConflictError:
    return ConflictError(f"{name} is being executed by another process", todo="wait for it to end")


def _lock_key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"rolecall:{name}".encode()).digest()[:8], signed=True)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says, not where sqlite3 guesses
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
