"""Whose features are counted on which day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from rolecall.features.pages import ranked_features
from rolecall.features.schema import JOBS
from rolecall.features.views import VIEWS
from rolecall.pipelines.drift.populations import (
    activity_population,
    count_days,
    job_populations,
    request_population,
    view_populations,
)
from rolecall.pipelines.drift.statistics import FeatureStatistics
from rolecall.pipelines.examples import TrainingSet

MIDNIGHT = datetime(2026, 9, 2, tzinfo=UTC)
DAY = date(2026, 9, 1)


def test_a_views_day_is_the_newest_row_of_each_key_that_has_not_expired(tmp_path: Path) -> None:
    for shape in VIEWS:
        stamps = [MIDNIGHT - timedelta(days=3), MIDNIGHT - timedelta(hours=1), MIDNIGHT, MIDNIGHT + timedelta(hours=1)]
        rows = {f"{shape.entity}_id": ["old", "a", "a", "a"], "event_timestamp": stamps}
        rows |= {name: [0.0, 1.0, 2.0, 3.0] for name in shape.numbers}
        rows |= {name: ["0", "1", "2", "3"] for name in shape.texts}
        rows |= {name: [["0"], ["1"], ["2"], ["3"]] for name in shape.lists}
        pl.DataFrame(rows).write_parquet(tmp_path / f"{shape.name}.parquet")
    for shape, population in zip(VIEWS, view_populations(tmp_path), strict=True):
        found, units = population.rows(DAY)
        expired = bool(shape.ttl) and shape.ttl < timedelta(days=3)
        assert units == (1 if expired else 2)
        assert found.filter(pl.col(f"{shape.entity}_id") == "a")["event_timestamp"].to_list() == [MIDNIGHT]


def jobs() -> pl.LazyFrame:
    told = [
        {"job_id": "gone", "posted_at": MIDNIGHT - timedelta(days=9), "expires_at": MIDNIGHT - timedelta(hours=1)},
        {"job_id": "live", "posted_at": MIDNIGHT - timedelta(days=9), "expires_at": None, "salary_min": 10.0},
        {"job_id": "new", "posted_at": MIDNIGHT - timedelta(hours=2), "expires_at": MIDNIGHT + timedelta(days=1)},
        {"job_id": "later", "posted_at": MIDNIGHT, "expires_at": None},
    ]
    empty = pl.DataFrame(pl.from_arrow(JOBS.columns.empty_table()))
    return pl.concat(
        [empty, pl.DataFrame(told).cast({"posted_at": empty.schema["posted_at"]})], how="diagonal_relaxed"
    ).lazy()


def test_live_jobs_are_those_open_at_the_midnight_and_postings_those_of_the_day() -> None:
    live, posted = job_populations(jobs())
    assert live.rows(DAY)[1] == 2
    assert posted.rows(DAY)[1] == 1
    assert live.rows(DAY)[0]["pay"].to_list() == [10.0, None]


def test_a_days_activity_is_a_row_a_candidate_with_its_own_rate() -> None:
    kinds = ["impression", "impression", "view", "apply", "invite"]
    events = pl.DataFrame(
        {
            "actor": ["candidate"] * 4 + ["employer"],
            "candidate_id": ["a"] * 5,
            "kind": kinds,
            "occurred_at": [MIDNIGHT - timedelta(hours=n + 1) for n in range(5)],
        }
    )
    rows, units = activity_population(events).rows(DAY)
    assert units == 1
    assert rows.select("impression", "view", "apply", "engagement_rate").rows() == [(2, 1, 1, 1.0)]


def test_a_request_is_one_unit_on_its_own_day() -> None:
    columns = ("log_salary", "candidate.apply_count")
    times = np.array([int((MIDNIGHT - timedelta(hours=n)).timestamp() * 1e6) for n in (1, 30)])
    examples = TrainingSet(
        features=np.arange(10, dtype=np.float32).reshape(5, 2),
        columns=columns,
        labels=np.zeros(5, np.int8),
        shown=np.ones(5, np.bool_),
        groups=np.array([2, 3], np.int32),
        times=times,
        held_out=np.zeros(2, np.bool_),
    )
    population = request_population([examples, examples])
    rows, units = population.rows(DAY)
    assert (rows.height, units) == (4, 2)
    assert population.rows(DAY - timedelta(days=1))[1] == 2
    assert population.rows(MIDNIGHT.date())[1] == 0
    assert population.features == ranked_features(columns)


def test_a_column_that_was_empty_at_first_is_counted_once_it_has_values() -> None:
    """A board's first day knows no pay; bins of nothing would never tell of any change in it."""
    postings = [{"job_id": str(n), "posted_at": MIDNIGHT - timedelta(days=9)} for n in range(40)]
    empty = pl.DataFrame(pl.from_arrow(JOBS.columns.empty_table()))
    told = pl.DataFrame(postings).cast({"posted_at": empty.schema["posted_at"]})
    unpaid = pl.concat([empty, told], how="diagonal_relaxed")
    paid = unpaid.with_columns(pl.int_range(40).cast(pl.Float64).alias("salary_min"))
    first = count_days(job_populations(unpaid.lazy())[:1], [DAY], FeatureStatistics())
    assert first.definitions["jobs", "pay"].sketch.blank
    assert count_days(job_populations(unpaid.lazy())[:1], [DAY], first).days == first.days
    tomorrow = [DAY, DAY + timedelta(days=1)]
    later = count_days(job_populations(paid.lazy())[:1], tomorrow, first)
    assert not later.definitions["jobs", "pay"].sketch.blank
    assert {len(day.columns["pay"].counts) for day in later.of("jobs")} == {31}
