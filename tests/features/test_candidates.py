"""What becomes of a feature row, and of events newer than it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rolecall.features.candidates import candidate_context, with_events

AT = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Event:
    job_id: str
    kind: str
    occurred_at: datetime = AT


def test_what_is_null_is_absent_and_never_zero() -> None:
    context = candidate_context("c", {"skills": ["sql"], "lat": None, "apply_count": None}, at=AT)
    assert context.known
    assert context.skills == ("sql",)
    assert context.activity == {}
    assert context.lat is None


def test_a_row_of_nulls_is_somebody_unknown() -> None:
    assert not candidate_context("c", {"skills": None, "apply_count": None}, at=AT).known


def test_time_since_the_last_engagement_is_counted_to_the_request() -> None:
    row = {"last_engaged_epoch": (AT - timedelta(hours=5)).timestamp()}
    assert candidate_context("c", row, at=AT).activity == {"hours_since_engagement": 5.0}


def test_newer_events_extend_the_history_and_are_idempotent() -> None:
    context = candidate_context("c", {"recent_job_ids": ["a", "b", "c"]}, at=AT)
    events = [Event("a", "click"), Event("d", "apply"), Event("e", "dismiss"), Event("f", "impression")]
    once = with_events(context, events, history_length=3)
    assert once.history == ("c", "a", "d")
    assert once.applied == {"d"}
    assert once.dismissed == {"e"}
    assert with_events(once, events, history_length=3) == once


def test_somebody_unknown_is_known_after_an_event() -> None:
    context = candidate_context("c", {}, at=AT)
    assert with_events(context, [Event("a", "click")], history_length=3).known
    assert not with_events(context, [], history_length=3).known
