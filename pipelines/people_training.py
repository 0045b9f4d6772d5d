"""The people rankers' training set: for a job on a day, who was there, and what became of it.

A request is a job at the midnight of one of its days, chosen by hash and not by what happened: the one who asks at
that hour knows no outcome, and nor does any column. Its people are those something happened with from then on, those
who had looked at the job before, and a sample of everybody else this employer may see. Who had applied already is left
out, as in an answer. Labels (`people_outcomes`) are what came up to the end of the training window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Rows
from rolecall.features.people_columns import PEOPLE_COLUMNS
from rolecall.features.people_pairs import PeoplePairs
from rolecall.pipelines.examples import Origin, TrainingSet
from rolecall.pipelines.people_outcomes import Outcomes
from rolecall.pipelines.requests import HELD_OUT_PERCENT, choose, hashed, scatter, scattered
from rolecall.serving.people_policy import PeoplePolicy

DAYS_A_JOB = 2
"""Days of a job's life that are asked about."""

MOST_REQUESTS = 2_000
OTHERS_A_REQUEST = 30
"""People nothing happened with, added to a request."""

Progress = Callable[[int, int], None]
_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A job at an instant with people and labels."""

    job: int
    at: datetime
    rows: Rows
    labels: npt.NDArray[np.int8]
    shown: npt.NDArray[np.bool_]
    held_out: bool


def job_requests(
    outcomes: Outcomes, pairs: PeoplePairs, policy: PeoplePolicy, *, start: datetime, end: datetime, seed: int
) -> list[JobRequest]:
    """At most MOST_REQUESTS requests of [start, end) in which something happened, in an order drawn by hash."""
    asked = {
        f"{pairs.jobs.catalogue.job_ids[job]} @ {day:%Y-%m-%d}": (int(job), day)
        for job in outcomes.jobs()
        for day in _days(pairs, int(job), start, end, seed)
        if outcomes.between(int(job), _us(day), _us(end)).labels.any()
    }
    kept = choose(list(asked), limit=MOST_REQUESTS, seed=seed)
    requests = (_request(outcomes, pairs, policy, *asked[name], end, seed) for name in scattered(kept, seed=seed))
    return [request for request in requests if len(request.rows)]


def people_training_set(
    requests: list[JobRequest], pairs: PeoplePairs, *, progress: Progress = lambda done, total: None
) -> TrainingSet:
    """Feature rows of the requests, computed as serving computes them."""
    columns, job_ids = tuple(PEOPLE_COLUMNS), pairs.jobs.catalogue.job_ids
    blocks = list(_matrices(requests, pairs, columns, progress))
    return TrainingSet(
        features=np.concatenate([np.zeros((0, len(columns)), np.float32), *blocks]),
        columns=columns,
        labels=np.concatenate([np.zeros(0, np.int8), *(request.labels for request in requests)]),
        shown=np.concatenate([np.zeros(0, np.bool_), *(request.shown for request in requests)]),
        groups=np.array([len(request.rows) for request in requests], np.int32),
        times=np.array([int(_us(request.at)) for request in requests], np.int64),
        held_out=np.array([request.held_out for request in requests], np.bool_),
        origin=Origin(
            requests=tuple(f"{job_ids[request.job]} @ {request.at:%Y-%m-%d}" for request in requests),
            askers=tuple(job_ids[request.job] for request in requests),
            items=np.concatenate([np.zeros(0, np.int32), *(request.rows for request in requests)]),
        ),
    )


def _matrices(
    requests: list[JobRequest], pairs: PeoplePairs, columns: tuple[str, ...], progress: Progress
) -> Iterator[npt.NDArray[np.float32]]:
    for done, request in enumerate(requests, start=1):
        question = pairs.question(pairs.jobs.catalogue.job_ids[request.job])
        if question is not None:
            yield pairs.matrix(pairs.prepare(question), request.rows, at=request.at, columns=columns)
        progress(done, len(requests))


def _days(pairs: PeoplePairs, job: int, start: datetime, end: datetime, seed: int) -> list[datetime]:
    """Midnights within the window at which the job was live: the first DAYS_A_JOB by hash."""
    job_id = pairs.jobs.catalogue.job_ids[job]
    midnights = [start + number * _DAY for number in range(max((end - start) // _DAY, 0))]
    one = np.array([job], np.int32)
    live = [day for day in midnights if pairs.jobs.catalogue.live(one, _us(day))[0]]
    return sorted(sorted(live, key=lambda day: hashed(f"day {seed}", f"{job_id}\0{day:%Y-%m-%d}"))[:DAYS_A_JOB])


def _request(
    outcomes: Outcomes, pairs: PeoplePairs, policy: PeoplePolicy, job: int, at: datetime, end: datetime, seed: int
) -> JobRequest:
    job_id = pairs.jobs.catalogue.job_ids[job]
    question = pairs.question(job_id)
    visible = np.zeros(len(pairs.people), np.bool_) if question is None else policy.visible(question, _us(at))
    happened = outcomes.between(job, _us(at), _us(end))
    random = np.random.default_rng([seed, *f"{job_id} {at:%Y-%m-%d}".encode()])
    drawn = random.integers(0, max(len(visible), 1), OTHERS_A_REQUEST).astype(np.int32)
    rows = np.union1d(happened.rows, np.union1d(outcomes.engaged_before(job, _us(at)), drawn)).astype(np.int32)
    rows = rows[visible[rows]]
    rows = rows[scatter(f"{job_id} @ {at:%Y-%m-%d}", len(rows), seed=seed)]
    labels, shown = np.zeros(len(pairs.people), np.int8), np.zeros(len(pairs.people), np.bool_)
    labels[happened.rows], shown[happened.rows] = happened.labels, happened.shown
    return JobRequest(
        job=job,
        at=at,
        rows=rows,
        labels=labels[rows],
        shown=shown[rows],
        held_out=hashed("people fold", job_id) % 100 < HELD_OUT_PERCENT,
    )


def _us(at: datetime) -> float:
    return at.astimezone(UTC).timestamp() * 1e6
