"""What the marketplace promises of its tables: valid, reproducible, and statistically what its documentation says."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError
from sklearn.feature_extraction.text import TfidfVectorizer

from rolecall.features.schema import (
    CANDIDATE_EVENTS,
    EMPLOYER_EVENTS,
    EMPLOYMENT_TYPES,
    ENGAGEMENT_EVENTS,
    MAX_LIST,
    MAX_SHORT_TEXT,
    SENIORITIES,
    TABLES,
)
from rolecall.pipelines.market import MarketConfig, Marketplace, World, generate
from rolecall.pipelines.market.event_rows import candidate_id

from .conftest import SMALL

TINY = MarketConfig(jobs=50, candidates=10, employers=5, occupations=60, days=2, slots=50, seed=3)
DIGEST = """
import hashlib, pyarrow as pa
from rolecall.pipelines.market import MarketConfig, generate
def digest(market):
    total = hashlib.sha256()
    for name, table in sorted(market.tables().items()):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        total.update(name.encode() + sink.getvalue().to_pybytes())
    return total.hexdigest()
"""


def frame(table: pa.Table) -> pl.DataFrame:
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found


def test_every_table_has_its_schema_its_required_values_and_unique_keys(market: Marketplace) -> None:
    for name, table in market.tables().items():
        schema = TABLES[name]
        assert table.schema == schema.columns
        assert not frame(table).select(schema.key).is_duplicated().any()
        assert all(table[column].null_count == 0 for column in schema.required)
        table.validate(full=True)


def test_vocabularies_hold_only_words_the_schema_knows(market: Marketplace) -> None:
    jobs, events = frame(market.jobs), frame(market.events)
    assert set(jobs["seniority"]) <= set(SENIORITIES)
    assert set(frame(market.candidates)["seniority"].drop_nulls()) <= set(SENIORITIES)
    assert set(jobs["employment_type"]) <= set(EMPLOYMENT_TYPES)
    by_actor = {actor: set(rows["kind"]) for (actor,), rows in events.group_by("actor")}
    assert by_actor["candidate"] <= set(CANDIDATE_EVENTS)
    assert by_actor["employer"] <= set(EMPLOYER_EVENTS)


def test_texts_and_lists_stay_within_their_limits(market: Marketplace) -> None:
    jobs = frame(market.jobs)
    assert jobs.select(pl.col("description").str.split(" ").list.len().max()).item() <= SMALL.max_words
    assert jobs.select(pl.col("title").str.len_chars().is_between(3, MAX_SHORT_TEXT).all()).item()
    for table, column in ((jobs, "skills"), (frame(market.candidates), "skills")):
        assert table.select(pl.col(column).list.len().is_between(1, MAX_LIST).all()).item()
        assert table.select((pl.col(column).list.len() == pl.col(column).list.n_unique()).all()).item()


def test_ranges_of_time_and_pay_are_the_right_way_round(market: Marketplace) -> None:
    jobs = frame(market.jobs)
    assert jobs.select((pl.col("salary_min") > 0).all() & (pl.col("salary_min") <= pl.col("salary_max")).all()).item()
    assert jobs.filter(pl.col("expires_at") <= pl.col("posted_at")).is_empty()
    held = frame(market.candidates).explode("experience").unnest("experience")
    assert held.filter(pl.col("ended_at") <= pl.col("started_at")).is_empty()


def test_references_point_at_rows_that_exist(market: Marketplace) -> None:
    events, jobs = frame(market.events), frame(market.jobs)
    assert set(events["job_id"]) <= set(jobs["job_id"])
    assert set(events["candidate_id"]) <= set(frame(market.candidates)["candidate_id"])
    assert set(jobs["employer_id"]) <= set(frame(market.employers)["employer_id"])


def test_nothing_happens_before_it_can_or_outside_the_month(world: World, market: Marketplace) -> None:
    jobs = frame(market.jobs).select("job_id", "posted_at", "expires_at")
    people = pl.DataFrame(
        {"candidate_id": [candidate_id(n) for n in world.people.number.tolist()], "joined_us": world.people.joined_us}
    ).with_columns(pl.col("joined_us").cast(pl.Datetime("us", "UTC")).alias("joined_at"))
    events = frame(market.events).join(jobs, on="job_id").join(people, on="candidate_id")
    assert events["occurred_at"].is_between(SMALL.starts_at, SMALL.ends_at, closed="left").all()
    assert events.filter(pl.col("occurred_at") < pl.col("posted_at")).is_empty()
    assert events.filter(pl.col("occurred_at") < pl.col("joined_at")).is_empty()
    own = events.filter(pl.col("actor") == "candidate")
    assert own.filter(pl.col("occurred_at") >= pl.col("expires_at")).is_empty()


def test_responses_follow_the_impression_they_answer(market: Marketplace) -> None:
    events = frame(market.events)
    slot = ["request_id", "position", "candidate_id", "job_id"]
    first = events.filter(pl.col("kind") == "impression").select(*slot, pl.col("occurred_at").alias("shown_at"))
    responses = events.filter(
        pl.col("kind").is_in(["click", "save", "apply", "dismiss"]), ~pl.col("event_id").str.contains("invited")
    )
    answered = responses.join(first, on=slot)
    assert answered.height == responses.height
    assert answered.filter(pl.col("occurred_at") <= pl.col("shown_at")).is_empty()


def test_a_request_shows_each_job_once_and_never_one_applied_to_before(market: Marketplace) -> None:
    events = frame(market.events)
    shown = events.filter(pl.col("kind") == "impression")
    assert not shown.select("request_id", "job_id").is_duplicated().any()
    assert not shown.select("request_id", "position").is_duplicated().any()
    applied = events.filter(pl.col("kind") == "apply").select(
        "candidate_id", "job_id", pl.col("occurred_at").alias("at")
    )
    late = shown.join(applied, on=["candidate_id", "job_id"]).filter(pl.col("occurred_at") > pl.col("at"))
    assert late.is_empty()


def test_positives_are_a_few_percent_and_applications_fewer(shown: pl.DataFrame) -> None:
    rates = shown.select(pl.col("click", "save", "apply").mean()).row(0, named=True)
    assert 0.015 < rates["click"] < 0.08
    assert 0.0 < rates["apply"] < rates["click"] / 2
    assert 0.0 < rates["save"] < rates["click"]


def test_the_top_of_the_page_is_clicked_more_than_its_merit(shown: pl.DataFrame) -> None:
    """The logging policy draws at random, so merit falls only slowly with position; clicks fall fast."""
    by_depth = shown.group_by(pl.col("position") <= 3).agg(pl.col("click").mean()).sort("position")
    below, above = by_depth["click"].to_list()
    assert above > 1.8 * below


def test_propensities_are_probabilities_that_differ(shown: pl.DataFrame) -> None:
    assert shown["propensity"].is_between(0.0, 1.0).all()
    assert shown.filter(pl.col("propensity") <= 0).is_empty()
    assert shown["propensity"].n_unique() > shown.height // 2


def test_some_candidates_and_jobs_are_cold_and_some_postings_new(market: Marketplace) -> None:
    engaged = frame(market.events).filter(pl.col("kind").is_in(ENGAGEMENT_EVENTS))
    assert 0.1 < 1 - engaged["candidate_id"].n_unique() / SMALL.candidates < 0.6
    assert engaged["job_id"].n_unique() < SMALL.jobs
    posted = frame(market.jobs)["posted_at"]
    assert posted.is_between(SMALL.starts_at, SMALL.ends_at).mean() > 0.3  # type: ignore[operator]


def test_two_people_describe_the_same_work_in_different_words(market: Marketplace) -> None:
    """A job's title is seldom, yet sometimes, one of the titles its applicants ask for."""
    events, jobs, people = frame(market.events), frame(market.jobs), frame(market.candidates)
    applied = events.filter(pl.col("kind") == "apply").join(jobs, on="job_id").join(people, on="candidate_id")
    same = applied.select(
        pl.col("title").str.to_lowercase().is_in(pl.col("desired_titles").list.eval(pl.element().str.to_lowercase()))
    ).to_series()
    assert same.mean() < 0.4  # type: ignore[operator]


def test_what_a_profile_says_finds_what_its_owner_chose_better_than_popularity_but_not_perfectly(
    market: Marketplace,
) -> None:
    """Share of jobs engaged with in the last days that are among the 60 first of 600, by plain TF-IDF of the texts."""
    events, jobs, people = frame(market.events), frame(market.jobs), frame(market.candidates)
    engaged = events.filter(pl.col("kind").is_in(ENGAGEMENT_EVENTS)).unique(["candidate_id", "job_id"])
    cut = SMALL.ends_at - timedelta(days=6)
    targets = engaged.filter(pl.col("occurred_at") >= cut).join(people, on="candidate_id").sort("event_id")
    row_of = {job: row for row, job in enumerate(jobs["job_id"])}
    wanted = [row_of[job] for job in targets["job_id"]]
    popular = np.bincount(
        [row_of[job] for job in engaged.filter(pl.col("occurred_at") < cut)["job_id"]], minlength=jobs.height
    )
    skills = pl.col("skills").list.join(" ")
    texts = jobs.select(pl.concat_str("title", "description", skills, separator=" ")).to_series().to_list()
    profiles = targets.select(
        pl.concat_str(pl.col("desired_titles").list.join(" "), "resume_text", skills, separator=" ")
    ).to_series()
    weights = TfidfVectorizer(stop_words="english", sublinear_tf=True).fit(texts)
    similarity = (weights.transform(profiles.to_list()) @ weights.transform(texts).T).toarray()
    by_text = hit_rate(similarity, wanted, 60)
    by_popularity = hit_rate(np.tile(popular, (len(wanted), 1)), wanted, 60)
    assert len(wanted) > 50
    assert 2 * by_popularity < by_text < 0.97


def hit_rate(scores_RJ: npt.NDArray[np.float64], wanted_R: list[int], limit: int) -> float:
    own_R = scores_RJ[np.arange(len(wanted_R)), wanted_R]
    return float(((scores_RJ > own_R[:, None]).sum(axis=1) < limit).mean())


def test_the_same_seed_gives_the_same_bytes_in_another_process(market: Marketplace) -> None:
    code = f"{DIGEST}\nprint(digest(generate(MarketConfig(**{SMALL.model_dump(mode='json')!r}))))"
    child = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "5", "OMP_NUM_THREADS": "1"},
    )
    space: dict[str, object] = {}
    exec(DIGEST, space)
    assert child.stdout.strip() == space["digest"](market)  # type: ignore[operator]


def test_another_seed_gives_another_month() -> None:
    one, other = generate(TINY), generate(TINY.model_copy(update={"seed": 4}))
    assert not one.jobs.equals(other.jobs)
    assert not one.candidates.equals(other.candidates)


def test_the_smallest_market_shows_only_open_jobs() -> None:
    market = generate(TINY)
    assert market.jobs.num_rows == 50
    shown = frame(market.events).filter(pl.col("kind") == "impression")
    assert shown.filter(pl.col("propensity") <= 0).is_empty()
    assert pc.max(market.events["position"]).as_py() is None or shown["position"].max() <= 50  # type: ignore[operator]


def test_sizes_out_of_range_and_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError):
        MarketConfig(jobs=1)
    with pytest.raises(ValidationError):
        MarketConfig(jobz=100)  # type: ignore[call-arg]
    assert MarketConfig(end=date(2026, 3, 1), days=2).starts_at.date() == date(2026, 2, 27)
