"""Candidates. They speak their own language: the other half of the titles, O*NET's short activities, other skills."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from rolecall.features.schema import CANDIDATES, SENIORITIES
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.places import Places
from rolecall.pipelines.market.postings import microseconds, place_columns, seniorities, skill_matrix
from rolecall.pipelines.market.taxonomy import Occupation, Taxonomy

_YEARS_BY_SENIORITY = (0, 2, 5, 9, 13, 18)
_DAY_US = 86_400_000_000
_SWITCHERS = 0.2
_NEWCOMERS = 0.25


@dataclass(frozen=True, kw_only=True)
class People:
    """What the choice model needs of each candidate, beside the table itself.

    `declared` is the occupation the profile tells of; `target` the one the candidate really looks for: a fifth have
    changed their mind without saying so, and only what they do shows it. `listed` skills stand in the profile,
    `liked` skills are what they enjoy, mostly unlisted.
    """

    table: pa.Table
    declared: npt.NDArray[np.intp]
    target: npt.NDArray[np.intp]
    place: npt.NDArray[np.intp]
    seniority: npt.NDArray[np.intp]
    joined_us: npt.NDArray[np.int64]
    likes_remote: npt.NDArray[np.float32]
    listed: sparse.csr_matrix
    able: sparse.csr_matrix
    liked: sparse.csr_matrix


def make_people(config: MarketConfig, taxonomy: Taxonomy, weights: npt.NDArray[np.float64], places: Places) -> People:
    """Draw `config.candidates` candidates; `weights` says how often each occupation comes."""
    random = config.random(4)
    n = config.candidates
    declared = random.choice(len(taxonomy.occupations), size=n, p=weights)
    target = _targets(random, declared, taxonomy)
    level, place = seniorities(random, n), places.draw(random, n)
    joined = _joined(config, random)
    listed, able, liked = _skills(random, declared, target, taxonomy)
    works = [taxonomy.occupations[number] for number in declared.tolist()]
    experience = [
        _experience(random, work, int(rank), config.starts_at.date()) for work, rank in zip(works, level, strict=True)
    ]
    columns = {
        "candidate_id": [f"cand-{number:06d}" for number in range(n)],
        "desired_titles": [_desired(random, work) for work in works],
        "resume_text": [_resume(random, work, int(rank)) for work, rank in zip(works, level, strict=True)],
        "skills": [[taxonomy.skills[skill] for skill in row] for row in listed],
        "seniority": pa.array([SENIORITIES[rank] for rank in level.tolist()], mask=random.random(n) < 0.1),
        **{name: pa.nulls(n, CANDIDATES.columns.field(name).type) for name in ("consent", "visibility", "hidden_from")},
        "experience": pa.array(experience, CANDIDATES.columns.field("experience").type),
        "updated_at": pa.array(joined, CANDIDATES.columns.field("updated_at").type),
        **place_columns(places, place, random.random(n) < 0.05),
    }
    return People(
        table=pa.Table.from_pydict(columns, schema=CANDIDATES.columns),
        declared=declared,
        target=target,
        place=place,
        seniority=level,
        joined_us=joined,
        likes_remote=random.normal(0.2, 0.6, n).astype(np.float32),
        listed=skill_matrix(listed, len(taxonomy.skills)),
        able=skill_matrix(able, len(taxonomy.skills)),
        liked=skill_matrix(liked, len(taxonomy.skills)),
    )


def _targets(random: np.random.Generator, declared: npt.NDArray[np.intp], taxonomy: Taxonomy) -> npt.NDArray[np.intp]:
    """Switchers look for one of the five occupations closest to their own."""
    near = np.argsort(-taxonomy.kinship, axis=1, kind="stable")[:, 1:6]
    switched = near[declared, random.integers(0, near.shape[1], len(declared))]
    return np.where(random.random(len(declared)) < _SWITCHERS, switched, declared)


def _joined(config: MarketConfig, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Most were there before the first event; newcomers join within the month and are cold at first."""
    start, end = microseconds(config.starts_at), microseconds(config.ends_at)
    before = start - random.integers(_DAY_US, 300 * _DAY_US, config.candidates)
    within = random.integers(start, end - _DAY_US, config.candidates)
    return np.where(random.random(config.candidates) < _NEWCOMERS, within, before)


def _skills(
    random: np.random.Generator,
    declared: npt.NDArray[np.intp],
    target: npt.NDArray[np.intp],
    taxonomy: Taxonomy,
) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Listed (in the profile), able (listed and more), liked (three of the work looked for)."""
    listed, able, liked = [], [], []
    for own, wanted in zip(declared.tolist(), target.tolist(), strict=True):
        pool = random.permutation(taxonomy.occupations[own].skills).tolist()
        size = int(random.integers(3, 7))
        stray = int(random.integers(len(taxonomy.skills)))
        listed.append(sorted({*pool[:size], stray}))
        able.append(sorted({*pool[: size + 4], stray}))
        liked.append(sorted(random.choice(taxonomy.occupations[wanted].skills, size=3, replace=False).tolist()))
    return listed, able, liked


def _own_words(work: Occupation) -> tuple[str, ...]:
    return work.titles[1::2] or work.titles


def _desired(random: np.random.Generator, work: Occupation) -> list[str]:
    pool = _own_words(work) if random.random() < 0.8 else work.titles
    count = min(len(pool), int(random.integers(1, 4)))
    return [pool[number] for number in random.choice(len(pool), size=count, replace=False).tolist()]


def _resume(random: np.random.Generator, work: Occupation, level: int) -> str:
    years = max(0, _YEARS_BY_SENIORITY[level] + int(random.integers(-1, 3)))
    count = min(len(work.activities), int(random.integers(3, 6)))
    done = [work.activities[number] for number in random.choice(len(work.activities), size=count, replace=False)]
    since = f"{years} years of work" if years else "Starting out"
    return f"{since} as {_pick(random, _own_words(work))}. Used to: {'; '.join(text.lower() for text in done)}."


def _experience(
    random: np.random.Generator, work: Occupation, level: int, today: date
) -> list[dict[str, str | date | None]]:
    """Past positions, newest first, without a gap; the newest is still held by two thirds."""
    count = 0 if level == 0 else int(random.integers(1, min(level, 3) + 2))
    ended: date | None = None if random.random() < 0.67 else today - timedelta(days=int(random.integers(20, 400)))
    held: list[dict[str, str | date | None]] = []
    for _ in range(count):
        started = (ended or today) - timedelta(days=int(random.integers(200, 1800)))
        held.append(
            {
                "title": _pick(random, _own_words(work)),
                "company": None,
                "started_at": started,
                "ended_at": ended,
                "description": _pick(random, work.activities),
            }
        )
        ended = started
    return held


def _pick(random: np.random.Generator, pool: tuple[str, ...]) -> str:
    return pool[int(random.integers(len(pool)))]
