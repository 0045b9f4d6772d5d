"""Sessions of a plain view log, and their blocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.pipelines.evaluation.sessions import Session, block_starts, collect_sessions
from rolecall.platform.errors import InputError

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
Views = list[tuple[str, str, int]]
VIEWS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("wxyz"), st.integers(0, 8)), max_size=30)


def log(views: Views) -> pl.DataFrame:
    rows = [
        {"actor": "candidate", "candidate_id": who, "job_id": job, "kind": "view", "at": hour}
        for who, job, hour in views
    ]
    columns = dict.fromkeys(("actor", "candidate_id", "job_id", "kind"), pl.String) | {"at": pl.Int64}
    at = pl.lit(BEGIN) + pl.duration(hours=pl.col("at"))
    return pl.DataFrame(rows, schema=columns).with_columns(at.alias("occurred_at")).drop("at")


@given(views=VIEWS)
@settings(deadline=None)
def test_a_session_is_the_first_views_of_distinct_jobs_and_the_last_is_the_answer(views: Views) -> None:
    found = {session.candidate_id: session for session in collect_sessions(log(views))}
    for who in "abc":
        first: dict[str, int] = {}
        for name, job, hour in views:
            if name == who:
                first[job] = min(hour, first.get(job, 99))
        order = sorted(first, key=lambda job: (first[job], job))
        assert (who in found) == (len(order) > 1)
        if len(order) > 1:
            assert (*found[who].history, found[who].job_id) == tuple(order)
            assert found[who].at == BEGIN + timedelta(hours=first[order[-1]])


@given(views=VIEWS, seed=st.randoms())
@settings(deadline=None)
def test_the_order_of_the_log_changes_nothing(views: Views, seed: object) -> None:
    shuffled = list(views)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    assert collect_sessions(log(shuffled)) == collect_sessions(log(views))


@given(views=VIEWS)
@settings(deadline=None)
def test_nothing_from_the_end_on_is_known(views: Views) -> None:
    end = BEGIN + timedelta(hours=5)
    early = [view for view in views if view[2] < 5]
    assert collect_sessions(log(views), end=end) == collect_sessions(log(early))
    assert all(one.at >= end for one in collect_sessions(log(views), start=end))


def sessions(count: int) -> list[Session]:
    return [
        Session(candidate_id=f"c{n:03}", at=BEGIN + timedelta(hours=6 * n), job_id="j", history=("i",))
        for n in range(count)
    ]


def test_blocks_part_the_sessions_and_all_but_the_first_have_something_to_learn_from() -> None:
    asked = sessions(40)
    instants = [session.at for session in asked]
    starts = block_starts(asked, instants, blocks=4, enough=5)
    assert len(starts) == 4
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    for place in starts[1:]:
        assert sum(instant < asked[place].at - timedelta(days=1) for instant in instants) >= 5


def test_a_log_too_short_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="3 sessions"):
        block_starts(sessions(3), [BEGIN], blocks=2, enough=5)


def test_a_session_asks_the_judge_for_its_last_job() -> None:
    assert sessions(1)[0].target.job_ids == ("j",)
