"""How an event log becomes requests to learn from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from rolecall.features.schema import EVENTS
from rolecall.pipelines.requests import HELD_OUT_PERCENT, REQUEST_SCHEMA, choose_requests, collect_requests

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=2)


def log(*rows: tuple[str, str, str, float, str | None]) -> pl.DataFrame:
    """Rows of (candidate, job, kind, hours after START, request)."""
    empty = pl.DataFrame(EVENTS.columns.empty_table())
    told = [
        dict.fromkeys(empty.columns)
        | {
            "event_id": f"e{number}",
            "actor": "candidate",
            "candidate_id": candidate,
            "job_id": job,
            "kind": kind,
            "occurred_at": START + timedelta(hours=hours),
            "request_id": request,
        }
        for number, (candidate, job, kind, hours, request) in enumerate(rows)
    ]
    return pl.DataFrame(told, schema=empty.schema)


def labels(events: pl.DataFrame, **window: datetime) -> dict[tuple[str, str], int]:
    rows = collect_requests(events, start=window.get("start", START), end=window.get("end", END))
    assert rows.schema == REQUEST_SCHEMA
    return {(row["request"], row["job_id"]): row["label"] for row in rows.to_dicts()}


def test_a_shown_job_carries_the_strongest_response_to_its_request() -> None:
    events = log(
        ("c", "a", "impression", 1, "r"),
        ("c", "b", "impression", 1, "r"),
        ("c", "d", "impression", 1, "r"),
        ("c", "a", "click", 1.1, "r"),
        ("c", "a", "apply", 1.2, "r"),
        ("c", "b", "dismiss", 1.2, "r"),
        ("c", "d", "save", 1.2, "another"),
    )
    assert {job: label for (name, job), label in labels(events).items() if name == "r"} == {"a": 3, "b": 0, "d": 0}


def test_one_request_id_for_two_people_mixes_nothing_of_theirs() -> None:
    events = log(
        ("c", "a", "impression", 1, "r"),
        ("d", "a", "impression", 2, "r"),
        ("d", "b", "impression", 2, "r"),
        ("d", "a", "apply", 2.1, "r"),
        ("e", "a", "click", 2.2, "r"),
    )
    rows = collect_requests(events, start=START, end=END)
    found = {(who, job): label for who, job, label in rows.select("candidate_id", "job_id", "label").iter_rows()}
    assert found == {("c", "a"): 0, ("d", "a"): 3, ("d", "b"): 0, ("e", "a"): 1}
    assert rows.group_by("request").agg(pl.col("candidate_id").n_unique(), pl.col("at").n_unique()).select(
        pl.col("candidate_id").max(), pl.col("at").max()
    ).row(0) == (1, 1)
    assert "r" in rows.filter(pl.col("candidate_id") == "c")["request"].to_list()


def test_nothing_outside_the_window_counts() -> None:
    events = log(("c", "a", "impression", 1, "r"), ("c", "a", "apply", 49, "r"), ("c", "b", "impression", 48, "late"))
    assert labels(events) == {("r", "a"): 0}
    assert labels(events, start=START + timedelta(hours=2)) == {}


def test_in_a_view_log_each_first_engagement_is_a_request_of_its_own() -> None:
    events = log(
        ("c", "a", "view", 1, None),
        ("c", "a", "view", 2, None),
        ("c", "b", "view", 3, None),
        ("d", "a", "view", 1, None),
    )
    rows = collect_requests(events, start=START, end=END)
    assert rows["request"].n_unique() == 3
    assert not rows["shown"].any()
    first = rows.filter(pl.col("candidate_id") == "c", pl.col("job_id") == "a")
    assert first["at"].to_list() == [START + timedelta(hours=1)]


def test_a_response_to_a_shown_job_is_no_second_request() -> None:
    events = log(("c", "a", "impression", 1, "r"), ("c", "a", "click", 1.1, "r"))
    assert collect_requests(events, start=START, end=END)["request"].to_list() == ["r"]


def test_an_employers_event_is_no_request() -> None:
    events = log(("c", "a", "invite", 1, None)).with_columns(pl.lit("employer").alias("actor"))
    assert collect_requests(events, start=START, end=END).is_empty()


def many() -> pl.DataFrame:
    return log(
        *[("c", f"j{n}", kind, n / 10, f"r{n}") for n in range(300) for kind in ("impression", "click")[: 1 + n % 2]]
    )


def test_which_requests_are_chosen_does_not_depend_on_the_rest_of_the_log() -> None:
    rows = collect_requests(many(), start=START, end=END)
    chosen = set(choose_requests(rows, limit=50, seed=1)["request"])
    assert len(chosen) == 50
    fewer = choose_requests(rows.filter(pl.col("request") != max(chosen)), limit=49, seed=1)
    assert set(fewer["request"]) == chosen - {max(chosen)}
    assert set(choose_requests(rows, limit=50, seed=2)["request"]) != chosen


def test_requests_without_a_response_are_kept_only_for_calibration() -> None:
    rows = choose_requests(collect_requests(many(), start=START, end=END), limit=1000, seed=1)
    silent = (
        rows.group_by("request").agg(pl.col("label").max(), pl.col("held_out").first()).filter(pl.col("label") == 0)
    )
    assert silent.height
    assert silent["held_out"].all()


def test_the_calibration_fold_is_about_its_share() -> None:
    rows = collect_requests(many(), start=START, end=END)
    assert abs(rows["held_out"].mean() * 100 - HELD_OUT_PERCENT) < 8
