"""Which columns a feature view holds, and which views a ranker may read. Plain words: Feast is not imported here.

Few wide views: each view that is read online costs a query.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from rolecall.features.activity import (
    CANDIDATE_ACTIVITY_COLUMNS,
    CONSENT_LIST_COLUMNS,
    CONSENT_NUMBER_COLUMNS,
    CONSENT_TEXT_COLUMNS,
    EMPLOYER_COLUMNS,
    HISTORY_LIST_COLUMNS,
    HISTORY_NUMBER_COLUMNS,
    JOB_ACTIVITY_COLUMNS,
    PROFILE_LIST_COLUMNS,
    PROFILE_NUMBER_COLUMNS,
    PROFILE_TEXT_COLUMNS,
)

SNAPSHOT_TTL = timedelta(days=2)
"""A daily snapshot is trusted for two days: one missed run is bridged, a dead pipeline is not."""


@dataclass(frozen=True, kw_only=True)
class ViewShape:
    """A feature view in plain words. `ttl` zero: a row never expires."""

    name: str
    entity: str
    lists: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    ttl: timedelta = timedelta(0)

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.lists, *self.texts, *self.numbers)


CONSENT_VIEW = ViewShape(
    name="candidate_consent",
    entity="candidate",
    lists=CONSENT_LIST_COLUMNS,
    texts=CONSENT_TEXT_COLUMNS,
    numbers=CONSENT_NUMBER_COLUMNS,
)
"""Read to decide who may be shown. No ranker reads it."""

_RANKED = (
    ViewShape(
        name="candidate_profile",
        entity="candidate",
        lists=PROFILE_LIST_COLUMNS,
        texts=PROFILE_TEXT_COLUMNS,
        numbers=PROFILE_NUMBER_COLUMNS,
    ),
    ViewShape(name="candidate_history", entity="candidate", lists=HISTORY_LIST_COLUMNS, numbers=HISTORY_NUMBER_COLUMNS),
    ViewShape(name="candidate_activity", entity="candidate", numbers=CANDIDATE_ACTIVITY_COLUMNS, ttl=SNAPSHOT_TTL),
    ViewShape(name="job_activity", entity="job", numbers=JOB_ACTIVITY_COLUMNS, ttl=SNAPSHOT_TTL),
    ViewShape(name="employer_rating", entity="employer", numbers=EMPLOYER_COLUMNS),
)
VIEWS = (*_RANKED, CONSENT_VIEW)

SERVICES: dict[str, tuple[str, ...]] = {
    "ranker_full": tuple(view.name for view in _RANKED),
    "ranker_content": tuple(view.name for view in _RANKED if view.name != "job_activity"),
}
"""`ranker_content` has nothing of other candidates' behaviour."""


def service_views(service: str) -> tuple[ViewShape, ...]:
    """The views of a feature service, in order."""
    return tuple(view for view in VIEWS if view.name in SERVICES[service])


HOURS_SINCE_ENGAGEMENT = "hours_since_engagement"
"""Derived from `last_engaged_epoch` and the instant of the request, offline and online alike."""


def job_feature_columns(service: str) -> tuple[str, ...]:
    """Numeric features of a job (and its employer) that rankers of this service may read."""
    return tuple(n for view in service_views(service) if view.entity != "candidate" for n in view.numbers)


def candidate_feature_columns(service: str) -> tuple[str, ...]:
    """Names in `CandidateContext.activity` that rankers of this service may read."""
    numbers = [n for view in service_views(service) if view.entity == "candidate" for n in view.numbers]
    kept = tuple(name for name in numbers if name not in (*PROFILE_NUMBER_COLUMNS, "last_engaged_epoch"))
    return (*kept, HOURS_SINCE_ENGAGEMENT)
