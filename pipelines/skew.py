"""Whether what was served is what is learned from: answers replayed through the offline join.

    report = replay(served, store=store, events=EventLog(engine))
    report.shares["activity.engagement_count"]          # 1.0: every answer was computed from this very number

A request is replayed at its own instant, the profile in the version that was read; the jobs shown, as of the day their
features were online of. What only became known after the answer (an event posted later that happened before) cannot
have been served: such requests and jobs are counted as late, not compared. A profile that was changed between the run
and the answer waits for the next run: how many answers read an older one is told apart (`older_profiles`), and is no
difference. Counts are all that is told: the report names nobody.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from rolecall.features.activity import PROFILE_LIST_COLUMNS, PROFILE_NUMBER_COLUMNS, PROFILE_TEXT_COLUMNS
from rolecall.features.candidates import candidate_context
from rolecall.features.served_values import candidate_values, unequal
from rolecall.features.store import FeatureStore
from rolecall.pipelines.materialize import feature_store
from rolecall.pipelines.steps import StepContext, StepResult
from rolecall.platform.event_log import EventLog
from rolecall.platform.ledger import open_ledger
from rolecall.platform.served_log import ServedLog, ServedRequest
from rolecall.platform.settings import Settings

REPORT = "skew.json"
SERVICE = "ranker_full"
"""Serving reads every view."""

MOST_REQUESTS = 2_000
_DAY = timedelta(days=1)
_WITHIN = timedelta(seconds=1, microseconds=-1)
"""Feast's SQLite store keeps the instants of rows in whole seconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_FEATURES = ("job_id", "employer_id")
_PAGE = 20_000


@dataclass(frozen=True, kw_only=True)
class SkewReport:
    """`requests`, `jobs`: compared; `late_requests`, `late_jobs`: not compared; `older_profiles`: requests compared
    with the older profile they read. By column the values compared and those that differ."""

    requests: int
    jobs: int
    late_requests: int
    late_jobs: int
    older_profiles: int
    compared: Mapping[str, int]
    different: Mapping[str, int]

    @property
    def shares(self) -> dict[str, float]:
        """Equal values by column, of those compared."""
        return {name: 1 - self.different.get(name, 0) / count for name, count in sorted(self.compared.items())}

    @property
    def equal_share(self) -> float:
        """Equal values of all; 1 where nothing was served."""
        total = sum(self.compared.values())
        return 1 - sum(self.different.values()) / total if total else 1.0

    def to_json(self) -> str:
        counts = ("requests", "jobs", "late_requests", "late_jobs", "older_profiles")
        told = {name: getattr(self, name) for name in counts} | {"equal_share": self.equal_share}
        return json.dumps({**told, "columns": self.shares}, indent=1)


@dataclass(frozen=True, kw_only=True)
class Late:
    """Events that became known after some answer: number and instant of each, by candidate and by job. Of people and
    jobs that no answer is about nothing is held, so it is as large as the answers and not as the log."""

    candidates: Mapping[str, Sequence[tuple[int, datetime]]]
    shown: Mapping[str, Sequence[tuple[int, datetime]]]

    @classmethod
    def after(cls, log: EventLog, served: Sequence[ServedRequest]) -> Late:
        """What these answers could not know: all that were posted after the first of them."""
        candidates: dict[str, list[tuple[int, datetime]]] = {one.candidate_id: [] for one in served}
        shown: dict[str, list[tuple[int, datetime]]] = {job: [] for one in served for job in one.jobs.get("job_id", ())}
        if served:
            asked, through = max(one.at for one in served), max(one.jobs_through for one in served)
            sequence = min(min(one.events, one.counted) for one in served)
            while page := log.read_after(sequence, _PAGE):
                for posted in page:
                    at, candidate, job = _what(posted.event)
                    if at < asked and candidate in candidates:
                        candidates[candidate].append((posted.sequence, at))
                    if at < through and job in shown:
                        shown[job].append((posted.sequence, at))
                sequence = page[-1].sequence
        return cls(candidates=candidates, shown=shown)

    def candidate(self, served: ServedRequest) -> bool:
        """Whether something the candidate had done by the request was posted after it."""
        return any(sequence > served.events and at < served.at for sequence, at in self.candidates[served.candidate_id])

    def jobs(self, served: ServedRequest) -> set[str]:
        """Jobs whose counts of the day were not complete when they went online."""
        return {
            job
            for job in served.jobs.get("job_id", ())
            if any(sequence > served.counted and at < served.jobs_through for sequence, at in self.shown[job])
        }


def replay(served: Sequence[ServedRequest], *, store: FeatureStore, events: EventLog) -> SkewReport:
    """Compare answers with what the offline join says of their instants."""
    late = Late.after(events, served)
    asked = [one for one in served if not late.candidate(one)]
    compared: Counter[str] = Counter()
    different: Counter[str] = Counter()
    older = 0
    for one, row, now in zip(asked, *_replayed_candidates(asked, store), strict=True):
        older += row != now
        values = candidate_values(candidate_context(one.candidate_id, row, at=one.at))
        compared.update({*one.candidate, *values})
        different.update(unequal(one.candidate, values))
    shown, passed_over = _shown(served, late)
    for job, replayed in zip(shown, _replayed_jobs(shown, store), strict=True):
        compared.update(replayed.keys())
        different.update(unequal(job.features, replayed))
    return SkewReport(
        requests=len(asked),
        jobs=len(shown),
        late_requests=len(served) - len(asked),
        late_jobs=passed_over,
        older_profiles=older,
        compared=dict(compared),
        different=dict(different),
    )


def skew_step(settings: Settings, step: StepContext) -> StepResult:
    """Replay the answers of the day before the run's instant that were kept; the report lies beside the step."""
    engine = open_ledger(settings.ledger_url)
    served = ServedLog(engine).between(step.as_of - _DAY, step.as_of, limit=MOST_REQUESTS)
    store = feature_store(settings, step.file("features", "views"))
    report = replay(served, store=store, events=EventLog(engine))
    (step.folder / REPORT).write_text(report.to_json(), encoding="utf-8")
    metrics = {
        "requests": report.requests,
        "late": report.late_requests,
        "older_profiles": report.older_profiles,
        "equal_share": report.equal_share,
    }
    worst = min(report.shares.values(), default=1.0)
    return StepResult(metrics={f"skew.{name}": float(value) for name, value in (metrics | {"worst": worst}).items()})


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A job in an answer, and the instant its features were online of."""

    job_id: str
    employer_id: str | None
    at: datetime
    features: Mapping[str, float | None]


def _shown(served: Sequence[ServedRequest], late: Late) -> tuple[list[_Shown], int]:
    """Jobs to compare, and how many are not."""
    shown, passed_over = [], 0
    for one in served:
        incomplete = late.jobs(one)
        names = [name for name in one.jobs if name not in _NOT_FEATURES]
        for place, job in enumerate(one.jobs.get("job_id", ())):
            if job in incomplete:
                passed_over += 1
                continue
            shown.append(
                _Shown(
                    job_id=job,
                    employer_id=one.jobs["employer_id"][place],
                    at=min(one.at, one.jobs_through),
                    features={name: one.jobs[name][place] for name in names},
                )
            )
    return shown, passed_over


_Rows = Sequence[Mapping[str, object]]


def _replayed_candidates(asked: Sequence[ServedRequest], store: FeatureStore) -> tuple[_Rows, _Rows]:
    """A row a request: with the profile that was read, and with the one that was known by then."""
    if not asked:
        return [], []
    names = [one.candidate_id for one in asked]
    now = store.historical_candidates(names, [one.at for one in asked], SERVICE)
    read = store.historical_candidates(names, [_profile_at(one) for one in asked], SERVICE)
    profile = (*PROFILE_LIST_COLUMNS, *PROFILE_TEXT_COLUMNS, *PROFILE_NUMBER_COLUMNS)
    return [{**row, **{name: old[name] for name in profile}} for row, old in zip(now, read, strict=True)], now


def _profile_at(served: ServedRequest) -> datetime:
    """An instant at which the version that was read is the newest."""
    if served.profile_us is None:
        return served.at
    return min(served.at, _EPOCH + timedelta(microseconds=served.profile_us) + _WITHIN)


def _replayed_jobs(shown: Sequence[_Shown], store: FeatureStore) -> list[dict[str, float | None]]:
    """The columns that were served, by the offline join; None where unknown."""
    if not shown:
        return []
    columns = store.historical_jobs(
        [one.job_id for one in shown], [one.employer_id for one in shown], [one.at for one in shown], SERVICE
    )
    return [
        {name: None if np.isnan(columns[name][row]) else float(columns[name][row]) for name in one.features}
        for row, one in enumerate(shown)
    ]


def _what(event: Mapping[str, Any]) -> tuple[datetime, str, str]:
    return event["occurred_at"], event["candidate_id"], event["job_id"]
