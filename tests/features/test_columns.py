"""A mapping's section applied to rows, without files."""

from __future__ import annotations

import hashlib
from typing import Any

import polars as pl
import pytest

from rolecall.features.columns import MEMBERS, POSITION, fold_rows, map_rows
from rolecall.features.mapping import Mapping
from rolecall.features.validation import REASON, with_reserved

NOON = "2026-03-01T12:00:00Z"
JOB = {"job_id": "Id", "title": "Role", "updated_at": {"constant": NOON}}


def mapping(columns: dict[str, Any], **section: Any) -> Mapping:
    table = {"target": "jobs", "files": ["*"], "columns": columns} | section
    return Mapping.model_validate({"name": "test", "nulls": ["", "NA"], "table": [table]})


def mapped(given: Mapping, **columns: list[str | None]) -> pl.DataFrame:
    frame = with_reserved(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)))
    return map_rows(given.table[0], given, frame)


def folded(given: Mapping, **columns: list[str | None]) -> list[dict[str, Any]]:
    parts = mapped(given, **columns)
    parts = parts.with_columns(pl.int_range(parts.height, eager=True).alias(POSITION)).filter(pl.col(REASON).is_null())
    return fold_rows(given.table[0], parts).to_dicts()


@pytest.mark.parametrize(
    ("column", "name", "given", "expected"),
    [
        ({"skills": {"from": "X", "split": "|"}}, "skills", "sql| python |", ["sql", "python"]),
        ({"country": {"constant": "DE"}}, "country", "anything", "DE"),
        ({"remote": {"constant": True}}, "remote", "anything", True),
        ({"description": {"concat": ["X", "Id"], "separator": ", "}}, "description", "some", "some, 1"),
        ({"description": {"concat": ["X", "Id"]}}, "description", None, "1"),
        ({"description": {"from": "X", "html": True}}, "description", r"<p>R&amp;D\r<br>team</p>", "R&D team"),
        ({"employment_type": {"from": "X", "values": {"FT": "full_time"}}}, "employment_type", "FT", "full_time"),
        ({"city": "X"}, "city", " NA ", None),
    ],
)
def test_each_way_to_make_a_column(column: dict[str, Any], name: str, given: str | None, expected: object) -> None:
    row = mapped(mapping(JOB | column), Id=["1"], Role=["Cook"], X=[given]).to_dicts()[0]
    assert (row[name], row[REASON]) == (expected, None)


def test_a_hash_is_the_same_on_any_machine_and_absent_where_a_part_is() -> None:
    given = mapping({"job_id": {"hash": ["Id", "Role"]}, "title": "Role", "updated_at": {"constant": NOON}})
    rows = mapped(given, Id=["1", "1", "NA"], Role=["Cook", "Cook", "Cook"]).to_dicts()
    assert rows[0]["job_id"] == rows[1]["job_id"] == hashlib.sha256(b'["1", "Cook"]').hexdigest()[:16]
    assert rows[2][REASON] == "missing_key"


def test_a_row_whose_end_is_before_its_start_is_refused_and_unknown_ends_are_not() -> None:
    given = mapping(JOB, ordered=[["From", "To"]])
    froms = ["2026-03-02", "2026-03-02", "2026-03-02", "x"]
    rows = mapped(given, Id=list("1234"), Role=["Cook"] * 4, From=froms, To=["2026-03-01", "2026-03-02", "NA", "y"])
    assert rows[REASON].to_list() == ["end_before_start", None, None, None]


PERSON = {
    "candidate_id": "User",
    "desired_titles": {"from": "Wish", "collect": "list"},
    "city": {"from": "Town", "collect": "last"},
    "updated_at": {"from": "At", "collect": "max"},
    "experience": {"fields": {"title": "Job", "started_at": "Start"}, "collect": "list"},
}
FOLD: dict[str, Any] = {"target": "candidates", "fold": ["User"], "order_by": "Start"}


def test_folding_makes_one_row_of_all_that_share_a_key() -> None:
    rows = folded(
        mapping(PERSON, **FOLD),
        User=["a", "b", "a", "a"],
        Wish=["chef", None, None, "chef"],
        Town=["Rome", "Bonn", "Oslo", None],
        At=[NOON, NOON, "2026-03-02T00:00:00Z", NOON],
        Job=["cook", None, "waiter", None],
        Start=["2020-01-01", None, "2010-01-01", None],
    )
    first = rows[0]
    assert [row["candidate_id"] for row in rows] == ["a", "b"]
    assert (first["desired_titles"], first["city"], first["updated_at"].day) == (["chef"], "Rome", 2)
    assert [entry["title"] for entry in first["experience"]] == ["waiter", "cook"]
    assert (first[MEMBERS], rows[1]["experience"]) == ([0, 2, 3], [])


def test_a_leading_minus_turns_the_folding_order_round_and_numbers_sort_as_numbers() -> None:
    rows = folded(
        mapping(PERSON, **FOLD | {"order_by": "-N"}),
        User=["a"] * 3,
        At=[NOON] * 3,
        Job=["two", "ten", "one"],
        N=["2", "10", "1"],
    )
    assert [entry["title"] for entry in rows[0]["experience"]] == ["ten", "two", "one"]


def test_a_row_without_its_fold_key_is_refused() -> None:
    assert mapped(mapping(PERSON, **FOLD), User=["a", None], At=[NOON, NOON])[REASON].to_list() == [None, "missing_key"]
