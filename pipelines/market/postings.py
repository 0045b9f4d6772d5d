"""Job postings. They speak the employer's language: ESCO descriptions and O*NET task sentences, half of the titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from rolecall.features.schema import JOBS, SENIORITIES, TIMESTAMP
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.employers import Employers
from rolecall.pipelines.market.places import COUNTRIES, Places
from rolecall.pipelines.market.taxonomy import Occupation, Taxonomy

MAX_WORDS = 80
_GROUP_DEMAND = {
    "Computing and Mathematics": 4.0,
    "Sales": 4.0,
    "Healthcare": 2.5,
    "Food Service": 4.0,
    "Education": 3.0,
    "Office and Administration": 2.5,
    "Business and Finance": 2.5,
    "Management": 2.0,
    "Legal": 2.0,
    "Production": 0.5,
    "Science": 0.6,
}
_BASE_PAY = {
    "Management": 98_000,
    "Computing and Mathematics": 96_000,
    "Legal": 92_000,
    "Architecture and Engineering": 86_000,
    "Healthcare": 78_000,
    "Business and Finance": 76_000,
    "Science": 75_000,
}
_PAY_BY_SENIORITY = np.array([0.45, 0.72, 1.0, 1.3, 1.55, 2.1])
_SENIORITY_SHARE = np.array([0.05, 0.25, 0.38, 0.2, 0.09, 0.03])
_TITLE_PREFIX = ("Trainee", "Junior", "", "Senior", "Lead", "Head")
_DAY_US = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class Postings:
    """What the choice model needs of each job, beside the table itself. Times in microseconds since 1970."""

    table: pa.Table
    occupation: npt.NDArray[np.intp]
    employer: npt.NDArray[np.intp]
    place: npt.NDArray[np.intp]
    seniority: npt.NDArray[np.intp]
    remote: npt.NDArray[np.bool_]
    pay_log: npt.NDArray[np.float32]
    posted_us: npt.NDArray[np.int64]
    expires_us: npt.NDArray[np.int64]
    skills: sparse.csr_matrix


def demand(config: MarketConfig, taxonomy: Taxonomy) -> npt.NDArray[np.float64]:
    """How much of each occupation the market offers: uneven within a group, and between groups as stated above."""
    spread = config.random(2).lognormal(0.0, 0.6, len(taxonomy.occupations))
    weights = spread * np.array([_GROUP_DEMAND.get(o.group, 1.0) for o in taxonomy.occupations])
    return np.asarray(weights / weights.sum())


def seniorities(random: np.random.Generator, count: int) -> npt.NDArray[np.intp]:
    """`count` positions in SENIORITIES, most of them in the middle."""
    return random.choice(len(SENIORITIES), size=count, p=_SENIORITY_SHARE)


def pay_level(group: str, seniority: int, country: str) -> float:
    """Usual yearly pay in the country's currency."""
    return _BASE_PAY.get(group, 48_000) * float(_PAY_BY_SENIORITY[seniority]) * COUNTRIES[country][1]


def skill_matrix(rows: Sequence[Sequence[int]], columns: int) -> sparse.csr_matrix:
    """0/1 float32 rows of skill numbers."""
    indices = np.array([skill for row in rows for skill in row], dtype=np.int32)
    indptr = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int32)
    return sparse.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(len(rows), columns))


def make_postings(
    config: MarketConfig,
    taxonomy: Taxonomy,
    weights: npt.NDArray[np.float64],
    employers: Employers,
    places: Places,
) -> Postings:
    """Draw `config.jobs` postings; `weights` says how often each occupation comes."""
    random = config.random(3)
    n = config.jobs
    occupation = random.choice(len(taxonomy.occupations), size=n, p=weights)
    chosen = [taxonomy.occupations[number] for number in occupation.tolist()]
    employer = _employers_for(random, [o.group for o in chosen], employers)
    place, level = places.draw(random, n), seniorities(random, n)
    remote = random.random(n) < 0.15
    posted, expires = _times(config, random)
    skills = [sorted(random.choice(o.skills, size=random.integers(4, 7), replace=False).tolist()) for o in chosen]
    usual = [pay_level(o.group, int(s), str(c)) for o, s, c in zip(chosen, level, places.country[place], strict=True)]
    deviation = random.normal(0.0, 0.12, n) + employers.pay[employer]
    unlimited = random.random(n) < 0.15
    columns = {
        "job_id": [f"job-{number:06d}" for number in range(n)],
        **_wording(random, chosen, level, [employers.names[number] for number in employer.tolist()]),
        "employer_id": [employers.ids[number] for number in employer.tolist()],
        "skills": [[taxonomy.skills[skill] for skill in row] for row in skills],
        "seniority": [SENIORITIES[number] for number in level.tolist()],
        "remote": remote,
        "employment_type": _employment(random, level),
        "posted_at": pa.array(posted, TIMESTAMP),
        "expires_at": pa.array(expires, TIMESTAMP, mask=unlimited),
        "updated_at": pa.array(posted, TIMESTAMP),
        **place_columns(places, place, random.random(n) < 0.02),
        **_pay_columns(random, np.array(usual) * np.exp(deviation), places.country[place]),
    }
    return Postings(
        table=pa.Table.from_pydict(columns, schema=JOBS.columns),
        occupation=occupation,
        employer=employer,
        place=place,
        seniority=level,
        remote=remote,
        pay_log=deviation.astype(np.float32),
        posted_us=posted,
        expires_us=np.where(unlimited, np.iinfo(np.int64).max, expires),
        skills=skill_matrix(skills, len(taxonomy.skills)),
    )


def place_columns(places: Places, place: npt.NDArray[np.intp], unknown: npt.NDArray[np.bool_]) -> dict[str, pa.Array]:
    """City to longitude as table columns; null where `unknown`."""
    return {
        name: pa.array(getattr(places, name)[place], mask=unknown)
        for name in ("city", "region", "country", "lat", "lon")
    }


def microseconds(at: datetime) -> int:
    """Exact microseconds since 1970."""
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def _employers_for(random: np.random.Generator, groups: list[str], employers: Employers) -> npt.NDArray[np.intp]:
    """Mostly an employer of the job's own field, large ones more often; else any."""
    weight = employers.size**0.4
    field = np.array(employers.group)
    chosen = np.empty(len(groups), dtype=np.intp)
    wanted = np.array(groups)
    for group in sorted(set(groups)):
        rows = np.flatnonzero(wanted == group)
        odds = weight * np.where(field == group, 1.0, 0.004)
        chosen[rows] = random.choice(len(field), size=len(rows), p=odds / odds.sum())
    return chosen


def _times(config: MarketConfig, random: np.random.Generator) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Posted from 25 days before the first event up to the end; open for 20 to 60 days."""
    first, last = microseconds(config.starts_at) - 25 * _DAY_US, microseconds(config.ends_at)
    posted = np.sort(random.integers(first, last, config.jobs))
    return posted, posted + random.integers(20 * _DAY_US, 60 * _DAY_US, config.jobs)


def _wording(
    random: np.random.Generator, chosen: list[Occupation], level: npt.NDArray[np.intp], names: list[str]
) -> dict[str, list[Any]]:
    """The columns in words: title, description, category."""
    return {
        "title": [_title(random, work, int(rank)) for work, rank in zip(chosen, level, strict=True)],
        "description": [_description(random, work, name) for work, name in zip(chosen, names, strict=True)],
        "category_path": [[work.group, work.name] for work in chosen],
    }


def _title(random: np.random.Generator, occupation: Occupation, level: int) -> str:
    """Usually one of the employer's half of the titles; every second one says its seniority."""
    pool = occupation.titles[::2] if random.random() < 0.8 else occupation.titles
    title = pool[random.integers(len(pool))]
    prefix = _TITLE_PREFIX[level] if random.random() < 0.5 else ""
    return f"{prefix} {title}".strip().title() if title.islower() else f"{prefix} {title}".strip()


def _description(random: np.random.Generator, occupation: Occupation, employer: str) -> str:
    """Who hires, sometimes what the work is, and tasks; whole sentences only, MAX_WORDS words at most."""
    count = min(len(occupation.tasks), 3)
    tasks = [occupation.tasks[number] for number in random.choice(len(occupation.tasks), size=count, replace=False)]
    about = occupation.description.split(". ")[0].rstrip(".") + "."
    sentences = [f"{employer} is hiring.", *([about] if random.random() < 0.5 else []), *tasks]
    lengths = np.cumsum([len(sentence.split()) for sentence in sentences])
    return " ".join(sentence for sentence, length in zip(sentences, lengths, strict=True) if length <= MAX_WORDS)


def _employment(random: np.random.Generator, level: npt.NDArray[np.intp]) -> list[str]:
    drawn = random.choice(
        ["full_time", "part_time", "contract", "temporary"], size=len(level), p=[0.75, 0.12, 0.08, 0.05]
    )
    return [str(kind) for kind in np.where(level == 0, "internship", drawn)]


def _pay_columns(
    random: np.random.Generator, middle: npt.NDArray[np.float64], country: npt.NDArray[np.str_]
) -> dict[str, pa.Array]:
    """A published range around the middle in steps of 500; a quarter of the postings name none."""
    hidden = random.random(len(middle)) < 0.25
    return {
        "salary_min": pa.array(np.round(middle * 0.9 / 500) * 500, mask=hidden),
        "salary_max": pa.array(np.round(middle * 1.1 / 500) * 500, mask=hidden),
        "currency": pa.array([COUNTRIES[code][0] for code in country.tolist()], mask=hidden),
    }
