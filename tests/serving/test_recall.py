"""What recall promises, over a real index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.features.context import CandidateContext
from rolecall.platform.vectors.protocol import Hits, SearchFilter
from rolecall.serving.recall import QUESTIONS, RANK_OFFSET, Retrieved, fuse

RANKINGS = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=15), min_size=1, max_size=4)


def hits(rows: list[int]) -> Hits:
    return Hits(rows=np.array(rows, np.int32), scores=np.linspace(1, 0, len(rows)).astype(np.float32))


def retrieve(board: Any, context: CandidateContext, limit: int = 40, **conditions: Any) -> Retrieved:
    found: Retrieved = board.funnel.recall.retrieve(board.funnel.prepare(context), SearchFilter(**conditions), limit)
    return found


@given(rankings=RANKINGS)
def test_a_fused_score_is_the_weighted_sum_of_reciprocal_ranks(rankings: list[list[int]]) -> None:
    weights = [float(n + 1) for n in range(len(rankings))]
    fused = fuse([hits(rows) for rows in rankings], weights, limit=100)
    expected: dict[int, float] = {}
    for weight, rows in zip(weights, rankings, strict=True):
        for rank, row in enumerate(rows, 1):
            expected[row] = expected.get(row, 0.0) + weight / (RANK_OFFSET + rank)
    assert sorted(fused.rows.tolist()) == sorted(expected)
    assert fused.scores.tolist() == pytest.approx([expected[row] for row in fused.rows.tolist()])
    assert (np.diff(fused.scores) <= 0).all()


def test_equal_scores_are_ordered_by_row_and_the_limit_is_kept() -> None:
    fused = fuse([hits([9, 5]), hits([5, 9]), hits([2])], [1.0, 1.0, 0.5], limit=2)
    assert fused.rows.tolist() == [5, 9]


def test_the_marks_say_which_questions_found_a_job() -> None:
    fused = fuse([hits([1, 2]), hits([2, 3])], [1.0, 1.0], limit=9, bits=[1, 4])
    assert dict(zip(fused.rows.tolist(), fused.sources.tolist(), strict=True)) == {1: 1, 2: 5, 3: 4}


def test_jobs_of_ones_own_work_come_first(board: Any) -> None:
    from_profile = retrieve(board, CandidateContext(desired_titles=("line cook",), skills=("knives",)))
    from_history = retrieve(board, CandidateContext(history=("job001", "job005")))
    for found in (from_profile, from_history):
        titles = [board.catalogue.titles[row] for row in found.rows[:15]]
        assert sum("cook" in title for title in titles) >= 12


def test_the_same_question_gives_the_same_answer(board: Any) -> None:
    context = CandidateContext(desired_titles=("nurse",), history=("job002",), city="Munich")
    one, two = retrieve(board, context), retrieve(board, context)
    assert one.rows.tolist() == two.rows.tolist()
    assert one.scores.tolist() == two.scores.tolist()
    assert len(set(one.rows.tolist())) == len(one.rows) <= 40


def test_every_question_is_asked_of_somebody_with_profile_and_history(board: Any) -> None:
    context = CandidateContext(desired_titles=("nurse",), history=("job002",))
    asked = [
        name for bit, name in enumerate(QUESTIONS) if np.bitwise_or.reduce(retrieve(board, context).sources) >> bit & 1
    ]
    assert asked == [name for name in QUESTIONS if name != "anything"]


def test_conditions_hold_for_every_job_that_comes_back(board: Any) -> None:
    context = CandidateContext(desired_titles=("line cook",), history=("job001",))
    found = retrieve(board, context, cities=("Munich",), remote=True)
    assert len(found.rows)
    for row in found.rows:
        job = board.catalogue.job(int(row))
        assert (job["city"], job["remote"]) == ("Munich", True)


def test_a_stranger_is_shown_jobs_all_the_same(board: Any) -> None:
    assert len(retrieve(board, CandidateContext(), limit=25).rows) == 25


def test_words_that_find_few_jobs_are_filled_up_behind_them(board: Any) -> None:
    found = retrieve(board, CandidateContext(city="Munich"), limit=144)
    cities = [board.catalogue.cities[row] for row in found.rows]
    assert len(cities) > cities.count("Munich") > 0
    assert cities[:5] == ["Munich"] * 5


def test_nothing_that_meets_the_conditions_is_an_empty_answer(board: Any) -> None:
    assert retrieve(board, CandidateContext(history=("job001",)), cities=("Atlantis",)).rows.tolist() == []
