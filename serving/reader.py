"""What is known of the person who asks: stored online features, the events posted since, the profile in the request.

A stored row counts the events that were in the events table when its run began and happened before the run's instant.
Those are the events up to its newest one (`*_until_us`), less what was posted after the run drained the log: each row
says itself up to which sequence number it counts (`ViewShape.counted`). So nothing is counted twice and nothing is
missed, however late a phone posts it, and while a run writes its rows or after it was killed then. Of two events at one
instant the one with the higher id is the later, as in the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from rolecall.features.candidates import candidate_context
from rolecall.features.context import CandidateContext
from rolecall.features.views import VIEWS
from rolecall.platform.event_log import LoggedEvent
from rolecall.platform.forgotten import ForgottenPeople

MOST_RECENT = 2_000
"""Posted events read for one candidate; of more, the oldest wait for the next run."""

_ALL_POSTED = 2**62
"""Where a row does not say what it counts, only its newest event tells."""

_COUNTS = {view.name: view.counted for view in VIEWS}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OnlineFeatures(Protocol):
    """Newest stored feature rows; a value that is too old for its view is None."""

    def online_candidates(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Mapping[str, object]]: ...


class PostedEvents(Protocol):
    """What was posted."""

    def of_candidate_since(
        self, candidate_id: str, since: datetime | None, *, after: int, limit: int
    ) -> list[LoggedEvent]: ...


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What a stored row counts: events up to the instant `until` (None: none at all), of those the posted ones up to
    the sequence number `posted`."""

    until: datetime | None
    posted: int

    @classmethod
    def by(cls, row: Mapping[str, object], view: str, until: str) -> Counted | None:
        """What the view's part of a row says; None where the candidate has no such row."""
        newest, posted = row.get(until), row.get(_COUNTS[view] or "")
        if not isinstance(newest, int | float):
            return None
        at = _EPOCH + timedelta(microseconds=int(newest))
        return cls(until=at, posted=posted if isinstance(posted, int) else _ALL_POSTED)

    def not_before(self, other: Counted) -> Counted:
        """What a row that is written before another one of the same run, and read after it, counts: at least the
        instants that the other does, where it is not from an earlier run."""
        if self.posted < other.posted or self.until is None or other.until is None:
            return self
        return replace(self, until=max(self.until, other.until))

    def misses(self, event: LoggedEvent) -> bool:
        """Whether an event is not among them."""
        return self.until is None or event.sequence > self.posted or event.event["occurred_at"] > self.until


_NOTHING = Counted(until=None, posted=0)


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
        activity = Counted.by(row, "candidate_activity", "activity_until_us") or _NOTHING
        history = (Counted.by(row, "candidate_history", "history_until_us") or activity).not_before(activity)
        least = None if activity.until is None or history.until is None else min(activity.until, history.until)
        found = self._events.of_candidate_since(
            candidate_id, least, after=min(activity.posted, history.posted), limit=MOST_RECENT
        )
        posted = sorted(found, key=lambda one: str(one.event["event_id"]))
        return candidate_context(
            candidate_id,
            row,
            at=at,
            events=[_told(one) for one in posted if activity.misses(one)],
            history_events=[_told(one) for one in posted if history.misses(one)],
            history_length=self._history_length,
        )


def _told(posted: LoggedEvent) -> Posted:
    event = posted.event
    return Posted(
        job_id=event["job_id"],
        kind=event["kind"],
        occurred_at=event["occurred_at"],
        dwell_seconds=event.get("dwell_seconds"),
    )
