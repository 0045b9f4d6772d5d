"""What candidates did, told as point-in-time tables: the sources of the Feast views.

Each function takes table rows and gives one row a key and instant, with the instant in `event_timestamp`. Feast
joins the newest row at or before a request's time T, so an instant says from when on a row may be known:

- an event is known strictly after it happened: its row is stamped one microsecond later;
- a daily snapshot counts whole UTC days and is stamped with the midnight that ends the last of them;
- a profile or rating is known from the moment it was recorded.

Rates are shrunk towards a constant and not towards a mean over everyone: a candidate's own features must not
move when other candidates do something (`pipelines/leaks` audits that).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from rolecall.features import view_features
from rolecall.features.feature import names
from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.features.view_features import WINDOWS_DAYS

PRIOR_RATE = 0.1
PRIOR_WEIGHT = 10.0
MAX_REMEMBERED = 200
"""Newest applied and dismissed jobs kept for the re-rank policy."""

MAX_RESUME = 2_000
"""Characters of a résumé kept for ranking; the embedder reads fewer."""

TIMESTAMP = pl.Datetime("us", "UTC")
_COUNTED = ("impressions", "engagements", "applies")
_BLOCK_ROWS = 50_000


CANDIDATE_ACTIVITY_COLUMNS = names(view_features.activity("candidate"))
JOB_ACTIVITY_COLUMNS = names(view_features.activity("job"))
EMPLOYER_COLUMNS = names(view_features.EMPLOYER_RATING)
HISTORY_LIST_COLUMNS = names(view_features.HISTORY, "list")
HISTORY_NUMBER_COLUMNS = names(view_features.HISTORY, "number")
PROFILE_LIST_COLUMNS = names(view_features.PROFILE, "list")
PROFILE_TEXT_COLUMNS = names(view_features.PROFILE, "text")
PROFILE_NUMBER_COLUMNS = names(view_features.PROFILE, "number")

_HISTORY_SCHEMA: dict[str, Any] = {
    "candidate_id": pl.String,
    "event_timestamp": TIMESTAMP,
    **dict.fromkeys(HISTORY_LIST_COLUMNS, pl.List(pl.String)),
    **dict.fromkeys(HISTORY_NUMBER_COLUMNS, pl.Float64),
}


def candidate_history(events: pl.DataFrame, *, history_length: int) -> pl.DataFrame:
    """One row an instant at which a candidate engaged with or dismissed jobs: what is remembered from then on.

    `recent_job_ids`: at most `history_length` distinct jobs, the most recently engaged with last.
    Two events at one instant make one row, so the newest row is never ambiguous.
    """
    told = (
        _by_candidates(events)
        .filter(pl.col("kind").is_in([*ENGAGEMENT_EVENTS, "dismiss"]))
        .sort("candidate_id", "occurred_at", "event_id")
        .select("candidate_id", "occurred_at", "job_id", "kind", "dwell_seconds")
    )
    rows = list(_remember(told.iter_rows(), history_length))
    frame = pl.DataFrame(rows, schema=_HISTORY_SCHEMA, orient="row")
    return frame.with_columns(pl.col("event_timestamp") + timedelta(microseconds=1))


def candidate_activity(events: pl.DataFrame, *, start: datetime, end: datetime) -> pl.DataFrame:
    """Daily snapshots of each candidate's own activity, stamped from `start` to `end` inclusive."""
    return _snapshots(_by_candidates(events), "candidate", start, end)


def job_activity(events: pl.DataFrame, *, start: datetime, end: datetime) -> pl.DataFrame:
    """Daily snapshots of what all candidates did with each job, stamped from `start` to `end` inclusive."""
    return _snapshots(_by_candidates(events), "job", start, end)


def employer_rating(employers: pl.DataFrame) -> pl.DataFrame:
    """Each observation of an employer's rating."""
    return employers.select(
        "employer_id",
        pl.col("observed_at").cast(TIMESTAMP).alias("event_timestamp"),
        pl.col("rating").cast(pl.Float64).alias("employer_rating"),
        pl.col("rating_count").cast(pl.Float64).alias("employer_rating_count"),
        pl.col("size").cast(pl.Float64).alias("employer_size"),
    )


def candidate_profile(candidates: pl.DataFrame) -> pl.DataFrame:
    """Each candidate's profile. Where there is no résumé, past positions stand in for it, newest first."""
    career = (
        pl.col("experience")
        .list.eval(pl.element().struct.field("title"))
        .list.drop_nulls()
        .list.unique(maintain_order=True)
        .list.join("; ")
    )
    resume = pl.when(pl.col("resume_text").fill_null("").str.len_chars() > 0).then("resume_text").otherwise(career)
    return candidates.select(
        "candidate_id",
        pl.col("updated_at").cast(TIMESTAMP).alias("event_timestamp"),
        *[pl.col(name).fill_null([]) for name in PROFILE_LIST_COLUMNS],
        resume.fill_null("").str.slice(0, MAX_RESUME).alias("resume_text"),
        *[pl.col(name) for name in PROFILE_TEXT_COLUMNS if name != "resume_text"],
        *[pl.col(name).cast(pl.Float64) for name in PROFILE_NUMBER_COLUMNS],
    )


def candidate_consent(candidates: pl.DataFrame) -> pl.DataFrame:
    """Who may be recommended to whom, from the moment it was recorded: read when people are about to be shown."""
    return candidates.select(
        "candidate_id",
        pl.col("updated_at").cast(TIMESTAMP).alias("event_timestamp"),
        pl.col("hidden_from").fill_null([]),
        pl.col("visibility").fill_null("all"),
        pl.col("consent").fill_null(False).cast(pl.Float64),
    )


@dataclass(kw_only=True)
class _Memory:
    """What is remembered of one candidate while their events go by in order."""

    length: int
    recent: dict[str, None] = field(default_factory=dict)
    applied: dict[str, None] = field(default_factory=dict)
    dismissed: dict[str, None] = field(default_factory=dict)
    engagements: int = 0
    dwell: float = 0.0
    dwells: int = 0
    last_engaged: float | None = None

    def take(self, at: datetime, job_id: str, kind: str, dwell: float | None) -> None:
        if kind == "dismiss":
            self.dismissed[job_id] = None
            return
        self.recent.pop(job_id, None)
        self.recent[job_id] = None
        if len(self.recent) > self.length:
            del self.recent[next(iter(self.recent))]
        if kind == "apply":
            self.applied[job_id] = None
        self.engagements += 1
        self.last_engaged = at.timestamp()
        if dwell is not None:
            self.dwell += dwell
            self.dwells += 1

    def row(self) -> tuple[object, ...]:
        return (
            list(self.recent),
            list(self.applied)[-MAX_REMEMBERED:],
            list(self.dismissed)[-MAX_REMEMBERED:],
            float(self.engagements),
            float(len(self.applied)),
            float(len(self.dismissed)),
            self.dwell / self.dwells if self.dwells else None,
            self.last_engaged,
        )


def _remember(rows: Iterable[Sequence[Any]], length: int) -> Iterable[tuple[object, ...]]:
    memory = _Memory(length=length)
    previous: tuple[str, datetime] | None = None
    for candidate, at, job_id, kind, dwell in rows:
        if previous is not None and previous != (candidate, at):
            yield (*previous, *memory.row())
        if previous is None or previous[0] != candidate:
            memory = _Memory(length=length)
        memory.take(at, job_id, kind, dwell)
        previous = (candidate, at)
    if previous is not None:
        yield (*previous, *memory.row())


def _snapshots(events: pl.DataFrame, entity: str, start: datetime, end: datetime) -> pl.DataFrame:
    """Window counts for every midnight that a key was active in the 30 days before.

    Keys are worked off block by block: a day with activity stands behind thirty snapshots, and all of them at once
    would take thirty times the log's memory.
    """
    daily = _daily_counts(events, f"{entity}_id")
    return pl.concat([_stamped(block, entity, start, end) for block in _blocks(daily, f"{entity}_id")])


def _blocks(daily: pl.DataFrame, key: str) -> Iterable[pl.DataFrame]:
    """Rows in order of key, cut where a key ends after every `_BLOCK_ROWS` rows; one block where there is no row."""
    ends = np.append(np.flatnonzero((daily[key] != daily[key].shift(-1)).fill_null(True).to_numpy()) + 1, daily.height)
    first = 0
    while True:
        place = np.searchsorted(ends, min(first + _BLOCK_ROWS, daily.height))
        yield daily.slice(first, int(ends[place]) - first)
        first = int(ends[place])
        if first >= daily.height:
            return


def _stamped(daily: pl.DataFrame, entity: str, start: datetime, end: datetime) -> pl.DataFrame:
    key = f"{entity}_id"
    aged = daily.drop("total").join(
        pl.DataFrame({"age": range(1, WINDOWS_DAYS[-1] + 1)}, schema={"age": pl.Int64}), how="cross"
    )
    stamped = aged.with_columns(
        (pl.col("day") + pl.duration(days=pl.col("age"))).cast(TIMESTAMP).alias("event_timestamp")
    ).filter(pl.col("event_timestamp").is_between(start, end))
    counts = stamped.group_by(key, "event_timestamp").agg(
        pl.col(name).filter(pl.col("age") <= days).sum().cast(pl.Float64).alias(f"{entity}_{name}_{days}d")
        for days in WINDOWS_DAYS
        for name in _COUNTED
    )
    totals = daily.select(
        key,
        (pl.col("day") + pl.duration(days=1)).cast(TIMESTAMP).alias("event_timestamp"),
        pl.col("total").cast(pl.Float64).alias(f"{entity}_applies_total"),
    ).sort("event_timestamp", key)
    joined = counts.sort("event_timestamp", key).join_asof(
        totals, on="event_timestamp", by=key, strategy="backward", check_sortedness=False
    )
    return joined.with_columns(_rates(entity)).select(key, "event_timestamp", *names(view_features.activity(entity)))


def _daily_counts(events: pl.DataFrame, key: str) -> pl.DataFrame:
    kinds = (["impression"], list(ENGAGEMENT_EVENTS), ["apply"])
    return (
        events.group_by(key, pl.col("occurred_at").dt.truncate("1d").alias("day"))
        .agg(pl.col("kind").is_in(names).sum().alias(name) for name, names in zip(_COUNTED, kinds, strict=True))
        .sort(key, "day")
        .with_columns(pl.col("applies").cum_sum().over(key).alias("total"))
    )


def _rates(entity: str) -> list[pl.Expr]:
    """Shrunk rates. A source that logs no impressions has at least one behind each engagement."""
    engaged = pl.col(f"{entity}_engagements_30d")
    shown = pl.max_horizontal(f"{entity}_impressions_30d", engaged) + PRIOR_WEIGHT
    applied = pl.col(f"{entity}_applies_30d")
    prior = PRIOR_RATE * PRIOR_WEIGHT
    return [
        ((engaged + prior) / shown).alias(f"{entity}_engagement_rate_30d"),
        ((applied + prior) / (engaged + PRIOR_WEIGHT)).alias(f"{entity}_apply_rate_30d"),
    ]


def _by_candidates(events: pl.DataFrame) -> pl.DataFrame:
    return events.filter(pl.col("actor") == "candidate")
