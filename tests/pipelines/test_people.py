"""People for jobs, from the tables to trained rankers, on the small marketplace."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from rolecall.features.context import JobQuestion
from rolecall.features.people import People
from rolecall.features.people_columns import PEOPLE_COLUMNS
from rolecall.features.people_pairs import LOOKBACK, PeoplePairs
from rolecall.features.schema import EVENTS
from rolecall.pipelines.evaluation.people_targets import collect_people_targets
from rolecall.pipelines.knowledge import Window
from rolecall.pipelines.leaks import LeakDetector, PeopleLeakAudit
from rolecall.pipelines.people import build_people, open_people, people_as_of, profiles_of
from rolecall.pipelines.people_outcomes import APPLIED, ENGAGED, INVITED, MUTUAL, Outcomes
from rolecall.pipelines.people_training import JobRequest, job_requests, people_training_set
from rolecall.platform.settings import PolicySettings
from rolecall.serving.people_policy import PeoplePolicy

if TYPE_CHECKING:
    from conftest import World


@dataclass(frozen=True, kw_only=True)
class Side:
    """The people of the small marketplace, all of whom agreed."""

    candidates: pl.DataFrame
    jobs: pl.DataFrame
    table: pa.Table
    pairs: PeoplePairs

    @property
    def policy(self) -> PeoplePolicy:
        return PeoplePolicy(PolicySettings(), self.pairs.people, self.pairs.vectors)


@pytest.fixture(scope="module")
def side(world: World, tmp_path_factory: pytest.TempPathFactory) -> Side:
    candidates = world.candidates.with_columns(pl.lit(True).alias("consent"), pl.lit(None).alias("visibility"))
    jobs = pl.DataFrame(world.pairs.catalogue.table).select("job_id", "employer_id")
    table = people_as_of(candidates, world.events, jobs)
    folder = tmp_path_factory.mktemp("people")
    build_people(table, world.pairs, world.embed, world.settings.vectors, folder)
    people, words, vectors = open_people(folder, world.pairs)
    return Side(candidates=candidates, jobs=jobs, table=table, pairs=PeoplePairs(people, words, vectors, world.pairs))


@pytest.fixture(scope="module")
def outcomes(world: World, side: Side) -> Outcomes:
    return Outcomes(world.events, side.pairs.people, world.pairs.catalogue)


@pytest.fixture(scope="module")
def requests(world: World, side: Side, outcomes: Outcomes) -> list[JobRequest]:
    return job_requests(outcomes, side.pairs, side.policy, start=world.start, end=world.as_of, seed=7)


def everybody(side: Side) -> np.ndarray:
    return np.arange(len(side.pairs.people), dtype=np.int32)


def test_a_pair_is_the_same_whichever_side_looks(world: World, side: Side) -> None:
    """Columns that both directions define say the same of a pair, but for the profile's vector rounded to int8."""
    same = {name: name for name in ("full_profile", "title_desired", "title_resume", "same_city", "same_region",
            "same_country", "distance_km", "remote", "seniority_gap", "skill_overlap", "skill_share", "skill_cover",
            "skill_count", "log_salary", "dense_profile")}  # fmt: skip
    rows = np.array([0, 7, 100, 250], np.int32)
    contexts = profiles_of(side.table)
    questions = [side.pairs.question(world.pairs.catalogue.job_ids[row]) for row in rows]
    for person in (0, 11, 40):
        context = contexts[person]
        vector = side.pairs.vectors.rows(np.array([person], np.int32))[0]
        there = world.pairs.matrix(
            world.pairs.prepare(context, vector), rows, at=world.as_of, job_features={}, columns=tuple(same)
        )
        one = np.array([person], np.int32)
        for seen, question in zip(there, questions, strict=True):
            assert question is not None
            here = side.pairs.matrix(side.pairs.prepare(question), one, at=world.as_of, columns=tuple(same.values()))[0]
            both = ~np.isnan(here) & ~np.isnan(seen)
            assert both.sum() >= 8
            np.testing.assert_allclose(here[both], seen[both], rtol=2e-3, atol=2e-3)


def test_one_person_alone_has_the_columns_they_have_among_all(world: World, side: Side) -> None:
    question = side.pairs.question(world.pairs.catalogue.job_ids[3])
    assert question is not None
    prepared, columns = side.pairs.prepare(question), tuple(PEOPLE_COLUMNS)
    together = side.pairs.matrix(prepared, everybody(side), at=world.as_of, columns=columns)
    alone = [
        side.pairs.matrix(prepared, np.array([row], np.int32), at=world.as_of, columns=columns)[0]
        for row in everybody(side)[::7]
    ]
    np.testing.assert_allclose(np.stack(alone), together[::7], rtol=1e-5, atol=1e-6)
    known = {name: together[:, place] for place, name in enumerate(columns[:9])}
    again = side.pairs.matrix(prepared, everybody(side), at=world.as_of, columns=columns, known=known)
    np.testing.assert_array_equal(again, together)


def test_a_job_described_in_words_has_the_columns_of_the_same_job_in_the_release(world: World, side: Side) -> None:
    row = np.array([5], np.int32)
    held = side.pairs.question(world.pairs.catalogue.job_ids[5])
    assert held is not None
    described: JobQuestion = replace(held, job_id="another")
    columns = tuple(name for name in PEOPLE_COLUMNS if name not in ("viewed_job", "saved_job", "applied_employer"))
    vector = world.pairs.vectors.rows(row)[0]
    first = side.pairs.matrix(side.pairs.prepare(held), everybody(side), at=world.as_of, columns=columns)
    second = side.pairs.matrix(side.pairs.prepare(described, vector), everybody(side), at=world.as_of, columns=columns)
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def test_training_rows_are_what_serving_would_have_seen_at_that_instant(
    world: World, side: Side, requests: list[JobRequest], tmp_path: Any
) -> None:
    """A release built at the request's instant, from what was known then, gives the same rows."""
    request = max(requests, key=lambda one: one.at)
    row = requests.index(request)
    examples = people_training_set(requests, side.pairs)
    ends = np.cumsum(examples.groups)
    trained = examples.features[ends[row] - examples.groups[row] : ends[row]]
    past = world.events.filter(pl.col("occurred_at") < request.at)
    people = People.from_table(people_as_of(side.candidates, past, side.jobs), world.pairs.catalogue)
    served = PeoplePairs(people, side.pairs.words, side.pairs.vectors, world.pairs)
    question = served.question(world.pairs.catalogue.job_ids[request.job])
    assert question is not None
    found = served.matrix(served.prepare(question), request.rows, at=request.at, columns=tuple(PEOPLE_COLUMNS))
    np.testing.assert_allclose(found, trained, rtol=1e-5, atol=1e-6)


def test_nobody_in_a_request_had_applied_or_was_unknown(side: Side, requests: list[JobRequest]) -> None:
    assert len(requests) > 20
    assert max(request.labels.max() for request in requests) >= APPLIED
    people = side.pairs.people
    for request in requests:
        job_id, at_us = side.pairs.jobs.catalogue.job_ids[request.job], request.at.timestamp() * 1e6
        assert not np.isin(request.rows, people.applied_jobs.before(job_id, at_us)).any()
        assert (people.known_since[request.rows] <= at_us).all()
        assert len(np.unique(request.rows)) == len(request.rows)


def told(*rows: tuple[int, str, str]) -> pl.DataFrame:
    """Events of one person and job: hour, actor, kind."""
    from rolecall.features.schema import EVENTS

    first = pl.datetime(2026, 8, 20, time_zone="UTC", time_unit="us")
    frame = pl.DataFrame(rows, schema=["hour", "actor", "kind"], orient="row").with_columns(
        (first + pl.duration(hours="hour")).alias("occurred_at")
    )
    blank = pl.DataFrame(EVENTS.columns.empty_table())
    return pl.concat([blank, frame.drop("hour")], how="diagonal_relaxed")


@pytest.mark.parametrize(
    ("rows", "label"),
    [
        ([(1, "candidate", "impression")], 0),
        ([(1, "candidate", "view")], ENGAGED),
        ([(1, "candidate", "view"), (2, "candidate", "apply")], APPLIED),
        ([(1, "employer", "invite")], 0),
        ([(1, "employer", "invite"), (2, "candidate", "click")], INVITED),
        ([(1, "candidate", "click"), (2, "employer", "invite")], ENGAGED),
        ([(1, "candidate", "apply"), (2, "employer", "shortlist")], MUTUAL),
        ([(1, "employer", "invite"), (2, "candidate", "apply"), (3, "employer", "reply")], MUTUAL),
        ([(1, "candidate", "apply"), (2, "employer", "reject")], 0),
        ([(1, "candidate", "apply"), (2, "employer", "shortlist"), (3, "employer", "reject")], 0),
        ([(1, "candidate", "apply"), (2, "employer", "reject"), (3, "employer", "hire")], MUTUAL),
        ([(1, "candidate", "dismiss")], 0),
    ],
)
def test_a_label_says_what_both_sides_wanted(side: Side, rows: list[Any], label: int) -> None:
    catalogue, people = side.pairs.jobs.catalogue, side.pairs.people
    events = told(*rows).with_columns(
        pl.lit(catalogue.job_ids[0]).alias("job_id"), pl.lit(people.candidate_ids[0]).alias("candidate_id")
    )
    found = Outcomes(events, people, catalogue).between(0, -np.inf, np.inf)
    assert found.labels.tolist() == [label]


def test_targets_are_mutual_outcomes_that_began_in_the_window(world: World, side: Side, outcomes: Outcomes) -> None:
    start = world.as_of - timedelta(days=10)
    targets = collect_people_targets(world.events, side.pairs.people.candidate_ids, start=start, end=world.as_of)
    assert targets
    for target in targets:
        row = side.pairs.jobs.catalogue.row_of(target.job_id)
        assert row is not None
        found = outcomes.between(row, target.at.timestamp() * 1e6, world.as_of.timestamp() * 1e6)
        labels = dict(zip((side.pairs.people.candidate_ids[r] for r in found.rows), found.labels, strict=True))
        assert target.at >= start
        assert [labels[name] for name in target.candidate_ids] == list(target.labels)
        assert min(target.labels) >= INVITED


def audit(side: Side, **over: Any) -> PeopleLeakAudit:
    return PeopleLeakAudit(candidates=side.candidates, jobs=side.jobs, pairs=side.pairs, **over)


def test_the_columns_of_people_do_not_leak(world: World, side: Side, requests: list[JobRequest]) -> None:
    assert audit(side).findings(world.events, requests[:: len(requests) // 3]) == ()


def test_the_training_set_of_people_shows_no_leak_and_a_planted_one_is_named(
    world: World, side: Side, requests: list[JobRequest]
) -> None:
    examples = people_training_set(requests, side.pairs)
    window = Window(start=world.start, end=world.as_of)
    assert LeakDetector().findings(examples, window=window) == ()
    assert examples.origin is not None
    features = examples.features.copy()
    features[:, examples.columns.index("positions")] = examples.origin.items
    (found,) = LeakDetector().findings(replace(examples, features=features), window=window)
    assert (found.kind, found.column, found.evidence["names"]) == ("identity", "positions", "item")


def knows_the_response(candidates: pl.DataFrame, events: pl.DataFrame, jobs: pl.DataFrame) -> pa.Table:
    """Planted: what people did is known two days early."""
    early = events.with_columns(pl.col("occurred_at") - timedelta(days=2))
    return people_as_of(candidates, early, jobs)


def knows_the_crowd(candidates: pl.DataFrame, events: pl.DataFrame, jobs: pl.DataFrame) -> pa.Table:
    """Planted: a person's level is how much everybody did."""
    levels = ("junior", "senior")
    crowd = levels[int(events["candidate_id"].n_unique() > 1)]
    return people_as_of(candidates.with_columns(pl.lit(crowd).alias("seniority")), events, jobs)


@pytest.mark.parametrize(
    ("planted", "kind", "column"),
    [(knows_the_response, "future", "engagements_7d"), (knows_the_crowd, "others", "seniority_gap")],
)
def test_a_planted_leak_of_people_is_named(
    world: World, side: Side, requests: list[JobRequest], planted: Any, kind: str, column: str
) -> None:
    found = audit(side, make_people=planted).findings(world.events, requests[:: len(requests) // 4])
    assert any(one.kind == kind and one.column.endswith(column) for one in found)


def test_without_consent_nobody_is_in_a_release(world: World, side: Side) -> None:
    silent = side.candidates.with_columns(pl.lit(None, pl.Boolean).alias("consent"))
    assert people_as_of(silent, world.events, side.jobs).num_rows == 0
    none = side.candidates.with_columns(pl.lit("none").alias("visibility"))
    assert people_as_of(none, world.events, side.jobs).num_rows == 0


def test_what_somebody_does_later_pushes_nothing_out_of_what_was_known(side: Side) -> None:
    """Of the most active people a log that kept its newest entries alone would have nothing left of earlier."""
    since = datetime(2026, 8, 1, tzinfo=UTC)
    asked, hours = since + timedelta(days=5), range(-2 * LOOKBACK, 3 * LOOKBACK)
    who, job = side.candidates.head(1), side.jobs["job_id"][0]
    blank = pl.DataFrame(EVENTS.columns.empty_table())
    did = pl.DataFrame(
        {
            "event_id": [f"e{hour:+05}" for hour in hours],
            "actor": "candidate",
            "candidate_id": who["candidate_id"][0],
            "job_id": job,
            "kind": "view",
            "occurred_at": [since + timedelta(hours=hour) for hour in hours],
        }
    )
    events = pl.concat([blank, did.cast({"occurred_at": blank.schema["occurred_at"]})], how="diagonal")

    def known(events: pl.DataFrame) -> list[int]:
        log = people_as_of(who, events, side.jobs, since=since)["log_us"].to_pylist()[0]
        return [at for at in log if at < asked.timestamp() * 1e6]

    then = known(events.filter(pl.col("occurred_at") < asked))
    assert len(then) > LOOKBACK
    assert known(events) == then
    assert len(people_as_of(who, events, side.jobs, since=since)["log_us"].to_pylist()[0]) == 4 * LOOKBACK
