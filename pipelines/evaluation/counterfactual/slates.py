"""The events table as slates: what was shown together, with which propensities, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from rolecall.pipelines.evaluation.counterfactual.weights import Logged
from rolecall.platform.errors import InputError

_SLATE = ["request_id", "candidate_id"]


@dataclass(frozen=True, kw_only=True)
class LoggedSlates:
    """Slates in order of request and candidate. `logged` has them as numbers, row by row.

    `at`: of the first impression; `dropped`: requests that could not be used, by reason.
    """

    request_ids: tuple[str, ...]
    candidate_ids: tuple[str, ...]
    at: tuple[datetime, ...]
    job_ids: tuple[tuple[str, ...], ...]
    logged: Logged
    dropped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.request_ids)

    @property
    def explored(self) -> bool:
        """Whether anything was left to chance."""
        return bool((self.logged.propensity < 1).any())

    @property
    def asked(self) -> list[tuple[str, datetime]]:
        """Whom to read a context for, and as of when (`training_set.read_contexts`)."""
        return list(zip(self.candidate_ids, self.at, strict=True))


def read_slates(
    events: pl.DataFrame, *, start: datetime, end: datetime, reward: str = "apply", slots: int | None = None
) -> LoggedSlates:
    """Slates first shown in [start, end) and the responses of kind `reward` to them before `end`, one a job at most.

    `slots`: only so many from the first. A request is dropped, and counted, where an impression lacks its propensity,
    or the positions are not 1, 2, .. once each: a conditional propensity means nothing without the slots above it.
    Raises InputError where none is left.
    """
    told = events.filter(
        pl.col("actor") == "candidate", pl.col("occurred_at") < end, pl.col("request_id").is_not_null()
    )
    shown = told.filter(pl.col("kind") == "impression").sort(*_SLATE, "position", "event_id")
    answered = told.filter(pl.col("kind") == reward).select(*_SLATE, "job_id").unique()
    rows = shown.join(answered.with_columns(pl.lit(1.0).alias("reward")), on=[*_SLATE, "job_id"], how="left")
    slates = (
        rows.with_columns(pl.col("reward").fill_null(0.0))
        .group_by(_SLATE, maintain_order=True)
        .agg(pl.col("occurred_at").min().alias("at"), "job_id", "position", "propensity", "reward")
        .filter(pl.col("at") >= start)
    )
    reasons = [_unusable(*row) for row in slates.select("position", "propensity", "job_id").iter_rows()]
    dropped = Counter(reason for reason in reasons if reason)
    usable = slates.filter(pl.Series([not reason for reason in reasons], dtype=pl.Boolean))
    if not len(usable):
        raise InputError(
            f"no request with usable impressions of {len(slates)} ({dict(dropped)})",
            "impressions with request_id, position and propensity",
            "post them back as recommendations give them",
        )
    _, cluster = np.unique(usable["candidate_id"].to_numpy(), return_inverse=True)
    return LoggedSlates(
        request_ids=tuple(usable["request_id"]),
        candidate_ids=tuple(usable["candidate_id"]),
        at=tuple(usable["at"]),
        job_ids=tuple(tuple(jobs[:slots]) for jobs in usable["job_id"].to_list()),
        logged=Logged(
            propensity=_padded(usable["propensity"].to_list(), slots),
            reward=_padded(usable["reward"].to_list(), slots),
            cluster=cluster.astype(np.int64),
        ),
        dropped=dict(sorted(dropped.items())),
    )


def _unusable(positions: Sequence[int | None], propensities: Sequence[float | None], jobs: Sequence[str]) -> str:
    """Why a request cannot be used; empty where it can."""
    if any(propensity is None or not 0 < propensity <= 1 for propensity in propensities):
        return "no propensity"
    if list(positions) != list(range(1, len(positions) + 1)):
        return "positions missing or repeated"
    return "" if len(set(jobs)) == len(jobs) else "a job twice"


def _padded(rows: Sequence[Sequence[float]], slots: int | None) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    width = min(max(map(len, rows)), slots or 1_000_000)
    out = np.full((len(rows), width), np.nan)
    for number, row in enumerate(rows):
        out[number, : len(row)] = row[:width]
    return out
