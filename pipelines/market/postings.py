"""What every posting is, as numbers. Words are put to it by `wording.py`, a table by `job_table.py`.

Everything about posting n follows from (seed, n): any set of postings can be drawn at any time, in any order.
A repost has the substance and nearly the words of an earlier posting (`origin`), another id and often another city.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.market.config import DAY_US, MarketConfig
from rolecall.pipelines.market.employers import Employers
from rolecall.pipelines.market.luck import Draw, Luck, pick
from rolecall.pipelines.market.places import Places
from rolecall.pipelines.market.seasons import PostingTimes
from rolecall.pipelines.market.taxonomy import SKILLS_PER_OCCUPATION, Taxonomy

NEVER_US = np.iinfo(np.int64).max
MOST_SKILLS = 6
LONGEST_DAYS = 60
NO_JOB = -1
EMPLOYERS_WORDS = np.where(np.arange(SKILLS_PER_OCCUPATION) % 2 == 0, 3.0, 1.0)
"""How readily each of an occupation's skills is named: as with titles, employers and people prefer different halves."""

_REPOST_REACH = 2_000
_BLOCK = 65_536
_OWN_FIELD = 0.8
_SPAM_OF_BAD = 0.6
_SPAM_PAY = 0.6
_SENIORITY_SHARE = np.array([0.05, 0.25, 0.38, 0.2, 0.09, 0.03])
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


@dataclass(frozen=True, kw_only=True)
class Postings:
    """Parallel arrays, one entry a posting, in order of `posted_us` (microseconds since 1970).

    `skills` [J, 6] are positions in `Taxonomy.skills`, -1 where there are fewer. `origin` is the posting whose words
    it has, itself unless it is a repost. `pay_log` is pay against what such work usually pays, as a logarithm.
    `capacity` is the number of applications after which the employer answers nobody. `spam` belongs to the truth.
    """

    number: npt.NDArray[np.int32]
    origin: npt.NDArray[np.int32]
    occupation: npt.NDArray[np.int16]
    employer: npt.NDArray[np.int32]
    place: npt.NDArray[np.int16]
    seniority: npt.NDArray[np.int8]
    remote: npt.NDArray[np.bool_]
    pay_log: npt.NDArray[np.float32]
    posted_us: npt.NDArray[np.int64]
    expires_us: npt.NDArray[np.int64]
    skills: npt.NDArray[np.int16]
    capacity: npt.NDArray[np.int16]
    spam: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.number)


def demand(luck: Luck, taxonomy: Taxonomy) -> npt.NDArray[np.float64]:
    """How much of each occupation the market offers: uneven within a group, and between groups as stated above."""
    spread = np.exp(0.6 * luck.normal(Draw.DEMAND, np.arange(len(taxonomy.occupations))))
    weights = spread * np.array([_GROUP_DEMAND.get(o.group, 1.0) for o in taxonomy.occupations])
    return np.asarray(weights / weights.sum())


def seniorities(uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Positions in SENIORITIES, most of them in the middle."""
    return pick(uniform, np.cumsum(_SENIORITY_SHARE)).astype(np.int8)


class PostingSource:
    """Draws postings by their numbers."""

    def __init__(
        self,
        config: MarketConfig,
        luck: Luck,
        taxonomy: Taxonomy,
        weights: npt.NDArray[np.float64],
        employers: Employers,
        places: Places,
    ) -> None:
        self._config, self._luck, self._employers = config, luck, employers
        self._times = PostingTimes(config)
        self._cumulated = np.cumsum(weights)
        self._places = np.cumsum(places.share)
        self._skills = np.array([o.skills for o in taxonomy.occupations], dtype=np.int16)
        kinds = {group: number for number, group in enumerate(employers.groups)}
        self._kind = np.array([kinds[o.group] for o in taxonomy.occupations])
        self._by_kind = np.argsort(employers.group, kind="stable")
        self._weight = np.concatenate([[0.0], np.cumsum((employers.size**0.4)[self._by_kind])])
        self._start = np.searchsorted(employers.group[self._by_kind], np.arange(len(kinds) + 1))
        self.total = self._times.total

    def all(self) -> Postings:
        """Every posting up to the end of the horizon: about 50 bytes each."""
        columns: dict[str, npt.NDArray[Any]] = {}
        for at in range(0, self.total, _BLOCK):
            some = self.draw(np.arange(at, min(at + _BLOCK, self.total)))
            for name in (f.name for f in fields(Postings)):
                part = getattr(some, name)
                whole = columns.setdefault(name, np.empty((self.total, *part.shape[1:]), dtype=part.dtype))
                whole[at : at + len(part)] = part
        return Postings(**columns)

    def draw(self, number: npt.NDArray[np.int64]) -> Postings:
        """These postings."""
        origin = self._origin(number)
        u = {column: self._luck.uniform(Draw.JOB, origin, column) for column in range(9)}
        occupation = pick(u[0], self._cumulated)
        employer = self._employer(occupation, u[1], u[2])
        spam = self._employers.bad[employer] & (u[3] < _SPAM_OF_BAD)
        deviation = 0.12 * self._luck.normal(Draw.JOB, origin, 9) + self._employers.pay[employer] + _SPAM_PAY * spam
        posted, expires = self._life(number)
        return Postings(
            number=number.astype(np.int32),
            origin=origin.astype(np.int32),
            occupation=occupation.astype(np.int16),
            employer=employer.astype(np.int32),
            place=self._place(number, origin),
            seniority=seniorities(u[4]),
            remote=u[5] < 0.15,
            pay_log=deviation.astype(np.float32),
            posted_us=posted,
            expires_us=expires,
            skills=self._chosen_skills(origin, occupation, 4 + (3 * u[6]).astype(np.intp)),
            capacity=(3 + 9 * u[7] + 0.6 * np.log10(self._employers.size[employer])).astype(np.int16),
            spam=spam,
        )

    def _origin(self, number: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """A posting not far back that is no repost itself; else the posting's own number."""
        back = 1 + (self._luck.uniform(Draw.REPOST, number, 1) ** 2 * _REPOST_REACH).astype(np.int64)
        earlier = np.maximum(number - back, 0)
        found = self._is_repost(number) & (number - back >= 0) & ~self._is_repost(earlier)
        return np.where(found, earlier, number)

    def _is_repost(self, number: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return np.asarray(self._luck.uniform(Draw.REPOST, number, 0) < self._config.reposts)

    def _employer(
        self, occupation: npt.NDArray[np.intp], field: npt.NDArray[np.float64], which: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.intp]:
        """Mostly an employer of the job's own field, large ones more often; else any."""
        kind = self._kind[occupation]
        lowest, highest = self._weight[self._start[kind]], self._weight[self._start[kind + 1]]
        anywhere = (field > _OWN_FIELD) | (highest <= lowest)
        lowest, highest = np.where(anywhere, 0.0, lowest), np.where(anywhere, self._weight[-1], highest)
        found = np.searchsorted(self._weight, lowest + which * (highest - lowest), side="right") - 1
        return np.asarray(self._by_kind[np.clip(found, 0, len(self._by_kind) - 1)])

    def _place(self, number: npt.NDArray[np.int64], origin: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """Half of the reposts are the same job in another city."""
        moved = self._luck.uniform(Draw.REPOST, number, 2) < 0.5
        key = np.where(moved, number, origin)
        return pick(self._luck.uniform(Draw.JOB, key, 10), self._places).astype(np.int16)

    def _life(self, number: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Open for 20 to 60 days; some name no end."""
        posted = self._times.at(number, self._luck.uniform(Draw.JOB, number, 11))
        days = 20 + (LONGEST_DAYS - 20) * self._luck.uniform(Draw.JOB, number, 12)
        unlimited = self._luck.uniform(Draw.JOB, number, 13) < 0.15
        return posted, np.where(unlimited, NEVER_US, posted + (days * DAY_US).astype(np.int64))

    def _chosen_skills(
        self, origin: npt.NDArray[np.int64], occupation: npt.NDArray[np.intp], count: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.int16]:
        order = self._luck.subset(Draw.JOB_SKILLS, origin, EMPLOYERS_WORDS)[:, :MOST_SKILLS]
        chosen = np.take_along_axis(self._skills[occupation], order, axis=1)
        return np.where(np.arange(MOST_SKILLS) < count[:, None], chosen, -1).astype(np.int16)


def take(postings: Postings, rows: npt.NDArray[Any] | slice) -> Postings:
    """Some of the postings, by position."""
    return Postings(**{f.name: getattr(postings, f.name)[rows] for f in fields(Postings)})
