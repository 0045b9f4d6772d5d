"""Reasons are true of the person and the job."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pytest

from rolecall.features.context import CandidateContext
from rolecall.serving.reasons import MOST_REASONS, Reasons

COOK = CandidateContext(
    desired_titles=("line cook",), skills=("Knives", "grilling", "origami"), city="Potsdam", region="Brandenburg",
    lat=52.39, lon=13.06, history=("job009", "job013"),
)  # fmt: skip


@pytest.fixture
def reasons(board: Any) -> dict[str, tuple[str, ...]]:
    at: datetime = board.table["updated_at"][0].as_py()
    rows = np.arange(len(board.catalogue), dtype=np.int32)
    explained = Reasons(board.funnel.pairs).explain(board.funnel.prepare(COOK), rows, at=at)
    return dict(zip(board.catalogue.job_ids, explained, strict=True))


def jobs(board: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = board.catalogue.table.to_pylist()
    return rows


def test_shared_skills_are_named_as_the_person_wrote_them_and_no_others(board: Any, reasons: Any) -> None:
    for job in jobs(board):
        shared = [skill for skill in ("Knives", "grilling") if skill.lower() in job["skills"]]
        told = [reason for reason in reasons[job["job_id"]] if reason.startswith("matches your skills")]
        assert told == ([f"matches your skills: {', '.join(shared)}"] if shared else [])


def test_a_wanted_title_is_a_reason_where_the_job_has_it(board: Any, reasons: Any) -> None:
    for job in jobs(board):
        told = 'close to "line cook", which you look for' in reasons[job["job_id"]]
        assert told == job["title"].endswith("line cook")


def test_places_are_told_by_name_or_distance(board: Any, reasons: Any) -> None:
    for job in jobs(board):
        told = set(reasons[job["job_id"]])
        if len(told) < MOST_REASONS and job["city"] == "Potsdam":
            assert "in Potsdam" in told
        if len(told) < MOST_REASONS and job["city"] == "Berlin":
            assert "27 km from Potsdam" in told
        assert not (job["city"] == "Munich" and any("km" in reason for reason in told))


def test_there_are_at_most_four_reasons_and_none_twice(reasons: Any) -> None:
    assert all(len(told) == len(set(told)) <= MOST_REASONS for told in reasons.values())


def test_whoever_something_is_known_of_always_gets_a_reason(board: Any, reasons: Any) -> None:
    assert all(reasons.values())
    at: datetime = board.table["updated_at"][0].as_py()
    rows = np.arange(len(board.catalogue), dtype=np.int32)
    only_looked = CandidateContext(history=("job009",))
    explained = Reasons(board.funnel.pairs).explain(board.funnel.prepare(only_looked), rows, at=at)
    assert all(explained)
    assert any(told[0].startswith("reads like") and told[0].endswith("which you viewed") for told in explained)
