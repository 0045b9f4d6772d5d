"""The policy that logged the month: which jobs it weighs for a visit, and how it draws the slots among them.

**The shelf.** Jobs lie in inverted lists by occupation and country. Every day each list puts up to 64 live jobs on
the shelf (all of them where there are no more; else a comb through the list that moves on every day), and a mixed
shelf holds jobs of any kind. A visit weighs the lists of the occupation looked at and of its nearest kin in the
country (of more kin where jobs are few), and the mixed shelf: some 300 jobs, however large the market is. The shelf
follows from the day alone, so it is part of the context that a propensity is conditional on, not of the chance in it.

**The draw.** The slots are drawn one after another without replacement, each job with probability proportional to
exp(score) among those still open (Plackett-Luce), so the propensity logged with an impression, given the slots above
it, is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.market.config import DAY_US, HOUR_US
from rolecall.pipelines.market.luck import Draw, Luck
from rolecall.pipelines.market.places import Places
from rolecall.pipelines.market.postings import LONGEST_DAYS, NO_JOB, Postings
from rolecall.pipelines.market.taxonomy import Taxonomy

_OWN = 64
_KIN = 24
_FEWEST_KINDS, _MOST_KINDS = 8, 48
_WANTED = 200
_MIXED = 48
_CLOSING_US = 2 * HOUR_US
Numbers = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """One day's shelf. `lists` [occupations * countries, at most 64] and `mixed` [48] hold job numbers, -1 for none."""

    lists: npt.NDArray[np.int64]
    mixed: npt.NDArray[np.int64]


class Shelves:
    """The inverted lists of all postings."""

    def __init__(self, luck: Luck, taxonomy: Taxonomy, postings: Postings, places: Places) -> None:
        self._luck, self._postings = luck, postings
        self._country = places.country_number
        self._countries = int(self._country.max()) + 1
        sparse = -(-_WANTED * len(taxonomy.occupations) // max(1, len(postings)))
        kinds = min(max(sparse, _FEWEST_KINDS), _MOST_KINDS)
        self._nearest = np.argsort(-taxonomy.kinship, axis=1, kind="stable")[:, :kinds]
        self._lists = len(taxonomy.occupations) * self._countries
        of_job = self._list_of(postings.occupation, postings.place)
        self._order = np.argsort(of_job, kind="stable")
        self._key = of_job[self._order] * np.int64(len(postings) + 1) + self._order

    def day(self, day_us: int) -> Shelf:
        """The shelf of the day that begins at `day_us`."""
        oldest = int(np.searchsorted(self._postings.posted_us, day_us - LONGEST_DAYS * DAY_US))
        newest = int(np.searchsorted(self._postings.posted_us, day_us + DAY_US))
        step = np.int64(len(self._postings) + 1)
        first = np.searchsorted(self._key, np.arange(self._lists) * step + oldest)
        count = np.searchsorted(self._key, np.arange(self._lists) * step + newest) - first
        start = self._luck.uniform(Draw.SHELF, np.arange(self._lists), day_us // DAY_US)
        picked = _comb(start, count, int(min(_OWN, count.max(initial=1))))
        lists = np.where(picked >= 0, self._order[np.minimum(first[:, None] + picked, len(self._order) - 1)], NO_JOB)
        mixed = _comb(
            self._luck.uniform(Draw.SHELF, self._lists, day_us // DAY_US), np.array([newest - oldest]), _MIXED
        )
        return Shelf(lists=lists, mixed=np.where(mixed[0] >= 0, mixed[0] + oldest, NO_JOB))

    def pool(self, shelf: Shelf, occupation_R: Numbers, place_R: Numbers) -> npt.NDArray[np.int64]:
        """The jobs to weigh for people who look at this occupation from this place [R, P]; -1 where there is none."""
        kin_RK = self._nearest[occupation_R]
        country_R = self._country[place_R].astype(np.int64)
        listed = shelf.lists[kin_RK * self._countries + country_R[:, None]]
        own, kin = listed[:, 0], listed[:, 1:, :_KIN].reshape(len(listed), -1)
        mixed = np.broadcast_to(shelf.mixed, (len(listed), len(shelf.mixed)))
        occupation = self._postings.occupation[mixed]
        same = (occupation[:, :, None] == kin_RK[:, None, :]).any(axis=2)
        same &= self._country[self._postings.place[mixed]] == country_R[:, None]
        return np.concatenate([own, kin, np.where(same, NO_JOB, mixed)], axis=1)

    def open(self, job_RP: Numbers, at_R: Numbers) -> npt.NDArray[np.bool_]:
        """Which of these jobs are posted and stay open for two more hours."""
        jobs = self._postings
        there = (jobs.posted_us[job_RP] <= at_R[:, None]) & (jobs.expires_us[job_RP] > at_R[:, None] + _CLOSING_US)
        return np.asarray(there & (job_RP >= 0))

    def _list_of(self, occupation: Numbers, place: Numbers) -> npt.NDArray[np.int64]:
        return occupation.astype(np.int64) * self._countries + self._country[place]


def _comb(start: npt.NDArray[np.float64], count: Numbers, size: int) -> npt.NDArray[np.int64]:
    """Up to `size` different positions below each count [L, size], evenly spread from a start; -1 where no more."""
    tooth = np.arange(size)
    spread = (start[:, None] * count[:, None] + tooth * count[:, None] / size).astype(np.int64) % np.maximum(
        count[:, None], 1
    )
    return np.where(count[:, None] > size, spread, np.where(tooth < count[:, None], tooth, -1))


def draw_slots(
    score_RP: npt.NDArray[Any], open_RP: npt.NDArray[np.bool_], slots: int, gumbel_RP: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Plackett-Luce: positions of `slots` open jobs for each request in shown order, and their propensities [R, K].

    Adding Gumbel noise and taking the largest draws exactly from it (Yellott 1977; Kool et al. 2019). Where fewer
    jobs are open than there are slots, closed ones fill the end with propensity 0.
    """
    logits_RP = np.where(open_RP, score_RP, -np.inf).astype(np.float64)
    noisy_RP = logits_RP + gumbel_RP
    top_RK = np.argpartition(-noisy_RP, slots - 1, axis=1)[:, :slots]
    order_RK = np.argsort(-np.take_along_axis(noisy_RP, top_RK, axis=1), axis=1, kind="stable")
    shown_RK = np.take_along_axis(top_RK, order_RK, axis=1)
    highest = np.where(open_RP.any(axis=1), logits_RP.max(axis=1, initial=-np.inf), 0.0)
    weight_RP = np.exp(logits_RP - highest[:, None])
    taken_RK = np.take_along_axis(weight_RP, shown_RK, axis=1)
    left_RK = weight_RP.sum(axis=1, keepdims=True) - np.cumsum(taken_RK, axis=1) + taken_RK
    return shown_RK, np.clip(taken_RK / np.maximum(left_RK, 1e-300), 0.0, 1.0)
