"""What is known of the person who asks: stored online features, the events posted since, the profile in the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from rolecall.features.candidates import candidate_context, with_events
from rolecall.features.context import CandidateContext
from rolecall.platform.event_log import LoggedEvent

MOST_RECENT = 100


class OnlineFeatures(Protocol):
    """Newest stored feature rows; a value that is too old for its view is None."""

    def online_candidates(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Mapping[str, object]]: ...


class PostedEvents(Protocol):
    """A candidate's newest posted events, oldest first."""

    def of_candidate(self, candidate_id: str, *, after: int = 0, limit: int = 200) -> list[LoggedEvent]: ...


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One posted event, as far as a history needs it."""

    job_id: str
    kind: str
    occurred_at: datetime


class CandidateReader:
    """Contexts by candidate id. Stored features are from the last run; what was posted since is laid over them."""

    def __init__(self, features: OnlineFeatures, events: PostedEvents, *, history_length: int) -> None:
        self._features = features
        self._events = events
        self._history_length = history_length

    def read(self, candidate_id: str, at: datetime) -> CandidateContext:
        """The candidate as known at `at`; `known` is False where nothing is stored and nothing was posted."""
        row = self._features.online_candidates([candidate_id], at=at)[0]
        context = candidate_context(candidate_id, row, at=at)
        fresh = self._since(candidate_id, row.get("last_engaged_epoch"), at)
        return with_events(context, fresh, history_length=self._history_length) if fresh else context

    def _since(self, candidate_id: str, stored_until: object, at: datetime) -> list[Seen]:
        """Posted events that the stored history cannot hold yet: later than its newest engagement."""
        since = datetime.fromtimestamp(float(stored_until), UTC) if isinstance(stored_until, int | float) else None
        posted = (logged.event for logged in self._events.of_candidate(candidate_id, limit=MOST_RECENT))
        return [
            Seen(job_id=event["job_id"], kind=event["kind"], occurred_at=event["occurred_at"])
            for event in posted
            if event["occurred_at"] < at and (since is None or event["occurred_at"] > since)
        ]
