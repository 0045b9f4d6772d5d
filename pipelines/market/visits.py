"""Who comes to the job board on a day, and when: a function of (seed, candidate, day) alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.market.config import DAY_US, HOUR_US, MINUTE_US, MarketConfig
from rolecall.pipelines.market.event_rows import candidate_id
from rolecall.pipelines.market.luck import Draw, Luck, pick
from rolecall.pipelines.market.people import People
from rolecall.pipelines.market.seasons import HOURS, WEEKDAY_HOURS, WEEKEND_HOURS, visit_weight, weekday

MOST_VISITS = 4
"""Visits of one candidate on one day, at most. Visit numbers are MOST_VISITS * day of the market + visit of the day."""

_COMING = 1.12
"""Makes up for those who never come and those who leave."""


@dataclass(frozen=True, kw_only=True)
class Visits:
    """Parallel arrays, one entry a visit, in order of `again` (earlier visits of that day), then of candidate."""

    candidate: npt.NDArray[np.int64]
    visit: npt.NDArray[np.int64]
    at_us: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.candidate)

    @property
    def candidate_ids(self) -> list[str]:
        """The candidates as the tables name them."""
        return [candidate_id(number) for number in self.candidate.tolist()]

    @property
    def again(self) -> npt.NDArray[np.int64]:
        """How many visits of that day came before."""
        return self.visit % MOST_VISITS

    def take(self, rows: npt.NDArray[Any] | slice) -> Visits:
        """Some of them."""
        return Visits(candidate=self.candidate[rows], visit=self.visit[rows], at_us=self.at_us[rows])

    def blocks(self, size: int) -> Iterator[Visits]:
        """All of them, `size` at a time; nobody comes twice within a block."""
        for again in range(MOST_VISITS):
            rows = np.flatnonzero(self.again == again)
            for at in range(0, len(rows), size):
                yield self.take(rows[at : at + size])


def visits_of(config: MarketConfig, luck: Luck, people: People, day_us: int) -> Visits:
    """All visits of the day. People come from the day after they joined to the day before they leave."""
    index = (day_us - config.start_us) // DAY_US
    rate = people.eager * (_COMING * config.requests_per_candidate / config.days * visit_weight(config, day_us))
    rate = rate * ((people.joined_us < day_us) & (people.left_us >= day_us + DAY_US))
    coming = np.flatnonzero(rate > 0)
    count = _poisson(luck.uniform(Draw.VISIT, coming, index, 0), rate[coming].astype(np.float64))
    rows = np.repeat(coming, count)
    again = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    share = WEEKEND_HOURS if weekday(day_us) >= 5 else WEEKDAY_HOURS
    hour = HOURS[pick(luck.uniform(Draw.VISIT, rows, index, 1 + again), np.cumsum(share))]
    within = luck.uniform(Draw.VISIT, rows, index, 100 + again) * (HOUR_US - 4 * MINUTE_US)
    at = day_us + hour * HOUR_US + within.astype(np.int64)
    order = np.lexsort([at, rows])
    at = at[order] + again * MINUTE_US
    wanted = np.lexsort([rows, again])
    return Visits(candidate=rows[wanted], visit=(index * MOST_VISITS + again)[wanted], at_us=at[wanted])


def _poisson(uniform: npt.NDArray[np.float64], rate: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Poisson counts by inversion, at most MOST_VISITS."""
    term = np.exp(-rate)
    cumulated, count = term.copy(), np.zeros(len(rate), dtype=np.intp)
    for k in range(1, MOST_VISITS + 1):
        count += uniform > cumulated
        term = term * rate / k
        cumulated += term
    return count
