"""What candidates did, told as point-in-time tables: the sources of the Feast views.

Each function takes table rows and gives one row a key and instant, with the instant in `event_timestamp`. Feast
joins the newest row at or before a request's time T, so an instant says from when on a row may be known:

- an event is known strictly after it happened: its row is stamped one microsecond later;
- a job's daily snapshot counts whole UTC days and is stamped with the midnight that ends the last of them;
- a profile or rating is known from the moment it was recorded.

A candidate's row is a state (`candidate_state.py`) from which the numbers of any later instant follow. Rates are shrunk
towards a constant and not towards a mean over everyone: a candidate's own features must not move when other candidates
do something (`pipelines/leaks` audits that).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import polars as pl

from rolecall.features import view_features
from rolecall.features.candidate_state import (
    ACTIVITY_STATE_COLUMNS,
    COUNTED,
    HISTORY_STATE_COLUMNS,
    PRIOR_RATE,
    PRIOR_WEIGHT,
    ActivityState,
    HistoryState,
)
from rolecall.features.feature import Feature, names
from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.features.view_features import WINDOWS_DAYS

MAX_RESUME = 2_000
"""Characters of a résumé kept for ranking; the embedder reads fewer."""

TIMESTAMP = pl.Datetime("us", "UTC")
_COUNTED = ("impressions", "engagements", "applies")
_TOTALS = ("job_applies_total", "job_applicants_total")
_BLOCK_ROWS = 50_000
JOB_ACTIVITY_COLUMNS = names(view_features.JOB_ACTIVITY)
PROFILE_LIST_COLUMNS = names(view_features.PROFILE, "list")
PROFILE_TEXT_COLUMNS = names(view_features.PROFILE, "text")
PROFILE_NUMBER_COLUMNS = names(view_features.PROFILE, "number")


def candidate_history(events: pl.DataFrame, *, history_length: int) -> pl.DataFrame:
    """One row an instant at which a candidate engaged with or dismissed jobs: what is remembered from then on.

    `recent_job_ids`: at most `history_length` distinct jobs, the most recently engaged with last.
    Two events at one instant make one row, so the newest row is never ambiguous.
    """
    told = _told(events, (*ENGAGEMENT_EVENTS, "dismiss"), "dwell_seconds")
    return _states(told, lambda: HistoryState(length=history_length), HISTORY_STATE_COLUMNS, view_features.HISTORY)


def candidate_activity(events: pl.DataFrame, *, start: datetime) -> pl.DataFrame:
    """One row an instant at which a candidate was shown jobs or engaged with some, from `start` on; of those before
    `start` the last one."""
    told = _told(events, COUNTED)
    return _states(told, ActivityState, ACTIVITY_STATE_COLUMNS, view_features.CANDIDATE_STATE, start=start)


def job_activity(events: pl.DataFrame, *, start: datetime, end: datetime) -> pl.DataFrame:
    """Daily snapshots of what all candidates did with each job, stamped from `start` to `end` inclusive: one for every
    midnight that a job was active in the 30 days before.

    Jobs are worked off block by block: a day with activity stands behind thirty snapshots, and all of them at once
    would take thirty times the log's memory.
    """
    daily = _daily_counts(_by_candidates(events))
    return pl.concat([_stamped(block, start, end) for block in _blocks(daily)])


def employer_rating(employers: pl.DataFrame) -> pl.DataFrame:
    """Each observation of an employer's rating."""
    return employers.select(
        "employer_id",
        pl.col("observed_at").cast(TIMESTAMP).alias("event_timestamp"),
        pl.col("rating").cast(pl.Float64).alias("employer_rating"),
        pl.col("rating_count").cast(pl.Float64).alias("employer_rating_count"),
        pl.col("size").cast(pl.Float64).alias("employer_size"),
    )


def job_profile(jobs: pl.DataFrame) -> pl.DataFrame:
    """What each posting says, from its posting (or its record, where that is older). The jobs table keeps no history:
    a posting edited later is seen with its later words."""
    middle = pl.mean_horizontal(pl.col("salary_min"), pl.col("salary_max"))
    return jobs.select(
        "job_id",
        pl.min_horizontal("posted_at", "updated_at").cast(TIMESTAMP).alias("event_timestamp"),
        pl.col("title").alias("job_title"),
        pl.col("skills").fill_null([]).alias("job_skills"),
        pl.col("category_path").list.last().alias("job_category"),
        *[pl.col(name).alias(f"job_{name}") for name in ("seniority", "city", "region", "country", "currency")],
        *[pl.col(name).cast(pl.Float64).alias(f"job_{name}") for name in ("lat", "lon")],
        middle.cast(pl.Float64).alias("job_salary"),
        pl.col("remote").cast(pl.Float64).alias("job_remote"),
    )


def candidate_profile(candidates: pl.DataFrame) -> pl.DataFrame:
    """Each candidate's profile. Where there is no résumé, past positions stand in for it, newest first."""
    titles, employers = (
        pl.col("experience")
        .list.eval(pl.element().struct.field(name))
        .list.drop_nulls()
        .list.unique(maintain_order=True)
        for name in ("title", "company")
    )
    told = pl.col("resume_text").fill_null("").str.len_chars() > 0
    resume = pl.when(told).then("resume_text").otherwise(titles.list.join("; "))
    return candidates.with_columns(employers.alias("past_employers")).select(
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


class _State(Protocol):
    """A state of one candidate that takes events and dumps itself as a row."""

    @property
    def take(self) -> Callable[..., None]: ...
    def row(self) -> tuple[object, ...]: ...


def _told(events: pl.DataFrame, kinds: Sequence[str], *rest: str) -> pl.DataFrame:
    """What candidates did of these kinds: candidate, microseconds, kind, job and `rest`, in order of time."""
    return (
        _by_candidates(events)
        .filter(pl.col("kind").is_in(kinds))
        .sort("candidate_id", "occurred_at", "event_id")
        .select("candidate_id", pl.col("occurred_at").dt.epoch("us"), "kind", "job_id", *rest)
    )


def _states(
    told: pl.DataFrame,
    begin: Callable[[], _State],
    columns: Sequence[str],
    features: Sequence[Feature],
    start: datetime | None = None,
) -> pl.DataFrame:
    """The state of each candidate at each instant of theirs, stamped a microsecond later."""
    first = -(2**63) if start is None else int(start.timestamp() * 1e6)
    types = {feature.name: _TYPES[feature.kind] for feature in features}
    schema = {"candidate_id": pl.String, "event_timestamp": pl.Int64, **{name: types[name] for name in columns}}
    blocks = [
        pl.DataFrame(list(zip(*rows, strict=True)), schema=schema, orient="col")
        for rows in _in_blocks(_dumps(told.iter_rows(), begin, first))
    ]
    frame = pl.concat([pl.DataFrame(schema=schema), *blocks])
    return frame.with_columns((pl.col("event_timestamp") + 1).cast(TIMESTAMP))


_TYPES: dict[str, Any] = {"number": pl.Float64, "text": pl.String, "list": pl.List(pl.String)}


def _dumps(rows: Iterable[Sequence[Any]], begin: Callable[[], _State], first: int) -> Iterator[tuple[object, ...]]:
    """(candidate, microseconds, state) whenever an instant of a candidate is over; before `first` only the last one."""
    state, who, at = begin(), None, 0
    for candidate, instant, kind, job_id, *rest in rows:
        if who is not None and (candidate, instant) != (who, at) and (candidate != who or instant >= first):
            yield (who, at, *state.row())
        if candidate != who:
            state = begin()
        state.take(kind, job_id, instant, *rest)
        who, at = candidate, instant
    if who is not None:
        yield (who, at, *state.row())


def _in_blocks(rows: Iterator[tuple[object, ...]]) -> Iterator[list[tuple[object, ...]]]:
    while block := list(itertools.islice(rows, _BLOCK_ROWS)):
        yield block


def _blocks(daily: pl.DataFrame) -> Iterable[pl.DataFrame]:
    """Rows in order of job, cut where a job ends after every `_BLOCK_ROWS` rows; one block where there is no row."""
    ends = np.append(
        np.flatnonzero((daily["job_id"] != daily["job_id"].shift(-1)).fill_null(True).to_numpy()) + 1, daily.height
    )
    first = 0
    while True:
        place = np.searchsorted(ends, min(first + _BLOCK_ROWS, daily.height))
        yield daily.slice(first, int(ends[place]) - first)
        first = int(ends[place])
        if first >= daily.height:
            return


def _stamped(daily: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    aged = daily.drop(_TOTALS).join(
        pl.DataFrame({"age": range(1, WINDOWS_DAYS[-1] + 1)}, schema={"age": pl.Int64}), how="cross"
    )
    stamped = aged.with_columns(
        (pl.col("day") + pl.duration(days=pl.col("age"))).cast(TIMESTAMP).alias("event_timestamp")
    ).filter(pl.col("event_timestamp").is_between(start, end))
    counts = stamped.group_by("job_id", "event_timestamp").agg(
        pl.col(name).filter(pl.col("age") <= days).sum().cast(pl.Float64).alias(f"job_{name}_{days}d")
        for days in WINDOWS_DAYS
        for name in _COUNTED
    )
    totals = daily.select(
        "job_id",
        (pl.col("day") + pl.duration(days=1)).cast(TIMESTAMP).alias("event_timestamp"),
        *[pl.col(name).cast(pl.Float64) for name in _TOTALS],
    ).sort("event_timestamp", "job_id")
    joined = counts.sort("event_timestamp", "job_id").join_asof(
        totals, on="event_timestamp", by="job_id", strategy="backward", check_sortedness=False
    )
    return joined.with_columns(_rates()).select("job_id", "event_timestamp", *JOB_ACTIVITY_COLUMNS)


def _daily_counts(events: pl.DataFrame) -> pl.DataFrame:
    """Counts by job and day, and what they add up to by the end of the day."""
    kinds = (["impression"], list(ENGAGEMENT_EVENTS), ["apply"])
    day = pl.col("occurred_at").dt.truncate("1d").alias("day")
    applied = (
        events.filter(pl.col("kind") == "apply").group_by("job_id", "candidate_id").agg(pl.col("occurred_at").min())
    )
    new = applied.group_by("job_id", day).agg(pl.len().alias("applicants"))
    return (
        events.group_by("job_id", day)
        .agg(pl.col("kind").is_in(names).sum().alias(name) for name, names in zip(_COUNTED, kinds, strict=True))
        .join(new, on=["job_id", "day"], how="left")
        .sort("job_id", "day")
        .with_columns(
            pl.col(name).fill_null(0).cum_sum().over("job_id").alias(f"job_{name}_total")
            for name in ("applies", "applicants")
        )
        .drop("applicants")
    )


def _rates() -> list[pl.Expr]:
    """Shrunk rates. A source that logs no impressions has at least one behind each engagement."""
    engaged = pl.col("job_engagements_30d")
    shown = pl.max_horizontal("job_impressions_30d", engaged) + PRIOR_WEIGHT
    applied = pl.col("job_applies_30d")
    prior = PRIOR_RATE * PRIOR_WEIGHT
    return [
        ((engaged + prior) / shown).alias("job_engagement_rate_30d"),
        ((applied + prior) / (engaged + PRIOR_WEIGHT)).alias("job_apply_rate_30d"),
        ((pl.col("job_engagements_1d") + 1) / (pl.col("job_engagements_7d") / 7 + 1)).alias("job_velocity"),
    ]


def _by_candidates(events: pl.DataFrame) -> pl.DataFrame:
    return events.filter(pl.col("actor") == "candidate")
