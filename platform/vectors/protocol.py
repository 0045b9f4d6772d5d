"""What a vector index promises, whatever engine stands behind it.

A point is one job (or, in the index of people, one person): its row number in the release's catalogue, a dense vector,
the terms of its lexical text, and a payload that filters read. Searches are batches: every query of a request goes
to the engine in one call. Hits come best first; equal scores are ordered by row.

    index.upsert(IndexPoints(rows=rows, dense=vectors, terms=terms, payloads=payloads))
    index.optimize()
    dense, lexical = index.search([DenseQuery(vector=v), SparseQuery(terms=t)], SearchFilter(at=now), limit=1000)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rolecall.platform.errors import InputError

Payload = Mapping[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

KEYWORD_KEYS = ("country", "region", "city", "employment_type", "seniority", "category", "skill")
"""Payload keys matched as whole words, whatever their case. `category` holds every level of a job's category path,
`skill` a person's skills."""

TIME_KEYS = ("posted_us", "expires_us", "active_us")
"""Payload keys that hold UTC microseconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """How an index is built and searched.

    `average_terms`: mean length of the lexical texts, for BM25's length normalisation.
    `exact_below`: up to this many points a dense search scans all of them (recall 1, and no slower there);
    above, it walks the HNSW graph with `ef_search` and rescores int8 hits with the full vectors.
    """

    dimension: int
    average_terms: float
    m: int = 16
    ef_construct: int = 100
    ef_search: int = 128
    exact_below: int = 30_000


@dataclass(frozen=True, kw_only=True)
class IndexPoints:
    """Jobs to put into an index: all four have the same length. `dense` is float32 [n, dimension]."""

    rows: npt.NDArray[np.int32]
    dense: npt.NDArray[np.float32]
    terms: Sequence[Sequence[str]]
    payloads: Sequence[Payload]

    def __post_init__(self) -> None:
        sizes = {len(self.rows), len(self.dense), len(self.terms), len(self.payloads)}
        if len(sizes) != 1:
            raise InputError(f"points with parts of lengths {sorted(sizes)}", "one row, vector, text and payload each")


@dataclass(frozen=True, kw_only=True)
class DenseQuery:
    """Nearest by cosine. `vector`: float32 [dimension]."""

    vector: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SparseQuery:
    """Best by BM25 over the given terms (cut by the same tokenizer as the indexed texts)."""

    terms: Sequence[str]


Query = DenseQuery | SparseQuery


@dataclass(frozen=True, kw_only=True)
class SearchFilter:
    """Which jobs may be found; every condition given must hold, an empty one always does.

    `at`: the job is live then: not posted later, not expired by then; an unknown time never excludes.
    Every other condition excludes jobs whose value is unknown. `categories` match any level of a path.
    `salary_at_least` looks at the upper end of the range. `radius_km` needs `lat` and `lon`. `skills`, any of them, and
    `active_since` are asked of people.
    """

    at: datetime | None = None
    countries: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    cities: tuple[str, ...] = ()
    employment_types: tuple[str, ...] = ()
    seniorities: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    remote: bool | None = None
    salary_at_least: float | None = None
    active_since: datetime | None = None
    radius_km: float | None = None
    lat: float | None = None
    lon: float | None = None
    exclude_rows: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        for time in (self.at, self.active_since):
            if time is not None and time.tzinfo is None:
                raise InputError(f"filter time {time} without a zone", "a time with a zone, such as UTC")
        if self.radius_km is not None and (self.lat is None or self.lon is None or not self.radius_km > 0):
            raise InputError(f"radius {self.radius_km} km around ({self.lat}, {self.lon})", "radius > 0, lat and lon")

    def keywords(self) -> dict[str, tuple[str, ...]]:
        """The word conditions in force, by payload key."""
        values = (
            self.countries, self.regions, self.cities, self.employment_types, self.seniorities, self.categories,
            self.skills,
        )  # fmt: skip
        return {key: tuple(map(keyword, words)) for key, words in zip(KEYWORD_KEYS, values, strict=True) if words}


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Answers of one query, best first, equal scores by row: `rows` int32 [k], `scores` float32 [k]."""

    rows: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]


class VectorIndex(Protocol):
    """One index of one release. Safe to search from several threads; one thread writes."""

    config: IndexConfig

    def upsert(self, points: IndexPoints) -> None:
        """Insert points, or replace those whose row is known."""

    def delete(self, rows: Sequence[int]) -> None:
        """Remove points; unknown rows are ignored."""

    def optimize(self) -> None:
        """Build what makes searches fast. Blocks until nothing is left to build."""

    def search(self, queries: Sequence[Query], filter: SearchFilter, limit: int) -> list[Hits]:
        """One answer per query, at most `limit` hits each; `limit` is at least 1.

        Two indexes built from the same points answer alike, also where the cut falls among equal scores;
        above `exact_below` points that holds for sparse queries only, since a graph differs from build to build.
        """
        ...

    def count(self, filter: SearchFilter | None = None) -> int:
        """How many points there are, or pass the filter."""
        ...

    def snapshot(self, path: Path) -> None:
        """Write one file from which `open_index` opens this index again."""

    def close(self) -> None:
        """Release files and connections; closing twice is harmless."""


def job_payload(job: Payload) -> dict[str, Any]:
    """What the index keeps of a job (a row of the jobs table) for filtering. Unknown values are left out."""
    salary = job.get("salary_max") if job.get("salary_max") is not None else job.get("salary_min")
    lat, lon = job.get("lat"), job.get("lon")
    payload = {
        **{key: keyword(job[key]) for key in KEYWORD_KEYS[:5] if job.get(key)},
        "category": [keyword(level) for level in job.get("category_path") or ()] or None,
        "remote": None if job.get("remote") is None else int(bool(job["remote"])),
        "salary": salary,
        "place": {"lat": lat, "lon": lon} if lat is not None and lon is not None else None,
        "posted_us": epoch_us(job.get("posted_at")),
        "expires_us": epoch_us(job.get("expires_at")),
    }
    return {key: value for key, value in payload.items() if value is not None}


def person_payload(person: Payload, *, active_at: datetime | None) -> dict[str, Any]:
    """What the index keeps of a person (a row of the candidates table). Known from the profile's last edit on."""
    lat, lon = person.get("lat"), person.get("lon")
    payload = {
        **{key: keyword(person[key]) for key in ("country", "region", "city", "seniority") if person.get(key)},
        "skill": [keyword(skill) for skill in person.get("skills") or ()] or None,
        "place": {"lat": lat, "lon": lon} if lat is not None and lon is not None else None,
        "posted_us": epoch_us(person.get("updated_at")),
        "active_us": epoch_us(active_at),
    }
    return {key: value for key, value in payload.items() if value is not None}


def keyword(text: str) -> str:
    """The form in which words are matched: `Berlin`, `berlin` and ` BERLIN` are one city."""
    return " ".join(text.split()).casefold()


def epoch_us(at: datetime | None) -> int | None:
    """UTC microseconds since 1970, exactly."""
    return None if at is None else (at - _EPOCH) // timedelta(microseconds=1)


def ordered(rows: npt.NDArray[np.int32], scores: npt.NDArray[np.float32]) -> Hits:
    """Hits with equal scores put in row order, whatever order an engine gave them in."""
    order = np.lexsort((rows, -scores))
    return Hits(rows=rows[order], scores=scores[order])


def best(ask: Callable[[Sequence[int], int], list[Hits]], queries: int, limit: int) -> list[Hits]:
    """The first `limit` hits by (score, row) of each query, where an engine knows only scores.

    `ask(places, wanted)` has the engine answer the queries at those places with up to `wanted` hits each.
    An engine cuts a group of equal scores as its files happen to lie, and so answers otherwise after each
    build. Hence more is asked for than wanted, and again more as long as the cut may lie within such a group.
    """
    if limit < 1:
        raise InputError(f"a limit of {limit}", "at least 1")
    answers: dict[int, Hits] = {}
    open_places = list(range(queries))
    wanted = limit + limit // 8 + 16
    while open_places:
        replies = ask(open_places, wanted)
        for place, hits in zip(open_places, replies, strict=True):
            if len(hits.rows) < wanted or hits.scores[limit - 1] > hits.scores[-1]:
                answers[place] = Hits(rows=hits.rows[:limit], scores=hits.scores[:limit])
        open_places = [place for place in open_places if place not in answers]
        wanted *= 4
    return [answers[place] for place in range(queries)]


def checked(points: IndexPoints, config: IndexConfig) -> None:
    """Raises InputError on vectors of another dimension, or with a value that is no number."""
    if points.dense.shape[1:] != (config.dimension,) or not np.isfinite(points.dense).all():
        raise InputError(f"vectors of shape {points.dense.shape}", f"finite numbers, [n, {config.dimension}]")


def unit(vector: npt.NDArray[np.float32], dimension: int) -> list[float]:
    """A query vector as an engine takes it. Raises InputError on a wrong shape or a value that is no number."""
    if vector.shape != (dimension,) or not math.isfinite(float(vector.sum())):
        raise InputError(f"a query vector of shape {vector.shape}", f"{dimension} finite numbers")
    values: list[float] = vector.tolist()
    return values
