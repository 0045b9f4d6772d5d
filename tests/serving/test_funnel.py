"""What the funnel promises of every reply."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from rolecall.features.context import CandidateContext
from rolecall.platform.vectors.protocol import SearchFilter
from rolecall.serving.funnel import FunnelReply, FunnelRequest, SnapshotJobFeatures
from rolecall.serving.profiles import ProfileVectors

NURSE = CandidateContext(
    candidate_id="n", known=True, desired_titles=("night nurse",), skills=("triage",), city="Berlin",
    history=("job002", "job006"), applied=frozenset({"job010"}), dismissed=frozenset({"job014"}),
)  # fmt: skip


@pytest.fixture
def at(board: Any) -> datetime:
    noon: datetime = board.table["updated_at"][0].as_py()
    return noon


def ask(board: Any, context: CandidateContext, at: datetime, **over: Any) -> FunnelReply:
    reply: FunnelReply = board.funnel.recommend(FunnelRequest(context=context, at=at, **{"request_id": "r"} | over))
    return reply


def test_a_person_gets_jobs_of_her_work_in_order_of_position(board: Any, at: datetime) -> None:
    reply = ask(board, NURSE, at)
    assert len(reply.items) == 10
    assert [item.position for item in reply.items] == list(range(1, 11))
    assert sum("nurse" in item.title for item in reply.items) >= 8
    assert all(0 <= item.score <= 1 and item.propensity == 1 for item in reply.items)
    assert reply.release_id == "small"
    assert not reply.cold


def test_nothing_seen_applied_for_dismissed_or_dead_is_recommended(board: Any, at: datetime) -> None:
    shown = {item.job_id for item in ask(board, NURSE, at, limit=50).items}
    assert not shown & {*NURSE.history, *NURSE.applied, *NURSE.dismissed}
    assert not shown & {"job000", "job001"}
    later = {item.job_id for item in ask(board, NURSE, at + timedelta(days=30), limit=50).items}
    assert later == set()


def test_each_stage_is_counted_from_all_jobs_down_to_the_reply(board: Any, at: datetime) -> None:
    trace = ask(board, NURSE, at, limit=7).trace
    assert [stage.stage for stage in trace] == ["features", "recall", "coarse", "fine", "rerank"]
    assert [(stage.count_in, stage.count_out) for stage in trace[1:]] == [(144, 60), (60, 30), (30, 30), (30, 7)]
    assert all(stage.milliseconds >= 0 for stage in trace)


def test_a_limit_above_the_funnels_widths_is_filled(board: Any, at: datetime) -> None:
    assert len(ask(board, NURSE, at, limit=45).items) == 45


def test_conditions_hold_for_every_item(board: Any, at: datetime) -> None:
    reply = ask(board, NURSE, at, conditions=SearchFilter(cities=("Munich",)))
    assert len(reply.items)
    assert {item.place for item in reply.items} == {"Munich, Bavaria"}


def test_a_stranger_is_answered_and_the_reply_says_so(board: Any, at: datetime) -> None:
    reply = ask(board, CandidateContext(), at)
    assert reply.cold
    assert len(reply.items) == 10
    assert all(reason == "remote" or reason.startswith("posted") for i in reply.items for reason in i.reasons)


def test_the_same_request_gives_the_same_reply_but_for_the_time_it_took(board: Any, at: datetime) -> None:
    one, two = ask(board, NURSE, at), ask(board, NURSE, at)
    assert one.items == two.items


def test_the_stages_asked_one_by_one_rank_as_the_whole_does(board: Any, at: datetime) -> None:
    prepared = board.funnel.prepare(NURSE)
    retrieved = board.funnel.retrieve(prepared, at=at)
    ranked = board.funnel.rank(prepared, board.funnel.cut(prepared, retrieved.rows, at=at), at=at)
    whole = board.funnel.rank_all(NURSE, at=at)
    assert ranked.rows.tolist() == whole.rows.tolist()
    np.testing.assert_allclose(ranked.scores, whole.scores, rtol=1e-5)
    assert (np.diff(ranked.scores) <= 0).all()
    assert (np.diff(ranked.probabilities) <= 0).all()


def test_job_features_are_read_for_the_rows_that_are_ranked(board: Any, at: datetime) -> None:
    source = SnapshotJobFeatures({"rating": np.arange(5, dtype=np.float32)})
    assert source.read(np.array([4, 1], np.int32), at=at)["rating"].tolist() == [4.0, 1.0]


def test_a_profile_is_encoded_once_and_the_oldest_is_forgotten(board: Any) -> None:
    board.encoder.calls = 0
    profiles = ProfileVectors(board.encoder, kept=2)
    cook, nurse, clerk = (CandidateContext(desired_titles=(title,)) for title in ("cook", "nurse", "clerk"))
    assert profiles.of(CandidateContext()) is None
    first = profiles.of(cook)
    assert profiles.of(replace(cook, history=("job001",))) is first
    assert board.encoder.calls == 1
    for person in (nurse, clerk, cook):
        profiles.of(person)
    assert board.encoder.calls == 4
