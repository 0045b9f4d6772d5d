"""What a candidate leans to, from what was shown to them lately and what they did with it.

Of an attribute's value (a category, remote work, a skill) with E jobs engaged with and N showings, at a candidate who
engages with a share r of what they are shown, the lean is

    log((E + PRIOR) / (r * N + PRIOR))

the logarithm of the posterior mean of a gamma-distributed factor on the candidate's own rate (Gelman et al., Bayesian
Data Analysis, 2.6): 0 where nothing is known, above 0 where more came of such jobs than of others. Only the
candidate's own events of the last `SEEN_DAYS` days count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from rolecall.features.candidate_state import PRIOR_RATE, PRIOR_WEIGHT, Sighting
from rolecall.features.catalogue import Catalogue, Floats, Rows
from rolecall.features.job_vectors import JobVectors

PRIOR = 2.0
"""Engagements that every value is taken to have had, and to have been expected, before any was seen."""

_STRENGTHS = {"apply": 3.0, "save": 2.0, "view": 1.5, "click": 1.0}


@dataclass(frozen=True, kw_only=True)
class Sighted:
    """m jobs of the release shown to a candidate, or engaged with, lately: catalogue `rows`, times `shown`, whether
    `engaged` (1 or 0), and the `strength` of the strongest engagement (0 without). Arrays of length m."""

    rows: Rows
    shown: Floats
    engaged: Floats
    strength: Floats

    @classmethod
    def of(cls, sightings: Mapping[str, Sighting], catalogue: Catalogue) -> Sighted:
        """In order of row."""
        found = [(row, one) for job_id, one in sightings.items() if (row := catalogue.row_of(job_id)) is not None]
        found.sort(key=lambda pair: pair[0])
        return cls(
            rows=np.array([row for row, _ in found], np.int32),
            shown=np.array([one.shown for _, one in found], np.float32),
            engaged=np.array([one.engaged for _, one in found], np.float32),
            strength=np.array([_strength(one) for _, one in found], np.float32),
        )

    @property
    def rate(self) -> float:
        """Share of showings that were engaged with, drawn towards a constant."""
        return float((self.engaged.sum() + PRIOR_RATE * PRIOR_WEIGHT) / (self.shown.sum() + PRIOR_WEIGHT))


def code_lean(codes: npt.NDArray[np.integer], seen: Sighted, rows: Rows) -> Floats:
    """The lean to the code of each of `rows`, float32[len(rows)]; an unknown code (-1) is one like any."""
    values, place = np.unique(codes[seen.rows], return_inverse=True)
    lean = _lean(_sums(place, seen.engaged, len(values)), seen.rate * _sums(place, seen.shown, len(values)))
    at = np.searchsorted(values, codes[rows])
    known = at < len(values)
    known[known] = values[at[known]] == codes[rows][known]
    found = np.zeros(len(rows), np.float32)
    found[known] = lean[at[known]]
    return found


def skill_lean(skills: csr_matrix, seen: Sighted, expected: Floats) -> Floats:
    """The lean to each skill, float32[skills]; `expected` float32[m]: engagements expected of each sighted job."""
    asked = skills[seen.rows]
    return _lean(np.asarray(asked.T @ seen.engaged, np.float32), np.asarray(asked.T @ expected, np.float32))


def expected_of(codes: npt.NDArray[np.integer], seen: Sighted) -> Floats:
    """Engagements expected of each sighted job where its code's lean is known, float32[m]."""
    return np.asarray(np.exp(code_lean(codes, seen, seen.rows)) * seen.rate * seen.shown, np.float32)


def middles(vectors: JobVectors, seen: Sighted) -> tuple[Floats | None, Floats | None]:
    """Unit float32[d]: the middle of what was engaged with, by strength, and of what was shown and was not, by times
    shown. None where there is nothing of the kind."""
    unit = vectors.rows(seen.rows)
    return _unit(seen.strength @ unit), _unit((seen.shown * (1 - seen.engaged)) @ unit)


def _lean(engaged: Floats, expected: Floats) -> Floats:
    return np.asarray(np.log((engaged + np.float32(PRIOR)) / (expected + np.float32(PRIOR))), np.float32)


def _sums(place: npt.NDArray[np.integer], weights: Floats, count: int) -> Floats:
    return np.bincount(place, weights, minlength=count).astype(np.float32)


def _unit(vector: npt.NDArray[Any]) -> Floats | None:
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length, np.float32) if length > 1e-6 else None


def _strength(one: Sighting) -> float:
    return max((strength for kind, strength in _STRENGTHS.items() if one.did(kind)), default=0.0)
