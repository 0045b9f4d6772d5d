"""The events table as slates: nothing invented, nothing silently lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from rolecall.features.schema import EVENTS
from rolecall.pipelines.evaluation.counterfactual import read_slates
from rolecall.pipelines.market import MarketConfig, Memory, World
from rolecall.platform.errors import InputError

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def event(kind: str, request: str | None, job: str, position: int | None = 1, **more: object) -> dict[str, object]:
    said = {"actor": "candidate", "candidate_id": "c1", "occurred_at": NOON, "propensity": 0.5} | more
    name = f"{kind}-{request}-{said['candidate_id']}-{job}-{position}"
    return {"event_id": name, "kind": kind, "request_id": request, "job_id": job, "position": position, **said}


def table(*events: dict[str, object]) -> pl.DataFrame:
    schema = pl.DataFrame(EVENTS.columns.empty_table()).schema
    return pl.DataFrame([{name: one.get(name) for name in schema} for one in events], schema=schema)


def test_slates_keep_order_propensities_and_rewards() -> None:
    events = table(
        event("impression", "r1", "b", 2, propensity=0.25),
        event("impression", "r1", "a", 1, propensity=0.75),
        event("apply", "r1", "b", 2),
        event("apply", "r1", "b", 2, occurred_at=NOON + timedelta(minutes=1), event_id="again"),
        event("click", "r1", "a", 1),
    )
    slates = read_slates(events, start=NOON - DAY, end=NOON + DAY)
    assert (slates.request_ids, slates.candidate_ids, slates.job_ids) == (("r1",), ("c1",), (("a", "b"),))
    assert slates.logged.propensity.tolist() == [[0.75, 0.25]]
    assert slates.logged.reward.tolist() == [[0.0, 1.0]]
    assert slates.asked == [("c1", NOON)]
    clicked = read_slates(events, start=NOON - DAY, end=NOON + DAY, reward="click", slots=1)
    assert (clicked.job_ids, clicked.logged.reward.tolist()) == ((("a",),), [[1.0]])


def test_what_cannot_be_used_is_dropped_and_counted() -> None:
    slates = read_slates(
        table(
            event("impression", "good", "a"),
            event("impression", "blind", "a", propensity=None),
            event("impression", "holed", "a", 1),
            event("impression", "holed", "b", 3),
            event("impression", "twice", "a", 1),
            event("impression", "twice", "a", 2),
            event("impression", None, "a"),
            event("impression", "old", "a", occurred_at=NOON - 2 * DAY),
            event("impression", "late", "a", occurred_at=NOON + DAY),
            event("invite", "good", "z", actor="employer"),
        ),
        start=NOON - DAY,
        end=NOON + DAY,
    )
    assert slates.request_ids == ("good",)
    assert slates.dropped == {"a job twice": 1, "no propensity": 1, "positions missing or repeated": 1}


def test_a_response_to_another_visitor_or_after_the_end_is_no_reward() -> None:
    slates = read_slates(
        table(
            event("impression", "r1", "a"),
            event("impression", "r1", "a", candidate_id="c2"),
            event("apply", "r1", "a", candidate_id="c2"),
            event("impression", "r2", "a"),
            event("apply", "r2", "a", occurred_at=NOON + DAY),
        ),
        start=NOON - DAY,
        end=NOON + DAY,
    )
    assert list(zip(slates.request_ids, slates.candidate_ids, strict=True)) == [
        ("r1", "c1"),
        ("r1", "c2"),
        ("r2", "c1"),
    ]
    assert slates.logged.reward[:, 0].tolist() == [0, 1, 0]
    assert slates.logged.cluster.tolist() == [0, 1, 0]


def test_a_log_without_impressions_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="no request with usable impressions"):
        read_slates(table(event("view", None, "a")), start=NOON - DAY, end=NOON + DAY)


def test_the_laboratorys_events_give_back_what_was_shown() -> None:
    world = World(MarketConfig(jobs=300, candidates=120, employers=20, occupations=20, days=7, slots=5, seed=2))
    day = world.days()[5]
    visits = world.visits(day)
    shown, propensity = world.show(visits, Memory())
    done = world.respond(visits, shown, propensity, Memory())
    since = datetime(day.year, day.month, day.day, tzinfo=UTC)
    slates = read_slates(pl.DataFrame(done.events), start=since, end=since + 2 * DAY)
    assert slates.dropped == {}
    assert len(slates) == len(visits)
    by_request = {name: row for row, name in enumerate(slates.request_ids)}
    for row, (who, visit) in enumerate(zip(visits.candidate.tolist(), visits.visit.tolist(), strict=True)):
        found = by_request[f"req-{who:06d}-{visit:04d}"]
        real = shown[row] >= 0
        assert [world.job_number(job) for job in slates.job_ids[found]] == shown[row][real].tolist()
        np.testing.assert_allclose(slates.logged.propensity[found][: real.sum()], propensity[row][real])
        assert slates.logged.reward[found][: real.sum()].tolist() == done.applied[row][real].tolist()
