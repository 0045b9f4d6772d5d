"""Clients that never stop asking, and what each of them saw.

A connection that closes without an answer is asked again, once: a proxy whose server was reset in the middle of a
request closes a kept-alive connection silently, for the client to repeat what may be repeated (RFC 9112, section
9.3.1). Everything here may be: recommendations change nothing, an event counts once however often its id is posted.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx

PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request: when it was sent and answered (monotonic seconds), and what came back; `status` 0: nothing did.

    `repeated`: it was asked twice, since the first connection closed without an answer.
    """

    sent: float
    ended: float
    path: str
    status: int
    headers: Mapping[str, str]
    problem: str = ""
    event_id: str = ""
    release_id: str = ""
    repeated: bool = False

    @property
    def answered(self) -> bool:
        """Whether the client got what it asked for."""
        return self.status in (200, 202)

    @property
    def clean_refusal(self) -> bool:
        """Whether it was told, as an API should, to come back."""
        described = self.headers.get("content-type") == "application/problem+json"
        return self.status == 503 and described and "retry-after" in self.headers


@dataclass(kw_only=True)
class Load:
    """Closed-loop clients on threads, two thirds recommendations, one third events; stops at the end of its block."""

    url: str
    clients: int
    people: Sequence[str]
    seen: list[Seen] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._ask, name=f"client-{n}") for n in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def accepted(self) -> set[str]:
        """Ids of the events that were answered 202."""
        return {seen.event_id for seen in self.seen if seen.event_id and seen.status == 202}

    def statuses(self, since: float = 0.0) -> Counter[int]:
        """How often each status came; 0 counts what was not answered at all."""
        return Counter(seen.status for seen in self.seen if seen.ended >= since)

    def longest_silence(self, since: float) -> float:
        """The longest time in which no client got what it asked for, seconds."""
        times = sorted([since, *(seen.ended for seen in self.seen if seen.answered and seen.ended > since)])
        return max(after - before for before, after in itertools.pairwise(times))

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S) as client:
            while not self._stop.is_set():
                self.seen.append(self._once(client, next(self._numbers)))

    def _once(self, client: httpx.Client, number: int) -> Seen:
        person = self.people[number % len(self.people)]
        event_id = "" if number % 3 else f"load-{number}"
        path, body = ("/v1/events", event(event_id, person)) if event_id else recommendation(person)
        sent, repeated = time.monotonic(), False
        try:
            try:
                answer = client.post(path, json=body)
            except httpx.RemoteProtocolError:
                repeated = True
                answer = client.post(path, json=body)
        except httpx.TransportError as error:
            status, headers, problem, release_id = 0, {}, repr(error), ""
        else:
            status, headers = answer.status_code, dict(answer.headers)
            problem = "" if answer.is_success else answer.text[:300]
            release_id = answer.json().get("release_id", "") if answer.is_success else ""
        return Seen(
            sent=sent,
            ended=time.monotonic(),
            path=path,
            status=status,
            headers=headers,
            problem=problem,
            event_id=event_id,
            release_id=release_id,
            repeated=repeated,
        )


def recommendation(person: str) -> tuple[str, dict[str, Any]]:
    """Path and body."""
    return "/v1/recommendations", {"candidate_id": person, "limit": 5}


def event(event_id: str, person: str) -> dict[str, Any]:
    """Body of one view."""
    at = datetime(2026, 11, 2, 9, 30, tzinfo=UTC).isoformat()
    view = {"candidate_id": person, "job_id": "job-000001", "kind": "view", "occurred_at": at}
    return {"events": [{"event_id": event_id, **view}]}
