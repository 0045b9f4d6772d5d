"""Which columns a feature view holds, and which views a ranker may read. Plain words: Feast is not imported here.

Few wide views: each view that is read online costs a query.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from rolecall.features import view_features
from rolecall.features.feature import Feature, Source, names
from rolecall.features.schema import CANDIDATES, EMPLOYERS, EVENTS, JOBS

SNAPSHOT_TTL = timedelta(days=2)
"""A daily snapshot is trusted for two days: one missed run is bridged, a dead pipeline is not."""


@dataclass(frozen=True, kw_only=True)
class ViewShape:
    """A feature view in plain words: its columns in the order lists, texts, numbers.

    `source`: what its rows are computed from. `owner`: who answers for it. `ttl` zero: a row never expires. `derived`:
    numbers computed from a row at the instant that asks, offline and online by one function.
    """

    name: str
    entity: str
    features: tuple[Feature, ...]
    source: Source
    owner: str
    ttl: timedelta = timedelta(0)
    derived: tuple[Feature, ...] = ()

    @property
    def lists(self) -> tuple[str, ...]:
        return names(self.features, "list")

    @property
    def texts(self) -> tuple[str, ...]:
        return names(self.features, "text")

    @property
    def numbers(self) -> tuple[str, ...]:
        return names(self.features, "number")

    @property
    def ranked(self) -> tuple[str, ...]:
        """Numbers that a ranker may read."""
        stored = tuple(f.name for f in self.features if f.kind == "number" and not f.internal)
        return (*stored, *(f.name for f in self.derived if not f.internal))

    @property
    def counted(self) -> str | None:
        """Under which name a candidate's row read online tells up to which event of the log it counts what was posted;
        None for a view that counts none of a candidate's events."""
        return f"{self.name}:counted" if self.entity == "candidate" and self.source.table == EVENTS.name else None

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.lists, *self.texts, *self.numbers)


PROFILE_AT = "candidate_profile:at"
"""The name under which a candidate's row read online tells since when its profile holds, in microseconds, or None."""

_TOLD = tuple(name for name in names(view_features.PROFILE) if name != "past_employers")
_PROFILE_SOURCE = ("candidate_id", "updated_at", *_TOLD, "experience")
_CANDIDATE_EVENTS = ("event_id", "actor", "candidate_id", "job_id", "kind", "occurred_at")

CONSENT_VIEW = ViewShape(
    name="candidate_consent",
    entity="candidate",
    features=view_features.CONSENT,
    source=Source(table=CANDIDATES.name, columns=("candidate_id", "updated_at", *names(view_features.CONSENT))),
    owner="privacy",
)
"""Read to decide who may be shown. No ranker reads it."""

_RANKED = (
    ViewShape(
        name="candidate_profile",
        entity="candidate",
        features=view_features.PROFILE,
        source=Source(table=CANDIDATES.name, columns=_PROFILE_SOURCE),
        owner="ranking",
    ),
    ViewShape(
        name="candidate_history",
        entity="candidate",
        features=view_features.HISTORY,
        derived=view_features.HISTORY_DERIVED,
        source=Source(table=EVENTS.name, columns=(*_CANDIDATE_EVENTS, "dwell_seconds")),
        owner="ranking",
    ),
    ViewShape(
        name="candidate_activity",
        entity="candidate",
        features=view_features.CANDIDATE_STATE,
        derived=view_features.CANDIDATE_ACTIVITY,
        source=Source(table=EVENTS.name, columns=_CANDIDATE_EVENTS),
        owner="ranking",
    ),
    ViewShape(
        name="job_activity",
        entity="job",
        features=view_features.JOB_ACTIVITY,
        source=Source(table=EVENTS.name, columns=_CANDIDATE_EVENTS),
        owner="ranking",
        ttl=SNAPSHOT_TTL,
    ),
    ViewShape(
        name="employer_rating",
        entity="employer",
        features=view_features.EMPLOYER_RATING,
        source=Source(table=EMPLOYERS.name, columns=("employer_id", "observed_at", "rating", "rating_count", "size")),
        owner="ranking",
    ),
)
VIEWS = (*_RANKED, CONSENT_VIEW)
"""What is told to the online store."""

JOB_PROFILE = ViewShape(
    name="job_profile",
    entity="job",
    features=view_features.JOB_PROFILE,
    source=Source(
        table=JOBS.name,
        columns=(
            *("job_id", "posted_at", "updated_at", "title", "skills", "category_path", "seniority", "city", "region"),
            *("country", "currency", "lat", "lon", "salary_min", "salary_max", "remote"),
        ),
    ),
    owner="ranking",
)
"""Offline only: while serving, a release's own catalogue says all this of every job, and cheaper."""

ALL_VIEWS = (*VIEWS, JOB_PROFILE)

SERVICES: dict[str, tuple[str, ...]] = {
    "ranker_full": tuple(view.name for view in _RANKED),
    "ranker_content": tuple(view.name for view in _RANKED if view.name != "job_activity"),
}
"""`ranker_content` has nothing of other candidates' behaviour."""


def service_views(service: str) -> tuple[ViewShape, ...]:
    """The views of a feature service, in order."""
    return tuple(view for view in VIEWS if view.name in SERVICES[service])


def ranker_version(service: str, columns: Sequence[str]) -> str:
    """Names a ranker by its feature service and the columns it reads, in order: a release records it."""
    return f"{service}-{hashlib.sha256(json.dumps(list(columns)).encode()).hexdigest()[:8]}"


def job_feature_columns(service: str) -> tuple[str, ...]:
    """Numeric features of a job (and its employer) that rankers of this service may read."""
    return tuple(n for view in service_views(service) if view.entity != "candidate" for n in view.ranked)


def candidate_feature_columns(service: str) -> tuple[str, ...]:
    """Names in `CandidateContext.activity` that rankers of this service may read."""
    return tuple(name for view in service_views(service) if view.entity == "candidate" for name in view.ranked)
