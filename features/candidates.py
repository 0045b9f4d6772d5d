"""From feature rows to the CandidateContext that the funnel reads: one function, offline and online.

A row is what `FeatureStore.historical` or `FeatureStore.online_candidates` gives of the candidate views, by
column name, with None (or nothing) for what is not known. Offline it is the newest row before the instant and there is
nothing to add; online it is the newest row of the last run, and what was posted since is laid over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from rolecall.features.activity import PROFILE_TEXT_COLUMNS
from rolecall.features.candidate_state import ACTIVITY_STATE_COLUMNS, ActivityState, HistoryState
from rolecall.features.context import CandidateContext
from rolecall.features.views import PROFILE_AT, VIEWS, candidate_feature_columns

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNBOUNDED = 1_000_000
_RANKED = frozenset(candidate_feature_columns("ranker_full"))
_NOT_KNOWING = frozenset((*ACTIVITY_STATE_COLUMNS, PROFILE_AT, *(view.counted for view in VIEWS if view.counted)))


class CandidateEvent(Protocol):
    """What `candidate_context` needs of an event."""

    @property
    def job_id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def occurred_at(self) -> datetime: ...
    @property
    def dwell_seconds(self) -> float | None: ...


def candidate_context(
    candidate_id: str,
    row: Mapping[str, Any],
    *,
    at: datetime,
    events: Sequence[CandidateEvent] = (),
    history_events: Sequence[CandidateEvent] | None = None,
    history_length: int | None = None,
) -> CandidateContext:
    """The candidate as known at `at`: the row, and those of the candidate's own `events` that lie before `at`.

    `events` are such as the row's activity does not count yet; `history_events` such as its history does not (None:
    the same). Of two at one instant the one given later is the later.

    `known` is False where no profile is recorded and nothing was done; to be shown something makes nobody known.
    `history_length`: the setting; needed where there are events.
    """
    history = HistoryState.of(row, length=history_length or _UNBOUNDED)
    activity = ActivityState.of(row)
    instant = microseconds(at)
    for event in _until(events, at):
        activity.take(event.kind, event.job_id, microseconds(event.occurred_at))
    for event in _until(events if history_events is None else history_events, at):
        history.take(event.kind, event.job_id, microseconds(event.occurred_at), event.dwell_seconds)
    texts = {name: row.get(name) or None for name in PROFILE_TEXT_COLUMNS if name != "resume_text"}
    numbers = history.activity(instant) | activity.activity(instant)
    told = any(value is not None for name, value in row.items() if name not in _NOT_KNOWING)
    return CandidateContext(
        candidate_id=candidate_id,
        known=told or history.until_us is not None,
        desired_titles=_texts(row, "desired_titles"),
        resume_text=row.get("resume_text") or "",
        skills=_texts(row, "skills"),
        past_employers=_texts(row, "past_employers"),
        lat=row.get("lat"),
        lon=row.get("lon"),
        history=tuple(history.recent),
        applied=frozenset(history.applied),
        dismissed=frozenset(history.dismissed),
        activity={name: number for name, number in numbers.items() if name in _RANKED},
        sightings=activity.sightings(instant),
        profile_us=row.get(PROFILE_AT),
        **texts,
    )


def _until(events: Sequence[CandidateEvent], at: datetime) -> list[CandidateEvent]:
    return sorted((one for one in events if one.occurred_at < at), key=lambda one: one.occurred_at)


def microseconds(at: datetime) -> int:
    """Exact microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(row.get(name) or ())
