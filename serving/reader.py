"""What is known of the person who asks: stored online features, the events posted since, the profile in the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from rolecall.features.candidates import candidate_context, with_events
from rolecall.features.context import CandidateContext
from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.platform.event_log import LoggedEvent
from rolecall.platform.forgotten import ForgottenPeople

MOST_RECENT = 200
TOLD_KINDS = (*ENGAGEMENT_EVENTS, "dismiss")
"""What changes a context. Impressions do not, and there are so many that they would crowd out the rest."""


class OnlineFeatures(Protocol):
    """Newest stored feature rows; a value that is too old for its view is None."""

    def online_candidates(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Mapping[str, object]]: ...


class PostedEvents(Protocol):
    """A candidate's newest posted events of some kinds, in the order they were posted."""

    def of_candidate(
        self, candidate_id: str, *, kinds: Sequence[str] | None = None, after: int = 0, limit: int = 200
    ) -> list[LoggedEvent]: ...


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One posted event, as far as a history needs it."""

    job_id: str
    kind: str
    occurred_at: datetime


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
        """The candidate as known at `at`; `known` is False where nothing is stored and nothing was posted, and for
        somebody who asked to be forgotten."""
        if self._forgotten is not None and self._forgotten.contains([candidate_id])[0]:
            return CandidateContext()
        row = self._features.online_candidates([candidate_id], at=at)[0]
        context = candidate_context(candidate_id, row, at=at)
        until = _instant(row.get("last_engaged_epoch"))
        posted = self._posted(candidate_id, at)
        return with_events(context, posted, at=at, history_length=self._history_length, stored_until=until)

    def _posted(self, candidate_id: str, at: datetime) -> list[Seen]:
        """What the candidate did before `at`, by the time it happened: a phone may post it much later."""
        posted = self._events.of_candidate(candidate_id, kinds=TOLD_KINDS, limit=MOST_RECENT)
        seen = (
            Seen(job_id=e["job_id"], kind=e["kind"], occurred_at=e["occurred_at"]) for e in (p.event for p in posted)
        )
        return sorted((one for one in seen if one.occurred_at < at), key=lambda one: one.occurred_at)


def _instant(epoch: object) -> datetime | None:
    return datetime.fromtimestamp(float(epoch), UTC) if isinstance(epoch, int | float) else None
