"""A scan of the codes answers as its definition says, and as the index does but for near-ties."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.features.context import CandidateContext
from rolecall.features.job_vectors import JobVectors
from rolecall.kernels.cpp import build
from rolecall.kernels.quantization import quantize_rows
from rolecall.platform.vectors.protocol import DenseQuery, SearchFilter, epoch_us
from rolecall.serving.nearest import ALWAYS, JOBS_A_HIT, NearestJobs
from rolecall.serving.recall import Recall

pytestmark = pytest.mark.skipif(not build.available(), reason="no C++ compiler")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COUNT, WIDTH = 70, 24
GRAIN = 0.02
"""Codes of 8 bits move a cosine by no more than this."""


def made(catalogue: Any, seed: int, ties: bool) -> tuple[Any, JobVectors]:
    """A catalogue's first jobs with drawn vectors, many of them equal where `ties`."""
    random = np.random.default_rng(seed)
    codes = random.integers(-127, 128, (COUNT, WIDTH), np.int8)
    if ties:
        codes = codes[random.integers(0, 4, COUNT)]
    hours = random.integers(-9, 9, (2, COUNT)) * 3.6e9
    posted, expires = epoch_us(NOON) + hours
    posted[random.random(COUNT) < 0.2] = np.nan
    vectors = JobVectors(codes, np.full(COUNT, 0.01, np.float32))
    return replace(catalogue, posted=posted, expires=expires, job_ids=catalogue.job_ids[:COUNT]), vectors


@settings(max_examples=40)
@given(seed=st.integers(0, 999), ties=st.booleans(), limit=st.integers(1, 90), shift=st.integers(-9, 9))
def test_the_best_live_jobs_come_in_order_ties_by_row(
    board: Any, seed: int, ties: bool, limit: int, shift: int
) -> None:
    catalogue, vectors = made(board.catalogue, seed, ties)
    questions = np.random.default_rng(seed).standard_normal((2, WIDTH)).astype(np.float32)
    at, excluded = NOON + timedelta(hours=shift), tuple(range(0, COUNT, 7))
    conditions = SearchFilter(at=at, exclude_rows=excluded)
    nearest = NearestJobs(catalogue, vectors, scan_from=1)
    assert nearest.answers(conditions, limit)
    live = catalogue.live(np.arange(COUNT), epoch_us(at))
    wanted = [row for row in range(COUNT) if live[row] and row not in excluded]
    for hits, question in zip(
        nearest.search([DenseQuery(vector=q) for q in questions], conditions, limit), questions, strict=True
    ):
        asked = quantize_rows(torch.from_numpy(question[None]))
        sums = vectors.codes.astype(np.int64) @ asked.codes[0].numpy().astype(np.int64)
        scores = sums.astype(np.float32) * vectors.inverse_norms
        assert hits.rows.tolist() == sorted(wanted, key=lambda row: (-scores[row], row))[:limit]
        assert hits.scores == pytest.approx(scores[hits.rows] * float(asked.scales[0]), rel=1e-5, abs=1e-6)


def test_what_the_scan_finds_is_as_near_as_what_the_index_finds(board: Any) -> None:
    recall = board.funnel.recall
    vectors = board.funnel.pairs.vectors
    nearest = NearestJobs(board.catalogue, vectors, scan_from=1)
    questions = [DenseQuery(vector=vectors.rows(np.array([row], np.int32))[0]) for row in range(0, 144, 9)]
    conditions = SearchFilter(at=NOON, exclude_rows=(3, 4))
    both = (nearest.search(questions, conditions, 50), recall.index.search(questions, conditions, 50))
    for ours, theirs, question in zip(*both, questions, strict=True):
        near, known = (vectors.cosines(hits.rows, question.vector[:, None])[:, 0] for hits in (ours, theirs))
        assert len(ours.rows) == len(theirs.rows)
        assert np.abs(near - known).max() <= GRAIN


@pytest.mark.parametrize("other", [{"cities": ("Munich",)}, {"remote": True}, {"salary_at_least": 1.0}])
def test_every_other_condition_is_the_indexs(board: Any, other: dict[str, Any]) -> None:
    recall = board.funnel.recall
    scanning = Recall(recall.index, board.catalogue, board.funnel.pairs.vectors, scan_from=1)
    prepared = board.funnel.prepare(CandidateContext(desired_titles=("line cook",), history=("job001",)))
    conditions = SearchFilter(at=NOON, **other)
    assert (
        scanning.retrieve(prepared, conditions, 40).rows.tolist()
        == recall.retrieve(prepared, conditions, 40).rows.tolist()
    )


def test_recall_by_a_scan_has_the_same_questions_and_nearly_the_same_jobs(board: Any) -> None:
    recall = board.funnel.recall
    scanning = Recall(recall.index, board.catalogue, board.funnel.pairs.vectors, scan_from=1)
    for context in (
        CandidateContext(desired_titles=("line cook",), history=("job001",)),
        CandidateContext(desired_titles=("night nurse",)),
        CandidateContext(),
    ):
        prepared = board.funnel.prepare(context)
        one, other = (each.retrieve(prepared, SearchFilter(at=NOON), 40) for each in (scanning, recall))
        assert len(one.rows) == len(other.rows)
        assert set(one.sources.tolist()) == set(other.sources.tolist())
        assert len(set(one.rows.tolist()) & set(other.rows.tolist())) >= 0.9 * len(one.rows)


def test_a_catalogue_much_larger_than_the_answer_is_left_to_the_index(board: Any) -> None:
    count = ALWAYS + 2 * JOBS_A_HIT
    vectors = JobVectors(np.ones((count, 1), np.int8), np.ones(count, np.float32))
    nearest = NearestJobs(board.catalogue, vectors)
    assert nearest.answers(SearchFilter(at=NOON), 2)
    assert not nearest.answers(SearchFilter(at=NOON), 1)
    assert not NearestJobs(board.catalogue, JobVectors(np.ones((9, 1), np.int8), np.ones(9, np.float32))).answers(
        SearchFilter(), 5
    )
