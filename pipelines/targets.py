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

    `job_ids`: distinct jobs engaged with from then to the end of the window and never before it; `labels`: LABELS
    of the strongest engagement with each. Ids, not rows: releases with other catalogues answer the same targets.
    """

    candidate_id: str
    at: datetime
    job_ids: tuple[str, ...]
    labels: tuple[int, ...]


def collect_targets(
    events: pl.DataFrame, *, start: datetime, end: datetime, limit: int = 500, seed: int = 7
) -> tuple[Target, ...]:
    """One target for each of at most `limit` candidates active in [start, end), chosen by hash, in order of id.

    The instant is the candidate's first event of the window: everything known is strictly before it.
    """
    told = events.filter(pl.col("actor") == "candidate", pl.col("occurred_at") < end)
    window = told.filter(pl.col("occurred_at") >= start)
    begun = window.group_by("candidate_id").agg(pl.col("occurred_at").min().alias("at"))
    acted = pl.col("kind").is_in(ENGAGEMENT_EVENTS)
    before = told.filter(acted, pl.col("occurred_at") < start).select("candidate_id", "job_id").unique()
    label = pl.col("kind").replace_strict(LABELS, default=0, return_dtype=pl.Int8)
    fresh = (
        window.filter(acted)
        .join(before, on=["candidate_id", "job_id"], how="anti")
        .group_by("candidate_id", "job_id")
        .agg(label.max().alias("label"))
        .sort("candidate_id", "job_id")
    )
    found = fresh.group_by("candidate_id", maintain_order=True).agg("job_id", "label").join(begun, on="candidate_id")
    kept = choose(found["candidate_id"].to_list(), limit=limit, seed=seed)
    rows = found.filter(pl.col("candidate_id").is_in(sorted(kept))).sort("candidate_id")
    return tuple(
        Target(candidate_id=who, at=at, job_ids=tuple(jobs), labels=tuple(labels))
        for who, jobs, labels, at in rows.select("candidate_id", "job_id", "label", "at").iter_rows()
    )


def instants(targets: Sequence[Target]) -> list[tuple[str, datetime]]:
    """Whom to read a context for, and as of when."""
    return [(target.candidate_id, target.at) for target in targets]
