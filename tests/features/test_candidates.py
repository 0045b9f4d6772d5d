"""What becomes of a feature row, and of events it does not count: one context, however they arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.features import candidate_state
from rolecall.features.activity import candidate_activity, candidate_history
from rolecall.features.candidates import candidate_context, microseconds
from rolecall.features.context import CandidateContext
from rolecall.features.schema import CANDIDATE_EVENTS, ENGAGEMENT_EVENTS, EVENTS

AT = datetime(2026, 3, 1, tzinfo=UTC)
BEGIN = AT - timedelta(days=45)
LENGTH = 3


@dataclass(frozen=True)
class Event:
    job_id: str
    kind: str
    occurred_at: datetime = AT - timedelta(hours=1)
    dwell_seconds: float | None = None


def test_what_is_null_is_absent_and_never_zero() -> None:
    context = candidate_context("c", {"skills": ["sql"], "lat": None, "apply_count": None}, at=AT)
    assert context.known
    assert context.skills == ("sql",)
    assert context.activity == {}
    assert context.lat is None


def test_a_row_of_nulls_is_somebody_unknown() -> None:
    assert not candidate_context("c", {"skills": None, "apply_count": None}, at=AT).known


def test_being_shown_something_makes_nobody_known_and_is_remembered() -> None:
    shown = candidate_context("c", {}, at=AT, events=[Event("a", "impression")])
    assert not shown.known
    assert shown.activity["candidate_impressions_1d"] == 0  # an hour before midnight was yesterday
    assert shown.activity["candidate_impressions_7d"] == 1
    assert candidate_context("c", {}, at=AT, events=[Event("a", "click")]).known


def test_an_event_is_not_known_at_its_own_instant() -> None:
    assert candidate_context("c", {}, at=AT, events=[Event("a", "click", AT)]) == candidate_context("c", {}, at=AT)


_INSTANTS = st.integers(1, 45 * 24 * 60 - 1).map(lambda minutes: BEGIN + timedelta(minutes=minutes))
_EVENTS = st.lists(
    st.builds(
        Event,
        job_id=st.sampled_from(["j1", "j2", "j3", "j4", "j 5", "50%", "%0A", "line\nbreak"]),
        kind=st.sampled_from(CANDIDATE_EVENTS),
        occurred_at=_INSTANTS,
        dwell_seconds=st.one_of(st.none(), st.integers(0, 600).map(lambda tenths: tenths / 10)),
    ),
    max_size=30,
    unique_by=lambda event: event.occurred_at,
)


@settings(deadline=None, max_examples=150)
@given(events=_EVENTS, at=_INSTANTS, data=st.data())
def test_a_row_and_what_was_posted_since_give_the_row_of_everything(
    events: list[Event], at: datetime, data: st.DataObject
) -> None:
    """Training reads rows; serving a row drained at any point, and later posts in any order, late ones too."""
    drained = data.draw(st.lists(st.sampled_from(events), unique=True)) if events else []
    run = data.draw(_INSTANTS)
    counted = [event for event in drained if event.occurred_at < run]
    since = data.draw(st.permutations([event for event in events if event not in counted]))
    assert online(_row(counted, at), since, at) == offline(events, at)


@settings(deadline=None, max_examples=60)
@given(events=_EVENTS, at=_INSTANTS)
def test_numbers_are_what_a_slow_reading_of_the_events_gives(events: list[Event], at: datetime) -> None:
    context = offline(events, at)
    past = [event for event in events if event.occurred_at < at]
    for days in (1, 7, 30):
        first = at.replace(hour=0, minute=0) - timedelta(days=days - 1)
        window = [event.kind for event in past if event.occurred_at >= first]
        for kind, name in (("impression", "impressions"), ("view", "views"), ("apply", "applies")):
            assert context.activity.get(f"candidate_{name}_{days}d", 0) == window.count(kind)
    seen = at.replace(hour=0, minute=0) - timedelta(days=13)
    told = [event for event in past if event.kind != "dismiss" and event.occurred_at >= seen]
    assert set(context.sightings) == {event.job_id for event in told}
    for job_id, sighting in context.sightings.items():
        kinds = [event.kind for event in told if event.job_id == job_id]
        assert sighting.shown == kinds.count("impression")
        assert sighting.engaged == any(kind in ENGAGEMENT_EVENTS for kind in kinds)
        assert [sighting.did(kind) for kind in ENGAGEMENT_EVENTS] == [kind in kinds for kind in ENGAGEMENT_EVENTS]
    engaged = [e for e in sorted(past, key=lambda e: e.occurred_at) if e.kind in ENGAGEMENT_EVENTS]
    assert list(context.history) == list(dict.fromkeys(e.job_id for e in reversed(engaged)))[:LENGTH][::-1]
    if engaged:
        hours = (at - engaged[-1].occurred_at).total_seconds() / 3600
        assert abs(context.activity["hours_since_engagement"] - hours) < 1e-6


def test_a_machine_that_sees_jobs_without_end_makes_no_row_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate_state, "MAX_SEEN", 5)
    state = candidate_state.ActivityState()
    for number in range(30):
        at = AT + number * timedelta(hours=2)
        for place in range(4):
            state.take("impression", f"j{number}-{place}", microseconds(at))
        row = dict(zip(candidate_state.ACTIVITY_STATE_COLUMNS, state.row(), strict=True))
        lines = f"{row['seen_before']}\n{row['seen_today']}".split("\n")
        kept = [line.split(" ", 3)[3] for line in lines if line]
        assert len(kept) <= 5
        assert {f"j{number}-{place}" for place in range(4)} <= set(kept)
    assert state.activity(microseconds(at) + 1)["candidate_impressions_7d"] == 120


def offline(events: Sequence[Event], at: datetime) -> CandidateContext:
    """The context at an instant from the newest rows at or before it."""
    return candidate_context("c", _row(events, at), at=at)


def online(row: Mapping[str, Any], events: Sequence[Event], at: datetime) -> CandidateContext:
    return candidate_context("c", row, at=at, events=events, history_length=LENGTH)


def _row(events: Sequence[Event], at: datetime) -> dict[str, Any]:
    """The newest row of both views over these events, as of an instant."""
    empty = pl.DataFrame(EVENTS.columns.empty_table())
    rows = [
        dict.fromkeys(empty.columns)
        | {"event_id": str(number), "actor": "candidate", "candidate_id": "c", "job_id": event.job_id}
        | {"kind": event.kind, "occurred_at": event.occurred_at, "dwell_seconds": event.dwell_seconds}
        for number, event in enumerate(events)
    ]
    table = pl.DataFrame(rows, schema=empty.schema)
    found: dict[str, Any] = {}
    for view in (candidate_history(table, history_length=LENGTH), candidate_activity(table, start=BEGIN)):
        newest = view.filter(pl.col("event_timestamp") <= at).sort("event_timestamp").tail(1)
        found |= newest.row(0, named=True) if newest.height else dict.fromkeys(view.columns)
    return {name: value for name, value in found.items() if name not in ("candidate_id", "event_timestamp")}
