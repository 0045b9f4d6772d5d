"""What a recommender is judged by: for each candidate of the evaluation window, what they went on to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.pipelines.examples import LABELS
from rolecall.pipelines.requests import choose


@dataclass(frozen=True, kw_only=True)
class Target:
    """One question with its answer: at `at`, what should `candidate_id` have been recommended?

    `job_ids`: distinct jobs engaged with from then to the end of the window and never before; `labels`: LABELS
    of the strongest engagement with each. Ids, not rows: releases with other catalogues answer the same targets.
    """

    candidate_id: str
    at: datetime
    job_ids: tuple[str, ...]
    labels: tuple[int, ...]


def collect_targets(
    events: pl.DataFrame,
    *,
    start: datetime,
    end: datetime,
    limit: int = 500,
    seed: int = 7,
    unprompted: bool = False,
) -> tuple[Target, ...]:
    """One target for each of at most `limit` candidates active in [start, end), chosen by hash, in order of id.

    Where a candidate's impressions were logged, the instant is their first event of the window and everything they
    then engage with is relevant. In a plain view log it is the newest job: what they went on to, given all before.

    `unprompted`: only engagements with jobs that the candidate had not been shown from `start` on: found by search, a
    link or an invitation. What a release showed says little of one that would have shown other jobs.
    """
    told = events.filter(pl.col("actor") == "candidate", pl.col("occurred_at") < end)
    told = _unprompted(told, start) if unprompted else told
    fresh = _fresh(told, start)
    window = told.filter(pl.col("occurred_at") >= start)
    shown = window.filter(pl.col("kind") == "impression").select("candidate_id").unique()
    begun = window.group_by("candidate_id").agg(pl.col("occurred_at").min().alias("at"))
    served = fresh.join(shown, on="candidate_id", how="semi").drop("at").join(begun, on="candidate_id")
    newest = fresh.join(shown, on="candidate_id", how="anti").filter(
        pl.col("at") == pl.col("at").max().over("candidate_id")
    )
    columns = ("candidate_id", "at", "job_id", "label")
    asked = pl.concat([served.select(columns), newest.select(columns)]).sort("candidate_id", "job_id")
    kept = choose(asked["candidate_id"].unique().to_list(), limit=limit, seed=seed)
    rows = asked.filter(pl.col("candidate_id").is_in(sorted(kept)))
    grouped = rows.group_by("candidate_id", "at", maintain_order=True).agg("job_id", "label")
    return tuple(
        Target(candidate_id=who, at=at, job_ids=tuple(jobs), labels=tuple(labels))
        for who, at, jobs, labels in grouped.iter_rows()
    )


def _fresh(told: pl.DataFrame, start: datetime) -> pl.DataFrame:
    """Jobs that candidates engaged with from `start` on and never before: since when, and how strongly."""
    label = pl.col("kind").replace_strict(LABELS, default=0, return_dtype=pl.Int8)
    acted = told.filter(pl.col("kind").is_in(ENGAGEMENT_EVENTS))
    pairs = acted.group_by("candidate_id", "job_id").agg(
        pl.col("occurred_at").min().alias("at"), label.max().alias("label")
    )
    return pairs.filter(pl.col("at") >= start)


def _unprompted(told: pl.DataFrame, start: datetime) -> pl.DataFrame:
    """Impressions, and what was done with jobs that were not shown between `start` and then."""
    pair = ["candidate_id", "job_id"]
    shown = told.filter(pl.col("kind") == "impression", pl.col("occurred_at") >= start)
    since = shown.group_by(pair).agg(pl.col("occurred_at").min().alias("shown_at"))
    own = pl.col("shown_at").is_null() | (pl.col("shown_at") > pl.col("occurred_at"))
    return told.join(since, on=pair, how="left").filter(own | (pl.col("kind") == "impression")).drop("shown_at")


def fair_targets(targets: tuple[Target, ...], unprompted: tuple[Target, ...], *, least: int) -> tuple[Target, ...]:
    """What champion and challenger are compared on. `targets` itself where fewer than `least` are unprompted, or where
    all are, as in a log without impressions: then nobody needs to be asked twice."""
    return targets if unprompted == targets or len(unprompted) < least else unprompted


def instants(targets: Sequence[Target]) -> list[tuple[str, datetime]]:
    """Whom to read a context for, and as of when."""
    return [(target.candidate_id, target.at) for target in targets]
