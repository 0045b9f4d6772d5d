"""Events as they arrive: durable on append, idempotent by event_id, drained into the events table.

log = EventLog(open_ledger(url))
log.append([{"event_id": "e1", "candidate_id": "c1", "job_id": "j1", "kind": "view", "occurred_at": now}])
drain(log, tables, EVENTS)   # Delta commit first, watermark after: a kill between them repeats work, loses none
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pyarrow as pa
from sqlalchemy import Connection, Engine, Row, func, insert, or_, select, update

from rolecall.platform.errors import InputError
from rolecall.platform.forgotten import ForgottenPeople
from rolecall.platform.ledger import EVENT_LOG, WATERMARKS, write
from rolecall.platform.tables import TableSchema, TableStore

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT_FIELDS = ("event_id", "candidate_id", "job_id", "kind")
_LONGEST = 1000
_UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff]")
_LOOKUP = 500  # ids per SELECT, below every database's limit on bound values


@dataclass(frozen=True, kw_only=True)
class AppendResult:
    """Every event of one append is exactly one of the three. `dropped`: of people who asked to be forgotten."""

    accepted: int
    duplicate: int
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class LoggedEvent:
    """One event as stored. `event` holds what was appended; `occurred_at` is a UTC datetime again."""

    sequence: int
    received_at: datetime
    event: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RefusedEvent:
    """An event the table's schema does not take. It stays in the log; the drain goes on without it."""

    sequence: int
    event_id: str
    message: str


@dataclass(frozen=True, kw_only=True)
class DrainResult:
    """What one drain moved. `sequence`: the watermark afterwards; `version`: the table's, None if it does not exist."""

    read: int
    inserted: int
    refused: tuple[RefusedEvent, ...]
    sequence: int
    version: int | None


class EventLog:
    """An append-only log in the ledger. Sequence numbers rise and are visible in order: no reader can miss one."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def append(
        self,
        events: Sequence[Mapping[str, Any]],
        *,
        received_at: datetime | None = None,
        forgotten: ForgottenPeople | None = None,
    ) -> AppendResult:
        """Commit events in one transaction; they are on disk when this returns. A known event_id changes nothing.

        `forgotten`: of whom nothing is taken in, asked in the same transaction.

        Each needs text `event_id`, `candidate_id`, `job_id`, `kind` and a datetime `occurred_at` with a zone; other
        values may be anything JSON holds. Raises InputError, and then nothing was appended.
        """
        arrived = _microseconds(received_at or datetime.now(UTC))
        rows: dict[str, dict[str, Any]] = {}
        for event in events:
            row = _row(event, arrived)
            rows.setdefault(row["event_id"], row)
        if not rows:
            return AppendResult(accepted=0, duplicate=0)
        with write(self.engine, EVENT_LOG) as connection:
            names = [row["candidate_id"] for row in rows.values()]
            gone = forgotten.among(connection, names) if forgotten is not None else set[str]()
            known = _known_ids(connection, list(rows))
            fresh = [row for row in rows.values() if row["event_id"] not in known and row["candidate_id"] not in gone]
            if fresh:
                connection.execute(insert(EVENT_LOG), fresh)
        dropped = sum(event["candidate_id"] in gone for event in events)
        return AppendResult(accepted=len(fresh), duplicate=len(events) - len(fresh) - dropped, dropped=dropped)

    def read_after(self, sequence: int, limit: int = 10_000) -> list[LoggedEvent]:
        """At most `limit` events with a higher sequence number, in order."""
        query = select(EVENT_LOG).where(EVENT_LOG.c.sequence > sequence).order_by(EVENT_LOG.c.sequence).limit(limit)
        return self._fetch(query)

    def of_candidate(
        self, candidate_id: str, *, kinds: Sequence[str] | None = None, after: int = 0, limit: int = 200
    ) -> list[LoggedEvent]:
        """A candidate's newest events of these kinds (default: all) above `after`, in the order they were posted."""
        table = EVENT_LOG.c
        query = select(EVENT_LOG).where(table.candidate_id == candidate_id, table.sequence > after)
        if kinds is not None:
            query = query.where(table.kind.in_(kinds))
        return self._fetch(query.order_by(table.sequence.desc()).limit(limit))[::-1]

    def of_candidate_since(
        self, candidate_id: str, since: datetime | None, *, after: int, limit: int
    ) -> list[LoggedEvent]:
        """A candidate's newest events that happened after `since` (None: ever) or were posted after the number `after`,
        in the order they were posted."""
        table = EVENT_LOG.c
        query = select(EVENT_LOG).where(table.candidate_id == candidate_id)
        if since is not None:
            query = query.where(or_(table.occurred_at_us > _microseconds(since), table.sequence > after))
        return self._fetch(query.order_by(table.sequence.desc()).limit(limit))[::-1]

    def candidates_between(self, after: int, last: int) -> list[str]:
        """Whose events have numbers above `after` up to `last`, each once."""
        row = EVENT_LOG.c
        query = select(row.candidate_id).where(row.sequence > after, row.sequence <= last).distinct()
        with self.engine.connect() as connection:
            return list(connection.scalars(query))

    def last_sequence(self) -> int:
        """The newest event's number, 0 while the log is empty."""
        with self.engine.connect() as connection:
            return connection.scalar(select(func.max(EVENT_LOG.c.sequence))) or 0

    def watermark(self, name: str) -> int:
        """How far the reader `name` has come: 0 before its first advance."""
        with self.engine.connect() as connection:
            return connection.scalar(select(WATERMARKS.c.sequence).where(WATERMARKS.c.name == name)) or 0

    def advance(self, name: str, sequence: int) -> int:
        """Move a watermark forward, never back, and return where it stands now."""
        row = WATERMARKS.c
        with write(self.engine, WATERMARKS) as connection:
            current = connection.scalar(select(row.sequence).where(row.name == name))
            if current is None:
                connection.execute(insert(WATERMARKS).values(name=name, sequence=sequence))
            elif current < sequence:
                connection.execute(update(WATERMARKS).where(row.name == name).values(sequence=sequence))
        return max(current or 0, sequence)

    def _fetch(self, query: Any) -> list[LoggedEvent]:
        with self.engine.connect() as connection:
            return [_logged(row) for row in connection.execute(query)]


def watermark_name(schema: TableSchema) -> str:
    """The watermark under which `drain` fills this table."""
    return f"delta:{schema.name}"


def drain(log: EventLog, store: TableStore, schema: TableSchema, *, batch: int = 20_000) -> DrainResult:
    """Move every event above the watermark into a Delta table; the watermark follows each commit.

    Repeating a batch after a kill changes nothing, because the upsert is keyed, and an event that the table knows from
    elsewhere stays what it was: nobody rewrites the past by posting. Values outside the schema's columns
    are left in the log. Raises ConflictError where another writer committed at the same time: drain again.
    """
    name = watermark_name(schema)
    sequence, read, inserted = log.watermark(name), 0, 0
    refused: list[RefusedEvent] = []
    while events := log.read_after(sequence, batch):
        rows, bad = _to_table(events, schema)
        if rows.num_rows:
            inserted += store.upsert(schema, rows, replace=False).inserted
        sequence = log.advance(name, events[-1].sequence)
        read += len(events)
        refused += bad
    return DrainResult(
        read=read, inserted=inserted, refused=tuple(refused), sequence=sequence, version=store.version(schema.name)
    )


def _to_table(events: Sequence[LoggedEvent], schema: TableSchema) -> tuple[pa.Table, list[RefusedEvent]]:
    try:
        return _convert(events, schema), []
    except _CANNOT_CONVERT:
        pass  # one of them does not fit: find out which, one by one
    good: list[LoggedEvent] = []
    refused: list[RefusedEvent] = []
    for event in events:
        try:
            _convert([event], schema)
            good.append(event)
        except _CANNOT_CONVERT as error:
            refused.append(RefusedEvent(sequence=event.sequence, event_id=event.event["event_id"], message=str(error)))
    return _convert(good, schema), refused


_CANNOT_CONVERT = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, InputError)


def _convert(events: Iterable[LoggedEvent], schema: TableSchema) -> pa.Table:
    rows = pa.Table.from_pylist([dict(event.event) for event in events], schema=schema.columns)
    empty = [name for name in schema.required if rows[name].null_count]
    if empty:
        raise InputError(f"no value in {empty}", f"a value in each of {list(schema.required)}")
    return rows


def _row(event: Mapping[str, Any], received_us: int) -> dict[str, Any]:
    for name in _TEXT_FIELDS:
        if not _is_text(event.get(name)):
            raise InputError(
                f"event with {name} = {str(event.get(name))[:100]!r}",
                f"text of 1 to {_LONGEST} characters in each of {', '.join(_TEXT_FIELDS)}",
            )
    occurred_at = event.get("occurred_at")
    if not isinstance(occurred_at, datetime) or occurred_at.tzinfo is None:
        raise InputError(f"event {event['event_id']} with occurred_at = {occurred_at!r}", "a datetime with a zone")
    rest = {name: value for name, value in event.items() if name not in (*_TEXT_FIELDS, "occurred_at")}
    try:
        body = orjson.dumps(rest, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError as error:
        raise InputError(f"event {event['event_id']}: {error}", "values JSON can hold") from error
    columns = {name: event[name] for name in _TEXT_FIELDS}
    return {**columns, "occurred_at_us": _microseconds(occurred_at), "received_at_us": received_us, "body": body}


def _is_text(value: Any) -> bool:
    """Text that every database stores as it is: no NUL, no half of a surrogate pair."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and not _UNSTORABLE.search(value)


def _known_ids(connection: Connection, ids: list[str]) -> set[str]:
    known: set[str] = set()
    for start in range(0, len(ids), _LOOKUP):
        chunk = ids[start : start + _LOOKUP]
        known.update(connection.scalars(select(EVENT_LOG.c.event_id).where(EVENT_LOG.c.event_id.in_(chunk))))
    return known


def _logged(row: Row[Any]) -> LoggedEvent:
    event = {name: row._mapping[name] for name in _TEXT_FIELDS}
    event |= {"occurred_at": _instant(row.occurred_at_us), **orjson.loads(row.body)}
    return LoggedEvent(sequence=row.sequence, received_at=_instant(row.received_at_us), event=event)


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _instant(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
