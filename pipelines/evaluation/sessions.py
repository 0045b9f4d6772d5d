"""The protocol for plain view logs: what does somebody look at next, given all they looked at before?

A session is one candidate's first views of distinct jobs in order of time: the last is the answer, the ones before it
are the history, which is masked. All jobs are ranked. Blocks of sessions in order of time are answered by releases that
learned from nothing but what was before the block (prequential evaluation, Dawid 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.pipelines.evaluation.targets import Target
from rolecall.pipelines.examples import LABELS
from rolecall.platform.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Session:
    """At `at` a candidate who had looked at the jobs of `history`, oldest first, looked at `job_id` next."""

    candidate_id: str
    at: datetime
    job_id: str
    history: tuple[str, ...]

    @property
    def target(self) -> Target:
        """The session as a question of the judge."""
        return Target(candidate_id=self.candidate_id, at=self.at, job_ids=(self.job_id,), labels=(LABELS["view"],))


def collect_sessions(
    events: pl.DataFrame, *, start: datetime | None = None, end: datetime | None = None, least: int = 1
) -> tuple[Session, ...]:
    """One session a candidate with at least `least` jobs before the last one, in order of time and candidate.

    Of jobs first looked at in the same instant the last by id is the answer, and those are history too: the order of
    the rows changes nothing. `start`, `end`: only answers in [start, end), and nothing from `end` on is known.
    """
    looked = events.filter(pl.col("actor") == "candidate", pl.col("kind").is_in(ENGAGEMENT_EVENTS))
    looked = looked if end is None else looked.filter(pl.col("occurred_at") < end)
    firsts = (
        looked.group_by("candidate_id", "job_id")
        .agg(pl.col("occurred_at").min().alias("at"))
        .sort("candidate_id", "at", "job_id")
        .group_by("candidate_id", maintain_order=True)
        .agg(pl.col("at").last(), "job_id")
    )
    found = [
        Session(candidate_id=who, at=at, job_id=jobs[-1], history=tuple(jobs[:-1]))
        for who, at, jobs in firsts.iter_rows()
        if len(jobs) > least and (start is None or at >= start)
    ]
    return tuple(sorted(found, key=lambda session: (session.at, session.candidate_id)))


def block_starts(sessions: Sequence[Session], instants: Sequence[datetime], *, blocks: int, enough: int) -> list[int]:
    """Place of the first session of each of `blocks` blocks.

    The first block ends a day after `enough` of the log's `instants` have passed, where there is something to learn
    from; the others are of about equal size. Raises InputError where the log ends before that.
    """
    passed = sorted(instants)[enough:]
    learnable = [] if not passed else [n for n, one in enumerate(sessions) if one.at >= passed[0] + timedelta(days=1)]
    if not learnable:
        raise InputError(f"{len(instants)} events, {len(sessions)} sessions", f"sessions a day after {enough} events")
    return [0, *(int(place) for place in np.linspace(learnable[0], len(sessions), blocks)[:-1])]
