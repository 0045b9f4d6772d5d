"""Evaluation of people for jobs: slices, and who is shown at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rolecall.pipelines.evaluation.judge import FUNNEL, LISTED, MAIN_METRIC, Evaluation
from rolecall.pipelines.evaluation.people_judge import PEOPLE_BASELINES, PeopleJudge
from rolecall.pipelines.evaluation.people_targets import PeopleTarget
from rolecall.pipelines.evaluation.slices import FEWEST
from rolecall.pipelines.people_outcomes import MUTUAL
from rolecall.serving.people_funnel import PeopleFunnel

if TYPE_CHECKING:
    from conftest import World


@pytest.fixture(scope="module")
def asked(world: World, people: PeopleFunnel) -> tuple[PeopleTarget, ...]:
    """Thirty jobs, each with two of the people who could be shown, and one that the release does not hold."""
    found = []
    for number, job in enumerate(world.pairs.catalogue.job_ids[:30]):
        names = people.pairs.people.candidate_ids[number : number + 2]
        found.append(PeopleTarget(job_id=job, at=world.as_of, candidate_ids=names, labels=(MUTUAL, MUTUAL)))
    gone = PeopleTarget(job_id="gone", at=world.as_of, candidate_ids=("nobody",), labels=(MUTUAL,))
    return (*found, gone)


@pytest.fixture(scope="module")
def evaluation(people: PeopleFunnel, asked: tuple[PeopleTarget, ...]) -> Evaluation:
    return PeopleJudge(targets=asked, rounds=100).evaluate(people)


def test_who_is_shown_at_all_is_told_of_every_system(people: PeopleFunnel, evaluation: Evaluation) -> None:
    assert set(evaluation.catalogue) == {FUNNEL, *PEOPLE_BASELINES}
    for system, table in evaluation.catalogue.items():
        shown = {name for names in evaluation.lists[system] for name in names[:10]}
        assert table["coverage@10"] == pytest.approx(len(shown) / people.size, rel=0.2)
        assert 0 <= table["gini_exposure@10"] <= 1
        assert 0 <= table["diversity@10"] <= 2
        assert all(len(names) <= LISTED for names in evaluation.lists[system])
    assert evaluation.lists[FUNNEL][-1] == ()


def test_slices_of_jobs_and_of_people_hold_the_values_of_their_targets(evaluation: Evaluation) -> None:
    kinds = {name.partition("=")[0] for name in evaluation.slices}
    assert kinds >= {"place", "seniority", "person"}
    main = evaluation.systems[FUNNEL][MAIN_METRIC]
    for name, values in evaluation.slices.items():
        known = ~np.isnan(values)
        assert FEWEST <= known.sum() < len(main)
        if not name.startswith("person="):
            assert (values[known] == main[known]).all()
    assert json.dumps(evaluation.to_dict(), allow_nan=False)


def test_without_a_target_there_is_a_report_that_says_so(people: PeopleFunnel) -> None:
    empty = PeopleJudge(targets=(), rounds=100).evaluate(people)
    assert empty.metrics() == {"targets": 0}
    assert json.dumps(empty.to_dict(), allow_nan=False)
