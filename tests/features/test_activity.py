"""The source tables of the feature views, against a slow and obvious reading of the same events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from rolecall.features import activity
from rolecall.features.activity import (
    JOB_ACTIVITY_COLUMNS,
    TIMESTAMP,
    candidate_activity,
    candidate_history,
    candidate_profile,
    job_activity,
)
from rolecall.features.candidate_state import ACTIVITY_STATE_COLUMNS
from rolecall.features.schema import CANDIDATES, ENGAGEMENT_EVENTS, EVENTS

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=40)
KINDS = ("impression", "view", "click", "save", "apply", "dismiss")


def frame(rows: list[dict[str, object]]) -> pl.DataFrame:
    empty = pl.DataFrame(EVENTS.columns.empty_table())
    whole = [dict.fromkeys(empty.columns) | {"actor": "candidate"} | row for row in rows]
    return pl.DataFrame(whole, schema=empty.schema)


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    rng = np.random.default_rng(5)
    rows = [
        {
            "event_id": f"e{number:04}",
            "candidate_id": f"c{rng.integers(6)}",
            "job_id": f"j{rng.integers(12)}",
            "kind": str(rng.choice(KINDS)),
            "occurred_at": START + timedelta(hours=float(rng.integers(0, 24 * 38 * 4)) / 4),
            "dwell_seconds": float(rng.integers(1, 90)),
        }
        for number in range(900)
    ]
    return frame([*rows, rows[0] | {"event_id": "x", "actor": "employer", "kind": "invite"}])


def known_before(events: pl.DataFrame, candidate: str, at: datetime) -> list[dict[str, object]]:
    mine = [
        e
        for e in events.to_dicts()
        if e["candidate_id"] == candidate and e["actor"] == "candidate" and e["occurred_at"] < at
    ]
    return sorted(mine, key=lambda e: (e["occurred_at"], e["event_id"]))


def test_history_holds_the_distinct_jobs_engaged_with_strictly_before_the_newest_last(events: pl.DataFrame) -> None:
    rows = candidate_history(events, history_length=4)
    for at in [START + timedelta(days=d, hours=h) for d in (1, 9, 20, 38) for h in (0, 6, 7)]:
        for candidate in ("c0", "c3"):
            past = known_before(events, candidate, at)
            engaged = [e["job_id"] for e in past if e["kind"] in ENGAGEMENT_EVENTS]
            expected = list(dict.fromkeys(reversed(engaged)))[:4][::-1]
            row = rows.filter(pl.col("candidate_id") == candidate, pl.col("event_timestamp") <= at).tail(1)
            found = row["recent_job_ids"].to_list()[0] if row.height else []
            assert found == expected
            if row.height:
                assert set(row["applied_job_ids"][0]) == {e["job_id"] for e in past if e["kind"] == "apply"}
                assert set(row["dismissed_job_ids"][0]) == {e["job_id"] for e in past if e["kind"] == "dismiss"}
                assert row["engagement_count"][0] == len(engaged)


def test_events_at_one_instant_make_one_row(events: pl.DataFrame) -> None:
    rows = candidate_history(events, history_length=4)
    assert not rows.select("candidate_id", "event_timestamp").is_duplicated().any()


@pytest.mark.parametrize("days", [1, 7, 30])
def test_snapshots_count_whole_days_before_their_midnight(events: pl.DataFrame, days: int) -> None:
    jobs = job_activity(events, start=START, end=END)
    own = events.filter(pl.col("actor") == "candidate")
    for row in jobs.sample(40, seed=1).to_dicts():
        stamp = row["event_timestamp"]
        assert stamp == stamp.replace(hour=0, minute=0, second=0, microsecond=0)
        window = own.filter(
            pl.col("job_id") == row["job_id"],
            pl.col("occurred_at") >= stamp - timedelta(days=days),
            pl.col("occurred_at") < stamp,
        )
        assert row[f"job_engagements_{days}d"] == window["kind"].is_in(ENGAGEMENT_EVENTS).sum()
        assert row[f"job_applies_{days}d"] == (window["kind"] == "apply").sum()
        so_far = own.filter(pl.col("job_id") == row["job_id"], pl.col("occurred_at") < stamp, pl.col("kind") == "apply")
        assert row["job_applies_total"] == so_far.height
        assert row["job_applicants_total"] == so_far["candidate_id"].n_unique()
        daily = row["job_engagements_7d"] / 7 + 1
        assert row["job_velocity"] == pytest.approx((row["job_engagements_1d"] + 1) / daily)


def test_blocks_of_keys_give_the_same_snapshots(events: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = job_activity(events, start=START, end=END)
    for rows in (1, 7, 10_000):
        monkeypatch.setattr(activity, "_BLOCK_ROWS", rows)
        assert job_activity(events, start=START, end=END).sort(whole.columns[:2]).equals(whole.sort(whole.columns[:2]))


def test_other_candidates_never_move_a_candidates_own_rows(events: pl.DataFrame) -> None:
    mine = events.filter(pl.col("candidate_id") == "c2")
    for make in (
        lambda e: candidate_history(e, history_length=5),
        lambda e: candidate_activity(e, start=START),
    ):
        everyone = make(events).filter(pl.col("candidate_id") == "c2").sort("event_timestamp")
        assert everyone.equals(make(mine).sort("event_timestamp"))


def test_before_the_start_only_the_last_row_of_a_candidate_is_kept(events: pl.DataFrame) -> None:
    whole = candidate_activity(events, start=START).sort("candidate_id", "event_timestamp")
    start = START + timedelta(days=20)
    part = candidate_activity(events, start=start)
    last = whole.filter(pl.col("event_timestamp") <= start).group_by("candidate_id", maintain_order=True).tail(1)
    kept = pl.concat([last, whole.filter(pl.col("event_timestamp") > start)])
    assert part.sort("candidate_id", "event_timestamp").equals(kept.sort("candidate_id", "event_timestamp"))


def test_no_events_give_empty_tables_with_every_column() -> None:
    none = frame([])
    assert candidate_history(none, history_length=3).schema["event_timestamp"] == TIMESTAMP
    assert candidate_activity(none, start=START).columns[2:] == list(ACTIVITY_STATE_COLUMNS)
    assert job_activity(none, start=START, end=END).columns[2:] == list(JOB_ACTIVITY_COLUMNS)


def test_past_positions_stand_in_for_a_missing_resume() -> None:
    empty = pl.DataFrame(CANDIDATES.columns.empty_table())
    jobs = [{"title": "cook"}, {"title": None}, {"title": "cook"}, {"title": "waiter"}]
    career = [
        {field: job.get(field) for field in ("title", "company", "started_at", "ended_at", "description")}
        for job in jobs
    ]
    rows = [
        dict.fromkeys(empty.columns) | {"candidate_id": "a", "updated_at": START, "experience": career},
        dict.fromkeys(empty.columns) | {"candidate_id": "b", "updated_at": START, "resume_text": "chef"},
    ]
    profile = candidate_profile(pl.DataFrame(rows, schema=empty.schema))
    assert profile["resume_text"].to_list() == ["cook; waiter", "chef"]
    assert profile["skills"].to_list() == [[], []]
