"""The month itself: candidates come, are shown jobs, and respond. Requests of one candidate happen in order of time."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.market.choice import (
    APPLY_AT,
    CLICK_AT,
    POSITION_POWER,
    SAVE_AT,
    Appeal,
    Chooser,
    Floats,
    draw_slots,
    sigmoid,
)
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.postings import microseconds

_BLOCK = 256
_MINUTE_US = 60_000_000
_HOUR_US = 60 * _MINUTE_US
_DAY_US = 24 * _HOUR_US
_FRESHNESS_IN_SCORE = 0.8
_AGAIN = 1.5
_HOURS = np.arange(6, 23)
_HOUR_SHARE = np.array([1, 2, 4, 5, 5, 5, 6, 6, 5, 4, 4, 5, 6, 7, 7, 5, 3]) / 80


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Parallel arrays, one entry a shown job. `visit` counts a candidate's requests; `position` starts at 1.

    `wanted` is the utility at that instant; the employer's later answer depends on it.
    """

    candidate: npt.NDArray[np.intp]
    visit: npt.NDArray[np.intp]
    position: npt.NDArray[np.intp]
    job: npt.NDArray[np.intp]
    at_us: npt.NDArray[np.int64]
    propensity: npt.NDArray[np.float64]
    wanted: Floats
    clicked: npt.NDArray[np.bool_]
    saved: npt.NDArray[np.bool_]
    applied: npt.NDArray[np.bool_]
    dismissed: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Found:
    """Parallel arrays, one entry a job a candidate opened on their own, outside of any recommendation."""

    candidate: npt.NDArray[np.intp]
    visit: npt.NDArray[np.intp]
    job: npt.NDArray[np.intp]
    at_us: npt.NDArray[np.int64]
    wanted: Floats


_Part = TypeVar("_Part", Shown, Found)


def live_through(config: MarketConfig, chooser: Chooser) -> tuple[Shown, Found]:
    """Simulate every request of the month, block by block of candidates."""
    shown: list[Shown] = []
    found: list[Found] = []
    for number, start in enumerate(range(0, config.candidates, _BLOCK)):
        block = slice(start, min(start + _BLOCK, config.candidates))
        visits = _Block(config, chooser, block, config.random(5, number))
        for visit in range(max(1, visits.count_B.max())):
            shown.append(visits.recommend(visit))
            found.append(visits.search(visit))
    return _join(Shown, shown), _join(Found, found)


class _Block:
    """The candidates of one block and what they have done so far."""

    def __init__(self, config: MarketConfig, chooser: Chooser, block: slice, random: np.random.Generator) -> None:
        self.config, self.chooser, self.random, self.start = config, chooser, random, block.start
        self.appeal: Appeal = chooser.appeal(block, random)
        self.count_B, self.at_us_BV = _visit_times(config, chooser.people.joined_us[block], random)
        self.applied_BJ = np.zeros(self.appeal.utility.shape, dtype=bool)
        self.clicks_BJ = np.zeros(self.appeal.utility.shape, dtype=np.int8)

    def recommend(self, visit: int) -> Shown:
        """One request of every candidate who comes a `visit`-th time."""
        rows_R, at_R, open_RJ, age_RJ = self._now(visit)
        slots = self.config.slots
        score_RJ = self.appeal.score[rows_R] - _FRESHNESS_IN_SCORE * age_RJ
        shown_RK, propensity_RK = draw_slots(score_RJ, open_RJ, slots, self.random)
        wanted_RK = self._wanted(rows_R, at_R, age_RJ, shown_RK)
        position_K = np.arange(1, slots + 1)
        clicked, saved, applied, dismissed = _respond(wanted_RK, position_K, self.random)
        real_RK = np.take_along_axis(open_RJ, shown_RK, axis=1)
        clicked, applied = clicked & real_RK, applied & real_RK
        self.clicks_BJ[rows_R[:, None], shown_RK] += clicked
        self.applied_BJ[rows_R[:, None], shown_RK] |= applied
        request_N, slot_N = np.nonzero(real_RK)
        return Shown(
            candidate=rows_R[request_N] + self.start,
            visit=np.full(len(request_N), visit),
            position=position_K[slot_N],
            job=shown_RK[real_RK],
            at_us=at_R[request_N],
            propensity=propensity_RK[real_RK],
            wanted=wanted_RK[real_RK],
            clicked=clicked[real_RK],
            saved=saved[real_RK],
            applied=applied[real_RK],
            dismissed=dismissed[real_RK],
        )

    def search(self, visit: int) -> Found:
        """After some visits a candidate opens a job by themselves: position-free evidence of what they want."""
        rows_R, at_R, open_RJ, age_RJ = self._now(visit)
        came_R = (self.random.random(len(rows_R)) < 0.3) & open_RJ.any(axis=1)
        rows_R, at_R, open_RJ, age_RJ = rows_R[came_R], at_R[came_R], open_RJ[came_R], age_RJ[came_R]
        utility_RJ = 1.5 * (self.appeal.utility[rows_R] - 0.6 * age_RJ)
        job_R1, _ = draw_slots(utility_RJ, open_RJ, 1, self.random)
        wanted_R = self._wanted(rows_R, at_R, age_RJ, job_R1).ravel()
        delay_R = self.random.integers(20 * _MINUTE_US, 50 * _MINUTE_US, len(rows_R))
        visits = np.full(len(rows_R), visit)
        return Found(
            candidate=rows_R + self.start, visit=visits, job=job_R1.ravel(), at_us=at_R + delay_R, wanted=wanted_R
        )

    def _now(self, visit: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64], npt.NDArray[np.bool_], Floats]:
        """Who comes, when, which jobs are open to them (for two more hours), and the jobs' ages."""
        rows_R = np.flatnonzero(self.count_B > visit)
        at_R = self.at_us_BV[rows_R, visit]
        age_RJ = self.chooser.ages_in_months(at_R)
        closing_RJ = self.chooser.postings.expires_us <= at_R[:, None] + 2 * _HOUR_US
        return rows_R, at_R, (age_RJ >= 0) & ~closing_RJ & ~self.applied_BJ[rows_R], age_RJ

    def _wanted(
        self, rows_R: npt.NDArray[np.intp], at_R: npt.NDArray[np.int64], age_RJ: Floats, shown_RK: npt.NDArray[np.intp]
    ) -> Floats:
        again_RK = np.minimum(self.clicks_BJ[rows_R[:, None], shown_RK], 2)
        age_RK = np.take_along_axis(age_RJ, shown_RK, axis=1)
        rating_RK = self.chooser.ratings(at_R, shown_RK)
        utility_RK = self.appeal.utility[rows_R[:, None], shown_RK]
        return np.asarray(utility_RK + 0.6 * (rating_RK - 3.5) - 0.6 * age_RK - _AGAIN * again_RK, dtype=np.float32)


def _respond(
    wanted_RK: Floats, position_K: npt.NDArray[np.intp], random: np.random.Generator
) -> tuple[npt.NDArray[np.bool_], ...]:
    """Clicked, saved, applied, dismissed [R, K]; the last three each need the candidate to have looked."""
    luck = random.random((5, *wanted_RK.shape), dtype=np.float32)
    examined = luck[0] < position_K**-POSITION_POWER
    clicked = examined & (luck[1] < sigmoid(wanted_RK - CLICK_AT))
    saved = clicked & (luck[2] < sigmoid(wanted_RK - SAVE_AT))
    applied = clicked & (luck[3] < sigmoid(wanted_RK - APPLY_AT))
    dismissed = examined & ~clicked & (luck[4] < 0.03 * sigmoid(1.0 - wanted_RK))
    return clicked, saved, applied, dismissed


def _visit_times(
    config: MarketConfig, joined_us: npt.NDArray[np.int64], random: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Visits per candidate (some never come) and their sorted times [B, V], a minute apart at least."""
    size = len(joined_us)
    start = microseconds(config.starts_at)
    first_day = np.maximum(0, (joined_us - start) // _DAY_US + 1)
    present = 1.0 - first_day / config.days
    eager = config.requests_per_candidate * random.lognormal(-0.32, 0.8, size) * (random.random(size) > 0.08)
    count = np.minimum(random.poisson(eager * present), 40)
    longest = max(1, int(count.max()))
    day = first_day[:, None] + np.floor(random.random((size, longest)) * (config.days - first_day)[:, None])
    hour = random.choice(_HOURS, size=(size, longest), p=_HOUR_SHARE)
    at = start + day.astype(np.int64) * _DAY_US + hour * _HOUR_US + random.integers(0, _HOUR_US, (size, longest))
    unused = np.arange(longest) >= count[:, None]
    ordered = np.sort(np.where(unused, np.iinfo(np.int64).max // 2, at), axis=1)
    return count, ordered + np.arange(longest) * _MINUTE_US


def _join(kind: type[_Part], parts: list[_Part]) -> _Part:
    """Parallel arrays end to end."""
    return kind(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(kind)})
