"""Formulas of a (candidate, job) pair that can only be worked out when somebody asks. Vectorised numpy; unknown is NaN.

    skill_match(shared, asked, listed)      # float32[n] each

`PairFeatures` calls them on the columns of a release, Feast's on-demand views (`features/feast/definitions.py`) on the
rows of its views: one definition, whoever computes. Angles are radians, all results float32.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
EARTH_KM = 6371.0
_WORD = re.compile(r"(?u)\b\w\w+\b")


@dataclass(frozen=True, kw_only=True)
class SkillMatch:
    """How a candidate's skills meet a job's. `overlap`: skills both name; `share` of the job's; `cover` of the
    candidate's."""

    overlap: Floats
    share: Floats
    cover: Floats


def skill_match(shared: npt.ArrayLike, asked: npt.ArrayLike, listed: int) -> SkillMatch:
    """From the number of skills both name, the number the job asks for, and the number the candidate lists.

    The share of a job that asks for none is NaN; of a candidate who lists none nothing is known.
    """
    overlap, wanted = _floats(shared), _floats(asked)
    if not listed:
        unknown = np.full_like(overlap, np.nan)
        return SkillMatch(overlap=unknown, share=unknown, cover=unknown)
    return SkillMatch(
        overlap=overlap,
        share=np.asarray(overlap / np.where(wanted > 0, wanted, np.nan), np.float32),
        cover=overlap / np.float32(listed),
    )


def title_words(text: str | None) -> frozenset[str]:
    """The different words of two or more characters of a title, in lower case: the lexicon's single words."""
    return frozenset(_WORD.findall((text or "").lower()))


def title_similarity(shared: npt.ArrayLike, ours: npt.ArrayLike, theirs: npt.ArrayLike) -> Floats:
    """Cosine of two sets of words: shared over the root of the product of their sizes; NaN where one is empty."""
    product = _floats(ours) * _floats(theirs)
    return _floats(_floats(shared) / np.sqrt(np.where(product > 0, product, np.float32("nan"))))


def kilometres(
    latitude: npt.ArrayLike, longitude: npt.ArrayLike, to_latitude: npt.ArrayLike, to_longitude: npt.ArrayLike
) -> Floats:
    """Great-circle distances [n, m] by the haversine formula on a sphere of 6,371 km."""
    lat, lon = _floats(latitude)[:, None], _floats(longitude)[:, None]
    there_lat, there_lon = _floats(to_latitude), _floats(to_longitude)
    half_lat = np.sin((lat - there_lat) / 2) ** 2
    half_lon = np.sin((lon - there_lon) / 2) ** 2
    root = half_lat + np.cos(lat) * np.cos(there_lat) * half_lon
    return _floats(2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(root, 0, 1))))


def centroid(latitude: npt.ArrayLike, longitude: npt.ArrayLike, weights: npt.ArrayLike) -> tuple[float, float]:
    """Latitude and longitude of the weighted mean of places on the sphere; NaN where no place is known."""
    lat, lon, weight = (np.asarray(values, np.float64) for values in (latitude, longitude, weights))
    known = np.isfinite(lat) & np.isfinite(lon)
    if not known.any():
        return float("nan"), float("nan")
    lat, lon, weight = lat[known], lon[known], weight[known]
    x, y, z = np.cos(lat) * np.cos(lon) @ weight, np.cos(lat) * np.sin(lon) @ weight, np.sin(lat) @ weight
    return float(np.arctan2(z, np.hypot(x, y))), float(np.arctan2(y, x))


def seniority_gap(job_rank: npt.ArrayLike, rank: float) -> Floats:
    """The job's rank in SENIORITIES minus the candidate's."""
    return _floats(_floats(job_rank) - np.float32(rank))


def log_pay(salary: npt.ArrayLike) -> Floats:
    """Natural logarithm, NaN where unknown or not above 0."""
    pay = _floats(salary)
    return _floats(np.log(np.where(pay > 0, pay, np.float32("nan"))))


def pay_gap(pay: npt.ArrayLike, usual: npt.ArrayLike) -> Floats:
    """Logarithm of a job's pay over what is usual, from the logarithms of both."""
    return _floats(_floats(pay) - _floats(usual))


def ignored(shown: npt.ArrayLike, engaged: npt.ArrayLike) -> Floats:
    """Times a job was shown without anything coming of it: 0 once the candidate engaged with it."""
    return _floats(np.where(np.asarray(engaged, bool), 0, _floats(shown)))


def _floats(values: Any) -> Floats:
    return np.asarray(values, np.float32)
