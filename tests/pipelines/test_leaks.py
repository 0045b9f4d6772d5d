"""The leak audit finds leaks planted in the feature code, and nothing in ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from rolecall.pipelines.leaks import Sampled, sample_requests
from rolecall.pipelines.materialize import feature_sources

if TYPE_CHECKING:
    from conftest import World

Frames = Mapping[str, pl.DataFrame]


@pytest.fixture(scope="module")
def sampled(world: World) -> list[Sampled]:
    start = world.start + timedelta(days=6)
    return sample_requests(world.events, world.pairs, start=start, end=world.as_of, count=2)


def others_views(events: pl.DataFrame, candidates: pl.DataFrame, employers: pl.DataFrame, **asked: Any) -> Frames:
    """Planted: an employer's size counts how often all applicants viewed jobs so far."""
    whole = dict(feature_sources(events, candidates, employers, **asked))
    count = float(events.filter(pl.col("kind") == "view").height)
    whole["employer_rating"] = whole["employer_rating"].with_columns(pl.lit(count).alias("employer_size"))
    return whole


def total_towards_everyone(
    events: pl.DataFrame, candidates: pl.DataFrame, employers: pl.DataFrame, **asked: Any
) -> Frames:
    """Planted: a candidate's total is drawn towards the mean of all candidates."""
    whole = dict(feature_sources(events, candidates, employers, **asked))
    total = pl.col("candidate_applies_total")
    whole["candidate_activity"] = whole["candidate_activity"].with_columns(((total + total.mean()) * 50).round())
    return whole


def knows_the_response(events: pl.DataFrame, candidates: pl.DataFrame, employers: pl.DataFrame, **asked: Any) -> Frames:
    """Planted: history rows are known an hour before their event."""
    whole = dict(feature_sources(events, candidates, employers, **asked))
    early = pl.col("event_timestamp") - timedelta(hours=1)
    whole["candidate_history"] = whole["candidate_history"].with_columns(early)
    return whole


def snapshot_of_the_running_day(
    events: pl.DataFrame, candidates: pl.DataFrame, employers: pl.DataFrame, **asked: Any
) -> Frames:
    """Planted: a day's snapshot is stamped with the midnight that begins it."""
    whole = dict(feature_sources(events, candidates, employers, **asked))
    early = pl.col("event_timestamp") - timedelta(days=1)
    whole["job_activity"] = whole["job_activity"].with_columns(early)
    return whole


def test_our_features_do_not_leak(world: World, sampled: list[Sampled]) -> None:
    assert len(sampled) == 2
    assert world.leak_audit().findings(world.events, sampled) == ()


@pytest.mark.parametrize(
    ("planted", "column"),
    [
        (others_views, ("others", "job.employer_size")),
        (total_towards_everyone, ("others", "candidate.candidate_applies_total")),
        (snapshot_of_the_running_day, ("future", "job.job_impressions_1d")),
    ],
)
def test_a_planted_leak_is_named(world: World, sampled: list[Sampled], planted: Any, column: tuple[str, str]) -> None:
    found = world.leak_audit(make_sources=planted).findings(world.events, sampled)
    assert column in {(one.kind, one.column) for one in found}


def test_features_that_know_the_response_are_named(world: World) -> None:
    """Asked of a request that was answered within the hour."""
    answered = world.events.filter(pl.col("kind") == "click", pl.col("request_id").is_not_null()).sort("occurred_at")[
        -1
    ]
    shown = world.events.filter(pl.col("request_id") == answered["request_id"][0], pl.col("kind") == "impression")
    request = Sampled(
        candidate_id=answered["candidate_id"][0],
        at=shown["occurred_at"].min(),
        rows=world.pairs.catalogue.rows_of(shown["job_id"].to_list()),
    )
    assert world.leak_audit().findings(world.events, [request]) == ()
    found = world.leak_audit(make_sources=knows_the_response).findings(world.events, [request])
    assert ("future", "candidate.engagement_count") in {(one.kind, one.column) for one in found}
