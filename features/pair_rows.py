"""Request-time features of (candidate, job) pairs from rows of the feature views: what Feast's on-demand views call.

Inputs and outputs are columns by name, one entry a pair, as Feast's python mode hands them over; the formulas are those
of `request_time.py`, which the rankers' columns come from too. Unknown is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.features.candidate_state import ActivityState
from rolecall.features.catalogue import normal, rank_of
from rolecall.features.feature import Feature
from rolecall.features.request_time import (
    ignored,
    kilometres,
    log_pay,
    pay_gap,
    seniority_gap,
    skill_match,
    title_similarity,
    title_words,
)
from rolecall.features.view_features import SEEN_DAYS

Inputs = Mapping[str, Sequence[Any]]
Outputs = dict[str, list[float]]
_AT_REQUEST = "at the request"

PAIR_FIT = (
    Feature(name="skill_overlap", meaning="skills both name", unit="skills", window=_AT_REQUEST),
    Feature(
        name="skill_share", meaning="share of the job's skills that the profile lists", unit="share", window=_AT_REQUEST
    ),
    Feature(
        name="skill_cover", meaning="share of the profile's skills the job asks for", unit="share", window=_AT_REQUEST
    ),
    Feature(
        name="words_desired",
        meaning="largest cosine of the title's words with a desired title's",
        unit="cosine",
        window=_AT_REQUEST,
    ),
    Feature(name="distance_km", meaning="distance from the profile's place", unit="km", window=_AT_REQUEST),
    Feature(
        name="seniority_gap", meaning="the job's seniority rank minus the profile's", unit="ranks", window=_AT_REQUEST
    ),
    Feature(
        name="salary_to_usual",
        meaning="logarithm of the job's salary over the one given as usual",
        unit="log ratio",
        window=_AT_REQUEST,
    ),
)
PAIR_SEEN = (
    Feature(
        name="seen_shown",
        meaning="times the job was shown to the candidate",
        unit="impressions",
        window=f"{SEEN_DAYS} days",
    ),
    Feature(
        name="seen_ignored",
        meaning="the same while nothing came of it, 0 once the candidate engaged with it",
        unit="impressions",
        window=f"{SEEN_DAYS} days",
    ),
)


def pair_fit(inputs: Inputs) -> Outputs:
    """How a job fits a profile: candidate_profile, job_profile, and `usual_salary` of the request."""
    return _by_pair(inputs, _fit, PAIR_FIT)


def pair_seen(inputs: Inputs) -> Outputs:
    """What the candidate saw of a job before: candidate_activity, and `asked_job_id`, `asked_at_us` of the request."""
    return _by_pair(inputs, _seen, PAIR_SEEN)


def _by_pair(
    inputs: Inputs, one: Callable[[Mapping[str, Any]], Mapping[str, npt.ArrayLike]], features: Sequence[Feature]
) -> Outputs:
    size = len(next(iter(inputs.values()), ()))
    rows = [one({name: column[place] for name, column in inputs.items()}) for place in range(size)]
    return {feature.name: [float(np.asarray(row[feature.name]).item()) for row in rows] for feature in features}


def _fit(row: Mapping[str, Any]) -> Mapping[str, npt.ArrayLike]:
    listed, asked = ({normal(skill) for skill in _list(row, name)} - {""} for name in ("skills", "job_skills"))
    match = skill_match([len(listed & asked)], [len(asked)], len(listed))
    home, there = (
        np.radians([_number(row, name) for name in names]) for names in (("lat", "lon"), ("job_lat", "job_lon"))
    )
    return {
        "skill_overlap": match.overlap,
        "skill_share": match.share,
        "skill_cover": match.cover,
        "words_desired": _words_desired(row),
        "distance_km": kilometres(there[:1], there[1:], home[:1], home[1:]),
        "seniority_gap": seniority_gap([rank_of(row.get("job_seniority"))], rank_of(row.get("seniority"))),
        "salary_to_usual": pay_gap(log_pay([_number(row, "job_salary")]), log_pay([_number(row, "usual_salary")])),
    }


def _words_desired(row: Mapping[str, Any]) -> float:
    words = title_words(row.get("job_title"))
    wanted = [title_words(title) for title in _list(row, "desired_titles")]
    cosines = [title_similarity(len(words & mine), len(words), len(mine)) for mine in wanted if mine]
    return float(np.fmax.reduce(cosines)) if cosines else float("nan")


def _seen(row: Mapping[str, Any]) -> Mapping[str, npt.ArrayLike]:
    try:
        sightings = ActivityState.of(row).sightings(int(row["asked_at_us"]))
    except ValueError:  # no state: Feast tries a view on made-up rows when it is applied
        return {"seen_shown": np.nan, "seen_ignored": np.nan}
    sighting = sightings.get(str(row["asked_job_id"]))
    if sighting is None:
        return {"seen_shown": 0.0, "seen_ignored": 0.0}
    return {"seen_shown": sighting.shown, "seen_ignored": ignored(sighting.shown, sighting.engaged)}


def _list(row: Mapping[str, Any], name: str) -> list[str]:
    values = row.get(name)
    return [] if values is None else [str(value) for value in values]


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    return float("nan") if value is None else float(value)
