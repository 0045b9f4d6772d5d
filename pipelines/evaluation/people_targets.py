"""What the recommendation of people is judged by: for each job of the held-out days, who it worked out with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.pipelines.people_outcomes import INVITED, MUTUAL
from rolecall.pipelines.requests import choose


@dataclass(frozen=True, kw_only=True)
class PeopleTarget:
    """One question with its answer: at `at`, who should have been recommended for `job_id`?

    `candidate_ids`: people who first applied, or were first invited, from then on, and with whom it became mutual
    before the end; `labels`: MUTUAL, or INVITED for an invitation that was followed.
    """

    job_id: str
    at: datetime
    candidate_ids: tuple[str, ...]
    labels: tuple[int, ...]


def collect_people_targets(
    events: pl.DataFrame,
    candidate_ids: Sequence[str],
    *,
    start: datetime,
    end: datetime,
    limit: int = 500,
    seed: int = 7,
) -> tuple[PeopleTarget, ...]:
    """One target for each of at most `limit` jobs, chosen by hash, in order of id.

    The instant is the midnight before the first of the job's applications or invitations; only `candidate_ids`, people
    who may be recommended at all, count.
    """
    told = events.filter(
        pl.col("candidate_id").is_in(sorted(candidate_ids)), pl.col("occurred_at") < end, pl.col("kind") != "impression"
    )
    pairs = told.group_by("job_id", "candidate_id").agg(
        _first("apply"), _first("invite"), _first("reject"), _first("hire"), _wanted(), _came()
    )
    begun = pl.min_horizontal("apply", "invite")
    followed = (pl.col("came") > pl.col("invite")).fill_null(False)
    mutual = pl.col("wanted") & (pl.col("apply").is_not_null() | followed)
    refused = pl.col("reject").is_not_null() & pl.col("hire").is_null()
    label = pl.when(refused).then(0).when(mutual).then(MUTUAL).when(followed).then(INVITED).otherwise(0)
    asked = (
        pairs.with_columns(begun.alias("begun"), label.alias("label"))
        .filter(pl.col("label") > 0, pl.col("begun") >= start)
        .with_columns(pl.col("begun").min().over("job_id").dt.truncate("1d").alias("at"))
        .sort("job_id", "candidate_id")
    )
    kept = sorted(choose(asked["job_id"].unique().to_list(), limit=limit, seed=seed))
    grouped = (
        asked.filter(pl.col("job_id").is_in(kept))
        .group_by("job_id", "at", maintain_order=True)
        .agg("candidate_id", "label")
    )
    return tuple(
        PeopleTarget(job_id=job, at=max(at.astimezone(UTC), start), candidate_ids=tuple(who), labels=tuple(labels))
        for job, at, who, labels in grouped.iter_rows()
    )


def _first(kind: str) -> pl.Expr:
    return pl.col("occurred_at").filter(pl.col("kind") == kind).min().alias(kind)


def _wanted() -> pl.Expr:
    return pl.col("kind").is_in(["shortlist", "reply", "hire"]).any().alias("wanted")


def _came() -> pl.Expr:
    return pl.col("occurred_at").filter(pl.col("kind").is_in(ENGAGEMENT_EVENTS)).max().alias("came")
