"""Postings as rows of the jobs table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rolecall.features.schema import JOBS, SENIORITIES, TIMESTAMP
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.employers import Employers, employer_id
from rolecall.pipelines.market.event_rows import job_id
from rolecall.pipelines.market.luck import Draw, Luck
from rolecall.pipelines.market.places import COUNTRIES, Places
from rolecall.pipelines.market.postings import NEVER_US, Postings
from rolecall.pipelines.market.taxonomy import Taxonomy
from rolecall.pipelines.market.wording import JOB_DRAWS, edited, job_description, job_title

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
_EMPLOYMENT = ("full_time", "part_time", "contract", "temporary")
_EMPLOYMENT_SHARE = np.cumsum([0.75, 0.12, 0.08, 0.05])
_STUFFED = 6


class JobTable:
    """Puts words, pay and places to postings."""

    def __init__(
        self, config: MarketConfig, luck: Luck, taxonomy: Taxonomy, employers: Employers, places: Places
    ) -> None:
        self._limit, self._luck, self._taxonomy = config.max_words, luck, taxonomy
        self._employers, self._places = employers, places
        self._base = np.array([_BASE_PAY.get(o.group, 48_000) for o in taxonomy.occupations])
        self._paths = [list(o.path) for o in taxonomy.occupations]

    def rows(self, postings: Postings) -> pa.Table:
        """One row a posting."""
        titles, descriptions, skills = self._words(postings)
        posted = pa.array(postings.posted_us, TIMESTAMP)
        expires = np.where(postings.expires_us == NEVER_US, 0, postings.expires_us)
        u = {column: self._luck.uniform(Draw.JOB_TEXT, postings.origin, 100 + column) for column in range(3)}
        columns = {
            "job_id": [job_id(number) for number in postings.number.tolist()],
            "title": titles,
            "description": descriptions,
            "employer_id": [employer_id(number) for number in postings.employer.tolist()],
            "skills": skills,
            "category_path": [self._paths[number] for number in postings.occupation.tolist()],
            "seniority": [SENIORITIES[number] for number in postings.seniority.tolist()],
            "remote": postings.remote,
            "employment_type": _employment(u[0], postings.seniority),
            "posted_at": posted,
            "expires_at": pa.array(expires, TIMESTAMP, mask=postings.expires_us == NEVER_US),
            "updated_at": posted,
            **place_columns(self._places, postings.place, u[1] < 0.02),
            **self._pay(postings, u[2] < 0.25),
        }
        return pa.Table.from_pydict(columns, schema=JOBS.columns)

    def _words(self, postings: Postings) -> tuple[list[str], list[str], list[list[str]]]:
        titles, descriptions, skills = [], [], []
        labels, occupations = self._taxonomy.skills, self._taxonomy.occupations
        draws = self._luck.uniform(Draw.JOB_TEXT, postings.origin[:, None], np.arange(JOB_DRAWS)).tolist()
        edits = self._luck.uniform(Draw.REPOST, postings.number, 3).tolist()
        again = (postings.origin != postings.number).tolist()
        rows = zip(
            postings.occupation.tolist(),
            postings.employer.tolist(),
            postings.seniority.tolist(),
            postings.skills.tolist(),
            postings.spam.tolist(),
            strict=True,
        )
        for row, (work, employer, level, chosen, spam) in enumerate(rows):
            u = draws[row]
            own = [labels[skill] for skill in chosen if skill >= 0]
            stuffed = [labels[int((u[7] + n / _STUFFED) % 1 * len(labels))] for n in range(_STUFFED)] if spam else []
            occupation = occupations[work]
            limit = self._limit - 6 if again[row] and self._limit > 20 else self._limit
            text = job_description(occupation, self._employers.name(employer), own, limit, u, spam=spam)
            titles.append(job_title(occupation, level, u))
            descriptions.append(edited(text, edits[row]) if again[row] and self._limit > 20 else text)
            skills.append(list(dict.fromkeys([*own, *stuffed])))
        return titles, descriptions, skills

    def _pay(self, postings: Postings, hidden: npt.NDArray[np.bool_]) -> dict[str, pa.Array]:
        """A published range around the middle in steps of 500; a quarter of the postings name none."""
        country = self._places.country_number[postings.place]
        factor = np.array([pay for _, pay, _ in COUNTRIES.values()])[country]
        currency = np.array([currency for currency, _, _ in COUNTRIES.values()])[country]
        usual = self._base[postings.occupation] * _PAY_BY_SENIORITY[postings.seniority] * factor
        middle = usual * np.exp(postings.pay_log.astype(np.float64))
        return {
            "salary_min": pa.array(np.round(middle * 0.9 / 500) * 500, mask=hidden),
            "salary_max": pa.array(np.round(middle * 1.1 / 500) * 500, mask=hidden),
            "currency": pa.array(currency, mask=hidden),
        }


def place_columns(places: Places, place: npt.NDArray[Any], unknown: npt.NDArray[np.bool_]) -> dict[str, pa.Array]:
    """City to longitude as table columns; null where `unknown`."""
    return {
        name: pa.array(getattr(places, name)[place], mask=unknown)
        for name in ("city", "region", "country", "lat", "lon")
    }


def _employment(u: npt.NDArray[np.float64], level: npt.NDArray[np.int8]) -> list[str]:
    drawn = np.array(_EMPLOYMENT)[np.minimum(np.searchsorted(_EMPLOYMENT_SHARE, u), 3)]
    return [str(kind) for kind in np.where(level == 0, "internship", drawn)]
