"""Whom an employer is shown: nobody who did not agree, whatever was agreed, asked or taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rolecall.features.context import JobQuestion
from rolecall.features.people import People
from rolecall.features.people_pairs import PeoplePairs
from rolecall.features.schema import CANDIDATES, EVENTS
from rolecall.pipelines.people import build_people, open_people, people_as_of
from rolecall.platform.errors import SchemaError
from rolecall.platform.settings import PolicySettings, VectorSettings
from rolecall.platform.vectors.backends import open_index
from rolecall.platform.vectors.protocol import SearchFilter
from rolecall.serving import parts
from rolecall.serving.people_funnel import PeopleAnswer, PeopleFunnel, PeopleRequest
from rolecall.serving.people_loader import untrained_part
from rolecall.serving.people_policy import PeoplePolicy, Permission
from rolecall.serving.people_recall import PeopleRecall
from rolecall.serving.profiles import TextVectors
from rolecall.serving.ranker import ColumnSum

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
JOB = "job005"
"""A line cook's job of the board: JOBS_A_KIND of each kind of work."""

PEOPLE = 24
SKILLS = (("sql", "python"), ("knives", "grilling", "sauces"), ("triage", "care"), ("routes",))
TITLES = ("data engineer", "line cook", "night nurse", "truck driver")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What one person allows and did."""

    consent: bool | None = True
    visibility: str | None = None
    hidden_from: tuple[str, ...] = ()
    applied: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()


def candidates(wishes: Sequence[Wish]) -> pl.DataFrame:
    rows = [
        dict.fromkeys(CANDIDATES.columns.names)
        | {
            "candidate_id": f"c{number:02}",
            "desired_titles": [TITLES[number % 4]],
            "skills": list(SKILLS[number % 4]),
            "city": "Berlin" if number % 3 else "Munich",
            "region": "Berlin",
            "country": "DE",
            "lat": 52.5,
            "lon": 13.4,
            "experience": [
                {"title": TITLES[number % 4], "company": "x", "started_at": NOON.date() - timedelta(days=2200),
                 "ended_at": NOON.date(), "description": "secret words"}
            ],
            "resume_text": f"secret resume of {number}",
            "seniority": "mid",
            "consent": wish.consent,
            "visibility": wish.visibility,
            "hidden_from": list(wish.hidden_from) or None,
            "updated_at": NOON - timedelta(days=30),
        }
        for number, wish in enumerate(wishes)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=pl.DataFrame(CANDIDATES.columns.empty_table()).schema)


def events(wishes: Sequence[Wish]) -> pl.DataFrame:
    told = [(number, job, "candidate", "apply") for number, wish in enumerate(wishes) for job in wish.applied]
    told += [(number, job, "employer", "reject") for number, wish in enumerate(wishes) for job in wish.closed]
    rows = [
        dict.fromkeys(EVENTS.columns.names)
        | {
            "event_id": f"e{place}",
            "actor": actor,
            "candidate_id": f"c{number:02}",
            "job_id": job,
            "kind": kind,
            "occurred_at": NOON - timedelta(days=2),
        }
        for place, (number, job, actor, kind) in enumerate(told)
    ]
    return pl.DataFrame(rows, schema=pl.DataFrame(EVENTS.columns.empty_table()).schema)


@contextmanager
def people_of(board: Any, wishes: Sequence[Wish]) -> Iterator[PeopleFunnel | None]:
    """The real funnel over people with these wishes; None where the release would recommend nobody."""
    jobs = pl.DataFrame(board.table).select("job_id", "employer_id")
    table = people_as_of(candidates(wishes), events(wishes), jobs)
    if not table.num_rows:
        yield None
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        build_people(table, board.funnel.pairs, board.encoder.encode, VectorSettings(), folder)
        people, words, vectors = open_people(folder, board.funnel.pairs)
        index = open_index(VectorSettings(), folder / parts.PEOPLE_INDEX, scratch=folder / "scratch")
        part = untrained_part()
        try:
            yield PeopleFunnel(
                release_id="small",
                pairs=PeoplePairs(people, words, vectors, board.funnel.pairs),
                texts=TextVectors(board.encoder),
                recall=PeopleRecall(index),
                coarse=ColumnSum(part.coarse_columns),
                fine=ColumnSum(part.fine_columns),
                policy=PeoplePolicy(PolicySettings(), people, vectors),
                recall_limit=20,
                coarse_limit=10,
                trained=False,
            )
        finally:
            index.close()


def ask(funnel: PeopleFunnel, question: JobQuestion | None = None, **over: Any) -> PeopleAnswer:
    asked = question or funnel.pairs.question(JOB)
    assert asked is not None
    return funnel.recommend(PeopleRequest(context=asked, at=NOON, request_id="r1", **{"limit": PEOPLE} | over))


def shown(answer: PeopleAnswer) -> list[str]:
    return [item.candidate_id for item in answer.items]


@pytest.fixture(scope="module")
def everybody(board: Any) -> Iterator[PeopleFunnel]:
    with people_of(board, [Wish()] * PEOPLE) as funnel:
        assert funnel is not None
        yield funnel


@pytest.fixture
def with_wishes(board: Any) -> Callable[..., Any]:
    return lambda *wishes: people_of(board, [*wishes, *[Wish()] * (PEOPLE - len(wishes))])


def firm_of(board: Any, job: str) -> str:
    return str(board.catalogue.job(board.catalogue.row_of(job))["employer_id"])


def other_job(board: Any, *, same_firm: bool) -> str:
    firm = firm_of(board, JOB)
    jobs = [job for job in board.catalogue.job_ids if job != JOB]
    return next(job for job in jobs if (firm_of(board, job) == firm) == same_firm)


def test_cooks_are_found_for_a_cooks_job_and_told_why(everybody: PeopleFunnel) -> None:
    answer = ask(everybody, limit=6)
    rows = [int(name[1:]) for name in shown(answer)]
    assert {number % 4 for number in rows} == {1}
    assert any(reason.startswith("has ") for reason in answer.items[0].reasons)
    assert any("line cook for 6 years" in reason for reason in answer.items[0].reasons)
    assert [item.position for item in answer.items] == [1, 2, 3, 4, 5, 6]
    assert [stage.stage for stage in answer.trace] == ["features", "recall", "coarse", "fine", "rerank"]


def test_no_reason_holds_a_word_of_a_resume(everybody: PeopleFunnel) -> None:
    told = " ".join(reason for item in ask(everybody).items for reason in item.reasons)
    assert told
    assert "secret" not in told


def test_filters_hold_for_every_person(everybody: PeopleFunnel) -> None:
    found = shown(ask(everybody, conditions=SearchFilter(cities=("munich",), skills=("Grilling", "SQL"))))
    assert {int(name[1:]) % 3 for name in found} == {0}
    assert {int(name[1:]) % 4 for name in found} == {0, 1}
    assert shown(ask(everybody, conditions=SearchFilter(active_since=NOON))) == []
    assert shown(ask(everybody, conditions=SearchFilter(lat=52.5, lon=13.4, radius_km=5)))


def test_a_job_the_release_does_not_hold_is_answered_from_its_content(everybody: PeopleFunnel) -> None:
    answer = ask(everybody, JobQuestion(job_id="new", title="night nurse", skills=("triage",)), limit=3)
    assert {int(name[1:]) % 4 for name in shown(answer)} == {2}
    assert answer.cold


def test_who_applied_is_left_out_or_comes_first(board: Any, with_wishes: Callable[..., Any]) -> None:
    with with_wishes(Wish(applied=(JOB,)), Wish(applied=(JOB,), closed=(JOB,))) as funnel:
        assert not {"c00", "c01"} & set(shown(ask(funnel)))
        wanted = replace(funnel.pairs.question(JOB), exclude_applicants=False)
        found = shown(ask(funnel, wanted))
        assert found[0] == "c00"
        assert "c01" not in found


@pytest.mark.parametrize(
    "newer",
    [
        Permission(consent=False),
        Permission(consent=True, visibility="none"),
        Permission(consent=True, visibility="applied"),
    ],
)
def test_a_permission_taken_back_after_the_release_was_built_holds(board: Any, newer: Permission) -> None:
    class TakenBack:
        def permissions(self, candidate_ids: Sequence[str]) -> list[Permission | None]:
            return [newer if name in ("c01", "c05") else None for name in candidate_ids]

    with people_of(board, [Wish()] * PEOPLE) as funnel:
        assert funnel is not None
        before = shown(ask(funnel, limit=4))
        assert {"c01", "c05"} & set(before)
        funnel.permissions = TakenBack()
        after = ask(funnel, limit=4)
        assert not {"c01", "c05"} & set(shown(after))
        assert len(after.items) == 4
        hidden = Permission(consent=True, hidden_from=(firm_of(board, JOB).upper(),))
        assert not funnel.policy.permits(0, hidden, funnel.pairs.question(JOB), NOON.timestamp() * 1e6)


def test_a_table_with_somebody_who_did_not_agree_is_refused(board: Any) -> None:
    table = people_as_of(
        candidates([Wish()] * 2), events([]), pl.DataFrame(board.table).select("job_id", "employer_id")
    )
    consent = table.schema.get_field_index("consent")
    for refused in ([True, False], [True, None]):
        with pytest.raises(SchemaError, match="may not be shown"):
            People.from_table(table.set_column(consent, "consent", [refused]), board.catalogue)


def wishes_of(board: Any) -> st.SearchStrategy[list[Wish]]:
    firm, same, other = firm_of(board, JOB), other_job(board, same_firm=True), other_job(board, same_firm=False)
    wish = st.builds(
        Wish,
        consent=st.sampled_from([True, True, False, None]),
        visibility=st.sampled_from([None, "all", "applied", "none"]),
        hidden_from=st.sampled_from([(), (), (firm,), ("Other firm",), (f" {firm.upper()}", "Other firm")]),
        applied=st.sampled_from([(), (), (same,), (other,), (JOB,), (same, JOB)]),
        closed=st.sampled_from([(), (), (), (JOB,), (other,)]),
    )
    return st.lists(wish, min_size=6, max_size=12)


def may_see(wish: Wish, board: Any, *, firm: str | None, exclude_applicants: bool) -> bool:
    """The rule said again, person by person."""
    if wish.consent is not True or wish.visibility == "none" or JOB in wish.closed:
        return False
    if firm is None:
        return (
            not wish.hidden_from and wish.visibility != "applied" and not (exclude_applicants and JOB in wish.applied)
        )
    if any(name.strip().lower() == firm.lower() for name in wish.hidden_from):
        return False
    if exclude_applicants and JOB in wish.applied:
        return False
    return wish.visibility != "applied" or any(firm_of(board, job) == firm for job in wish.applied)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_exactly_those_are_shown_who_allow_it(board: Any, data: st.DataObject) -> None:
    wishes = data.draw(wishes_of(board))
    named, exclude = data.draw(st.booleans()), data.draw(st.booleans())
    firm = firm_of(board, JOB) if named else None
    expected = {
        f"c{number:02}"
        for number, wish in enumerate(wishes)
        if may_see(wish, board, firm=firm, exclude_applicants=exclude)
    }
    with people_of(board, wishes) as funnel:
        if funnel is None:
            assert not expected
            return
        question = replace(funnel.pairs.question(JOB), employer_id=firm, exclude_applicants=exclude)
        assert set(shown(ask(funnel, question))) == expected


def test_propensities_are_of_a_distribution_when_exploring(board: Any) -> None:
    with people_of(board, [Wish()] * PEOPLE) as funnel:
        assert funnel is not None
        funnel.policy.settings = PolicySettings(exploration=0.5)
        answer = ask(funnel, limit=5)
        assert all(0 < item.propensity <= 1 for item in answer.items)
        assert np.isfinite([item.score for item in answer.items]).all()
