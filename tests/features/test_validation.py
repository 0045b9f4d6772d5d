"""The one validator: what it lets pass, what it refuses and that it accounts for every row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.features.schema import CANDIDATE_EVENTS, CANDIDATES, EMPLOYERS, EVENTS, JOBS, MAX_LIST, MAX_SHORT_TEXT
from rolecall.features.validation import REASONS, Validated, validate, validate_events
from rolecall.platform.errors import SchemaError
from rolecall.platform.tables import TableSchema

NOON = "2026-03-01T12:00:00Z"
EVENT = {"event_id": "e", "actor": "candidate", "candidate_id": "c", "job_id": "j", "kind": "view", "occurred_at": NOON}
JOB = {"job_id": "j", "title": "Cook", "updated_at": NOON}
CANDIDATE = {"candidate_id": "c", "updated_at": NOON}
EMPLOYER = {"employer_id": "x", "observed_at": NOON, "name": "X"}


def checked(schema: TableSchema, *rows: dict[str, Any]) -> Validated:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return validate(schema, pl.DataFrame({name: [row.get(name) for row in rows] for name in names}, strict=False))


def test_a_good_row_arrives_typed_with_every_column() -> None:
    made = checked(EVENTS, EVENT | {"position": "3", "dwell_seconds": "1.5"})
    row = made.accepted.to_pylist()[0]
    assert made.accepted.schema.equals(EVENTS.columns)
    assert (row["position"], row["dwell_seconds"], row["propensity"]) == (3, 1.5, None)
    assert row["occurred_at"] == datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schema", "row", "reason"),
    [
        (EVENTS, EVENT | {"event_id": " "}, "missing_key"),
        (EVENTS, EVENT | {"job_id": None}, "missing_key"),
        (EVENTS, EVENT | {"occurred_at": None}, "missing_value"),
        (EVENTS, EVENT | {"occurred_at": "2026-03-01T12:00:00"}, "no_zone"),
        (EVENTS, EVENT | {"kind": "hire"}, "unknown_kind"),
        (EVENTS, EVENT | {"actor": "robot"}, "unknown_kind"),
        (EVENTS, EVENT | {"propensity": "1.5"}, "out_of_range"),
        (EVENTS, EVENT | {"dwell_seconds": "-1"}, "out_of_range"),
        (JOBS, JOB | {"title": None}, "missing_value"),
        (JOBS, JOB | {"salary_min": "-1"}, "negative_salary"),
        (JOBS, JOB | {"salary_min": "2", "salary_max": "1"}, "salary_order"),
        (JOBS, JOB | {"posted_at": NOON, "expires_at": "2026-02-01T00:00:00Z"}, "end_before_start"),
        (JOBS, JOB | {"seniority": "wizard"}, "unknown_word"),
        (JOBS, JOB | {"employment_type": "gig"}, "unknown_word"),
        (JOBS, JOB | {"lat": "91"}, "out_of_range"),
        (JOBS, JOB | {"title": "x" * (MAX_SHORT_TEXT + 1)}, "text_too_long"),
        (JOBS, JOB | {"title": "x\x00"}, "bad_value"),
        (JOBS, JOB | {"skills": ["x" * (MAX_SHORT_TEXT + 1)]}, "text_too_long"),
        (JOBS, JOB | {"skills": ["x"] * (MAX_LIST + 1)}, "list_too_long"),
        (
            CANDIDATES,
            CANDIDATE | {"experience": '[{"started_at":"2020-01-02","ended_at":"2020-01-01"}]'},
            "end_before_start",
        ),
        (CANDIDATES, CANDIDATE | {"visibility": "friends"}, "unknown_word"),
        (CANDIDATES, CANDIDATE | {"consent": "perhaps"}, "bad_value"),
        (CANDIDATES, CANDIDATE | {"hidden_from": ["e"] * (MAX_LIST + 1)}, "list_too_long"),
        (EMPLOYERS, EMPLOYER | {"size": "-1"}, "out_of_range"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason_and_the_next_goes_on(
    schema: TableSchema, row: dict[str, Any], reason: str
) -> None:
    good = {EVENTS.name: EVENT, JOBS.name: JOB, CANDIDATES.name: CANDIDATE, EMPLOYERS.name: EMPLOYER}[schema.name]
    made = checked(schema, row, good)
    assert [(one.row, one.reason) for one in made.refused] == [(1, reason)]
    assert made.accepted.num_rows == 1
    assert made.refused[0].message


def test_longest_allowed_texts_and_descriptions_pass() -> None:
    assert not checked(JOBS, JOB | {"title": "x" * MAX_SHORT_TEXT, "description": "y" * 50_000}).refused


def test_of_one_key_the_latest_time_stays_and_of_equal_times_the_last_row() -> None:
    later = "2026-03-02T12:00:00Z"
    made = checked(JOBS, JOB | {"title": "new", "updated_at": later}, JOB | {"title": "old"}, JOB | {"title": "older"})
    assert (made.accepted["title"].to_pylist(), made.duplicate) == (["new"], 2)
    assert checked(JOBS, JOB | {"title": "a"}, JOB | {"title": "b"}).accepted["title"].to_pylist() == ["b"]


def test_wrong_columns_are_refused_whole_with_at_most_ten_reasons() -> None:
    frame = pl.DataFrame({"job_id": ["j"]} | {f"extra{n}": ["x"] for n in range(20)})
    with pytest.raises(SchemaError, match="title is missing") as refused:
        validate(JOBS, frame)
    assert refused.value.got.count("column ") == 10


def test_the_message_shows_the_value_and_what_to_do() -> None:
    message = checked(EVENTS, EVENT | {"occurred_at": "2026-03-01 12:00"}).refused[0].message
    assert "occurred_at '2026-03-01 12:00'" in message
    assert "zone" in message


def test_posted_events_are_refused_one_by_one_with_their_index() -> None:
    made = validate_events(
        [EVENT | {"colour": "red"}, EVENT, {}, EVENT | {"job_id": "\ud800"}, EVENT | {"kind": ["view"]}]
    )
    assert [(one.row, one.reason) for one in made.refused] == [
        (0, "unknown_field"),
        (2, "missing_key"),
        (3, "bad_utf8"),
        (4, "bad_value"),
    ]
    assert [event["event_id"] for event in made.accepted] == ["e"]
    assert set(made.accepted[0]) == set(EVENTS.columns.names)


def test_no_posted_events_are_no_events() -> None:
    made = validate_events([])
    assert (made.accepted, made.refused, made.duplicate) == ((), (), 0)


JSON = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}))
POSTED = st.fixed_dictionaries(
    {},
    optional={
        "event_id": st.one_of(st.sampled_from(["a", "b", "c"]), JSON),
        "actor": st.one_of(st.just("candidate"), JSON),
        "candidate_id": st.one_of(st.just("c"), JSON),
        "job_id": st.one_of(st.just("j"), JSON),
        "kind": st.one_of(st.sampled_from(CANDIDATE_EVENTS), JSON),
        "occurred_at": st.one_of(st.just(NOON), st.just("2026-03-01"), JSON),
        "position": JSON,
        "propensity": JSON,
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(POSTED, max_size=8))
def test_whatever_is_posted_every_event_is_accepted_duplicate_or_refused_with_a_known_reason(
    events: list[dict[str, Any]],
) -> None:
    made = validate_events(events)
    assert len(made.accepted) + made.duplicate + len(made.refused) == len(events)
    assert {one.reason for one in made.refused} <= set(REASONS)
    assert validate_events(made.accepted).accepted == made.accepted
