"""When things happen: weekdays and hours differ, in UTC throughout, so no clock change ever moves anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.market.config import DAY_US, HOUR_US, MarketConfig

POSTED_BEFORE = 25
"""Days before the first event from which postings exist."""

VISIT_WEEK = np.array([1.12, 1.12, 1.08, 1.05, 0.95, 0.8, 0.88])
POSTING_WEEK = np.array([1.35, 1.3, 1.25, 1.2, 1.1, 0.4, 0.4])
HOURS = np.arange(6, 23)
WEEKDAY_HOURS = np.array([1, 2, 4, 5, 5, 5, 6, 6, 5, 4, 4, 5, 6, 7, 7, 5, 3]) / 80
WEEKEND_HOURS = np.array([1, 1, 2, 4, 6, 7, 7, 6, 5, 5, 5, 5, 6, 7, 7, 4, 2]) / 80
_POSTING_HOURS = np.array([1] * 6 + [2, 4, 8, 10, 10, 9, 8, 9, 9, 8, 7, 5, 3] + [2] * 5, dtype=np.float64)


def weekday(day_us: int) -> int:
    """0 for a Monday; `day_us` is any instant of the day in microseconds since 1970 (a Thursday)."""
    return (day_us // DAY_US + 3) % 7


def visit_weight(config: MarketConfig, day_us: int) -> float:
    """How many visits a day brings against an average day."""
    return float(VISIT_WEEK[weekday(day_us)] / VISIT_WEEK.mean()) if config.seasons else 1.0


class PostingTimes:
    """Postings come in order of time: number n of `config.jobs` is the n-th.

    Each lies in its own stratum of a rate that follows weekdays and hours and goes on through the horizon, so the
    time of one posting needs no other.
    """

    def __init__(self, config: MarketConfig) -> None:
        first = config.start_us - POSTED_BEFORE * DAY_US
        hours = (config.last_us - first) // HOUR_US
        self._knots = first + np.arange(hours + 1, dtype=np.int64) * HOUR_US
        week = np.array([POSTING_WEEK[weekday(int(at))] if config.seasons else 1.0 for at in self._knots[:-1]])
        rate = week * np.tile(_POSTING_HOURS, len(week) // 24 + 1)[: len(week)]
        cumulated = np.concatenate([[0.0], np.cumsum(rate)])
        until_end = cumulated[(config.end_us - first) // HOUR_US]
        self._count = cumulated * (config.jobs / until_end)
        self.total = int(np.ceil(self._count[-1] - 1e-6)) if config.horizon else config.jobs

    def at(self, numbers: npt.NDArray[np.int64], uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Instants of these postings in microseconds; `uniform` says where in its stratum each lies."""
        offset = np.interp(numbers + uniform, self._count, self._knots - self._knots[0])
        return np.asarray(np.minimum(self._knots[0] + offset.astype(np.int64), self._knots[-1] - 1))


def as_datetime(at_us: int) -> datetime:
    """Microseconds since 1970 as an instant."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
