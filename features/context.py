"""What the rankers may know of the one who asks, a candidate or an employer with a job. The same objects offline and
online."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rolecall.features.candidate_state import Sighting


@dataclass(frozen=True, kw_only=True)
class CandidateContext:
    """A candidate as known strictly before the instant of a request.

    `history`: ids of distinct jobs the candidate engaged with (ENGAGEMENT_EVENTS), oldest first.
    `applied`, `dismissed`: ids for the re-rank policy. `activity`: numeric features of the feature
    views, by column name; a name that is absent is missing (NaN), never zero. `sightings`: by job id, what the
    candidate was shown and did in the last days.
    `known`: False for an inline profile and for an id no table has. `profile_us`: since when the stored profile holds,
    microseconds since 1970, where the online store told it: which version was read, and nothing of what it says.
    """

    candidate_id: str | None = None
    known: bool = False
    desired_titles: tuple[str, ...] = ()
    resume_text: str = ""
    skills: tuple[str, ...] = ()
    past_employers: tuple[str, ...] = ()
    seniority: str | None = None
    city: str | None = None
    region: str | None = None
    country: str | None = None
    lat: float | None = None
    lon: float | None = None
    history: tuple[str, ...] = ()
    applied: frozenset[str] = frozenset()
    dismissed: frozenset[str] = frozenset()
    activity: Mapping[str, float] = field(default_factory=dict)
    sightings: Mapping[str, Sighting] = field(default_factory=dict)
    profile_us: int | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class JobQuestion:
    """A job as an employer asks about it: which people fit it?

    `job_id` None, or unknown to the release: the answer rests on the content given here. `exclude_applicants`: people
    who applied to this job are not shown (an employer looks for new people); otherwise they come first.
    """

    job_id: str | None = None
    title: str = ""
    description: str | None = None
    employer_id: str | None = None
    employer_name: str | None = None
    skills: tuple[str, ...] = ()
    category_path: tuple[str, ...] = ()
    seniority: str | None = None
    city: str | None = None
    region: str | None = None
    country: str | None = None
    lat: float | None = None
    lon: float | None = None
    remote: bool | None = None
    salary_min: float | None = None
    salary_max: float | None = None
    exclude_applicants: bool = True
