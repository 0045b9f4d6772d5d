"""What a share of requests was answered from: the features that were served, kept to be compared with what the offline
join says of the same instant.

    log = ServedLog(open_ledger(url))
    log.append(ServedRequest(request_id="r1", candidate_id="c1", at=now, release_id=..., events=7, ...))
    log.between(start, end, limit=1000)

Rows name candidates: `forget`, `export` and `retention` know this table as they know the event log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Engine, Row, delete, func, insert, select

from rolecall.platform.forgotten import ForgottenPeople
from rolecall.platform.ledger import SERVED_FEATURES, write

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class ServedRequest:
    """One answer. `at`: the instant it was asked for; `events`: the newest event in the log just before; `counted`:
    the newest that the stored rows count; `jobs_through`: the day the job features are of.

    `profile_us`: since when the profile that was read holds, microseconds since 1970; 0: there was none; None: unknown.
    `candidate`: features by name; `jobs`: of the jobs shown `job_id` and `employer_id`, and features by name, aligned.
    """

    request_id: str
    candidate_id: str
    at: datetime
    release_id: str
    events: int
    counted: int
    jobs_through: datetime
    profile_us: int | None = None
    candidate: Mapping[str, Any] = field(default_factory=dict)
    jobs: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class ServedLog:
    """Rows of the ledger, one a request; the first of a request id stays."""

    def __init__(self, engine: Engine, forgotten: ForgottenPeople | None = None) -> None:
        self.engine = engine
        self._forgotten = forgotten

    def append(self, served: ServedRequest) -> bool:
        """Keep it; False where the request is known already, or its candidate asked to be forgotten."""
        row = SERVED_FEATURES.c
        with write(self.engine, SERVED_FEATURES) as connection:
            if self._forgotten is not None and self._forgotten.among(connection, [served.candidate_id]):
                return False
            if connection.scalar(select(row.request_id).where(row.request_id == served.request_id)) is not None:
                return False
            body = {"profile_us": served.profile_us, "candidate": served.candidate, "jobs": served.jobs}
            connection.execute(
                insert(SERVED_FEATURES).values(
                    request_id=served.request_id,
                    candidate_id=served.candidate_id,
                    at_us=_microseconds(served.at),
                    release_id=served.release_id,
                    events=served.events,
                    counted=served.counted,
                    jobs_through_us=_microseconds(served.jobs_through),
                    body=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY).decode(),
                )
            )
        return True

    def between(self, start: datetime, end: datetime, *, limit: int) -> list[ServedRequest]:
        """The newest requests of [start, end), oldest first."""
        row = SERVED_FEATURES.c
        asked = (row.at_us >= _microseconds(start)) & (row.at_us < _microseconds(end))
        return self._fetch(select(SERVED_FEATURES).where(asked).order_by(row.at_us.desc()).limit(limit))[::-1]

    def of_candidate(self, candidate_id: str) -> list[ServedRequest]:
        """Everything kept of one candidate, oldest first."""
        row = SERVED_FEATURES.c
        return self._fetch(select(SERVED_FEATURES).where(row.candidate_id == candidate_id).order_by(row.at_us))

    def remove_before(self, before: datetime, *, dry_run: bool = False) -> int:
        """Drop what is older. Returns how many rows that are, or with `dry_run` would be."""
        old = SERVED_FEATURES.c.at_us < _microseconds(before)
        if dry_run:
            with self.engine.connect() as connection:
                return connection.scalar(select(func.count()).select_from(SERVED_FEATURES).where(old)) or 0
        with write(self.engine, SERVED_FEATURES) as connection:
            return connection.execute(delete(SERVED_FEATURES).where(old)).rowcount

    def _fetch(self, query: Any) -> list[ServedRequest]:
        with self.engine.connect() as connection:
            return [_served(row) for row in connection.execute(query)]


def _served(row: Row[Any]) -> ServedRequest:
    return ServedRequest(
        request_id=row.request_id,
        candidate_id=row.candidate_id,
        at=_EPOCH + timedelta(microseconds=row.at_us),
        release_id=row.release_id,
        events=row.events,
        counted=row.counted,
        jobs_through=_EPOCH + timedelta(microseconds=row.jobs_through_us),
        **orjson.loads(row.body),
    )


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)
