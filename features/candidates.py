"""From feature rows to the CandidateContext that the funnel reads: one function, offline and online.

A row is what `FeatureStore.historical` or `FeatureStore.online_candidates` gives of the candidate views, by
column name, with None (or nothing) for what is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from rolecall.features.activity import PROFILE_TEXT_COLUMNS
from rolecall.features.context import CandidateContext
from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.features.views import HOURS_SINCE_ENGAGEMENT, candidate_feature_columns

_SECONDS_AN_HOUR = 3600.0


class CandidateEvent(Protocol):
    """What `with_events` needs of an event."""

    @property
    def job_id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def occurred_at(self) -> datetime: ...


def candidate_context(candidate_id: str, row: Mapping[str, Any], *, at: datetime) -> CandidateContext:
    """The candidate as known at `at`. `known` is False where no view has anything of them."""
    texts = {name: row.get(name) or None for name in PROFILE_TEXT_COLUMNS if name != "resume_text"}
    return CandidateContext(
        candidate_id=candidate_id,
        known=any(value is not None for value in row.values()),
        desired_titles=_texts(row, "desired_titles"),
        resume_text=row.get("resume_text") or "",
        skills=_texts(row, "skills"),
        lat=row.get("lat"),
        lon=row.get("lon"),
        history=_texts(row, "recent_job_ids"),
        applied=frozenset(_texts(row, "applied_job_ids")),
        dismissed=frozenset(_texts(row, "dismissed_job_ids")),
        activity=_activity(row, at),
        **texts,
    )


def with_events(
    context: CandidateContext,
    events: Sequence[CandidateEvent],
    *,
    at: datetime,
    history_length: int,
    stored_until: datetime | None = None,
) -> CandidateContext:
    """The context at `at` after the candidate's own events, oldest first, as the next run's row will tell it.

    Events that the stored row already counts may be given again. Those up to `stored_until`, the row's newest
    engagement, leave history and counts as they are; a job applied to or dismissed then stays so, however late it
    was posted. Daily snapshots and `mean_dwell_seconds` wait for the next run.
    """
    if not events:
        return context
    history = dict.fromkeys(context.history)
    applied, dismissed = set(context.applied), set(context.dismissed)
    engaged: list[datetime] = []
    for event in events:
        newer = stored_until is None or event.occurred_at > stored_until
        if newer and event.kind in ENGAGEMENT_EVENTS:
            history.pop(event.job_id, None)
            history[event.job_id] = None
            engaged.append(event.occurred_at)
        if event.kind == "apply":
            applied.add(event.job_id)
        if event.kind == "dismiss":
            dismissed.add(event.job_id)
    more = {
        "engagement_count": len(engaged),
        "apply_count": len(applied - context.applied),
        "dismiss_count": len(dismissed - context.dismissed),
    }
    activity = {**context.activity, **{name: context.activity.get(name, 0.0) + n for name, n in more.items()}}
    if engaged:
        activity[HOURS_SINCE_ENGAGEMENT] = (at - engaged[-1]).total_seconds() / _SECONDS_AN_HOUR
    return replace(
        context,
        known=True,
        history=tuple(history)[-history_length:],
        applied=frozenset(applied),
        dismissed=frozenset(dismissed),
        activity=activity,
    )


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(row.get(name) or ())


def _activity(row: Mapping[str, Any], at: datetime) -> dict[str, float]:
    """Known numbers only: a name that is absent is missing, never zero."""
    known = {name: float(row[name]) for name in candidate_feature_columns("ranker_full") if row.get(name) is not None}
    last = row.get("last_engaged_epoch")
    if last is not None:
        known[HOURS_SINCE_ENGAGEMENT] = (at.timestamp() - float(last)) / _SECONDS_AN_HOUR
    return known
