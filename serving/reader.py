"""What is known of the person who asks: stored online features, the events posted since, the profile in the request.

A stored row counts the events that were in the events table when its run began and happened before the run's instant.
Those are the events up to its newest one (`*_until_us`), less what was posted after the run drained the log (a higher
sequence number than the watermark COUNTED). So nothing is counted twice and nothing is missed, however late a phone
posts it; only while a run writes its rows, or until one that was killed then is resumed, may some of what was posted
since the run before be missing. Of two events at one instant the one with the higher id is the later, as in the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from rolecall.features.candidates import candidate_context
from rolecall.features.context import CandidateContext
from rolecall.features.online_store import COUNTED
from rolecall.platform.event_log import LoggedEvent
from rolecall.platform.forgotten import ForgottenPeople

MOST_RECENT = 2_000
"""Posted events read for one candidate; of more, the oldest wait for the next run."""

ROW_UNTIL = ("history_until_us", "activity_until_us")
_ALL_POSTED = 2**62
"""Without a watermark, only the newest event a row counts tells what it counts."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OnlineFeatures(Protocol):
    """Newest stored feature rows; a value that is too old for its view is None."""

    def online_candidates(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Mapping[str, object]]: ...


class PostedEvents(Protocol):
    """What was posted, and how far readers of it have come."""

    def of_candidate_since(
        self, candidate_id: str, since: datetime | None, *, after: int, limit: int
    ) -> list[LoggedEvent]: ...

    def watermark(self, name: str) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Posted:
    """One posted event, as far as features need it."""

    job_id: str
    kind: str
    occurred_at: datetime
    dwell_seconds: float | None


class CandidateReader:
    """Contexts by candidate id. Stored features are from the last run; what was posted since is laid over them."""

    def __init__(
        self,
        features: OnlineFeatures,
        events: PostedEvents,
        *,
        history_length: int,
        forgotten: ForgottenPeople | None = None,
    ) -> None:
        self._forgotten = forgotten
        self._features = features
        self._events = events
        self._history_length = history_length

    def read(self, candidate_id: str, at: datetime) -> CandidateContext:
        """The candidate as known at `at`; `known` is False where nothing is stored and nothing was done, and for
        somebody who asked to be forgotten."""
        if self._forgotten is not None and self._forgotten.contains([candidate_id])[0]:
            return CandidateContext()
        row = self._features.online_candidates([candidate_id], at=at)[0]
        counted = self._events.watermark(COUNTED)  # after the row: a newer row with an older watermark counts twice
        posted = self._events.of_candidate_since(
            candidate_id, counted_until(row), after=counted or _ALL_POSTED, limit=MOST_RECENT
        )
        events = [_told(one) for one in sorted(posted, key=lambda one: str(one.event["event_id"]))]
        return candidate_context(candidate_id, row, at=at, events=events, history_length=self._history_length)


def _told(posted: LoggedEvent) -> Posted:
    event = posted.event
    return Posted(
        job_id=event["job_id"],
        kind=event["kind"],
        occurred_at=event["occurred_at"],
        dwell_seconds=event.get("dwell_seconds"),
    )


def counted_until(row: Mapping[str, object]) -> datetime | None:
    """The newest event that a candidate's rows count; None where they count none."""
    known = [int(until) for name in ROW_UNTIL if isinstance(until := row.get(name), int | float)]
    return _EPOCH + timedelta(microseconds=max(known)) if known else None
