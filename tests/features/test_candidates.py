"""What becomes of a feature row, and of events newer than it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from rolecall.features.activity import candidate_history
from rolecall.features.candidates import candidate_context, with_events
from rolecall.features.schema import EVENTS

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
    once = with_events(context, events, at=AT, history_length=3)
    assert once.history == ("c", "a", "d")
    assert once.applied == {"d"}
    assert once.dismissed == {"e"}
    again = with_events(once, events, at=AT, history_length=3, stored_until=AT)
    assert (again.applied, again.dismissed) == (once.applied, once.dismissed)
    assert again.activity["engagement_count"] == once.activity["engagement_count"]


def test_somebody_unknown_is_known_after_an_event() -> None:
    context = candidate_context("c", {}, at=AT)
    assert with_events(context, [Event("a", "click")], at=AT, history_length=3).known
    assert not with_events(context, [], at=AT, history_length=3).known


def test_posted_events_give_the_row_that_the_next_run_gives() -> None:
    """Training reads rows, serving a row and what was posted since: both must say the same."""
    kinds = ("view", "apply", "dismiss", "click", "apply", "view", "dismiss", "save")
    told = [Event(f"j{n % 5}", kind, AT + timedelta(hours=n)) for n, kind in enumerate(kinds)]
    now = AT + timedelta(days=1)
    for count in range(len(told) + 1):
        stored = _row(told[:count])
        last = [event.occurred_at for event in told[:count] if event.kind != "dismiss"]
        served = with_events(
            candidate_context("c", stored, at=now),
            told,
            at=now,
            history_length=3,
            stored_until=max(last, default=None),
        )
        assert served == candidate_context("c", _row(told), at=now)


def _row(events: list[Event]) -> dict[str, Any]:
    """The newest row of the history view over these events."""
    empty = pl.DataFrame(EVENTS.columns.empty_table())
    rows = [
        dict.fromkeys(empty.columns)
        | {"event_id": str(number), "actor": "candidate", "candidate_id": "c", "job_id": event.job_id}
        | {"kind": event.kind, "occurred_at": event.occurred_at}
        for number, event in enumerate(events)
    ]
    history = candidate_history(pl.DataFrame(rows, schema=empty.schema), history_length=3)
    return dict(history.row(-1, named=True)) if history.height else {}
