"""Whether a day stands apart: drawn days, whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from rolecall.features.feature import Feature
from rolecall.pipelines.drift.measure import HISTORY, LEAST_DAYS, DriftReport, measure
from rolecall.pipelines.drift.populations import Population, count_days
from rolecall.pipelines.drift.statistics import FeatureStatistics

NEWEST = date(2026, 9, 1)
DAYS = [NEWEST - timedelta(days=back) for back in range(HISTORY, -1, -1)]
COLUMNS = 8
Rows = npt.NDArray[np.float64]


def drawn(day: date, seed: int, people: int = 60, repeats: int = 1) -> Rows:
    """People's numbers, `repeats` equal rows each: every weekday, and every single day, is a little different."""
    random = np.random.default_rng([seed, day.toordinal()])
    weekday = np.random.default_rng([seed, day.weekday()]).normal(0, 0.3, COLUMNS)
    own = random.normal(weekday + random.normal(0, 0.1, COLUMNS), 1.0, (people, COLUMNS))
    return np.repeat(own, repeats, axis=0)


def report(rows: Callable[[date], Rows], *, units: int = 60, days: list[date] = DAYS) -> DriftReport:
    names = [f"c{number}" for number in range(COLUMNS)]
    features = tuple(Feature(name=name, meaning=name) for name in names)

    def of(day: date) -> tuple[pl.DataFrame, int]:
        return pl.DataFrame(rows(day), schema=names), units

    population = Population(source="things", features=features, state=False, rows=of)
    return measure(count_days([population], days, FeatureStatistics()), NEWEST)


def test_quiet_days_seldom_raise_an_alarm_over_all_columns_together() -> None:
    runs = [report(lambda day, seed=seed: drawn(day, seed)) for seed in range(30)]  # type: ignore[misc]
    assert sum(run.drifted for run in runs) <= 2
    assert all(run.days == HISTORY and len(run.shifts) == COLUMNS for run in runs)


def test_many_equal_rows_of_one_person_are_no_evidence() -> None:
    runs = [report(lambda day, seed=seed: drawn(day, seed, repeats=20)) for seed in range(12)]  # type: ignore[misc]
    assert sum(run.drifted for run in runs) <= 1


def spoilt(change: Callable[[Rows], Rows], seed: int) -> DriftReport:
    def rows(day: date) -> Rows:
        told = drawn(day, seed)
        return np.column_stack([change(told[:, 0]), told[:, 1:]]) if day == NEWEST else told

    return report(rows)


@pytest.mark.parametrize(
    "change",
    [lambda told: told + 2, lambda told: told * 12, lambda told: np.full(len(told), math.nan)],
    ids=["moved", "another unit", "dropped"],
)
def test_a_planted_shift_is_seen_where_it_is(change: Callable[[Rows], Rows]) -> None:
    for seed in range(3):
        found = spoilt(change, seed)
        assert [one.column for one in found.alarms] == ["c0"]
        assert "c0 (things) drifted" in found.warnings()[0]


def test_too_few_days_judge_nothing() -> None:
    shifted = report(lambda day: drawn(day, 1) + 9 * (day == NEWEST), days=DAYS[-LEAST_DAYS:])
    assert not shifted.drifted
    assert math.isinf(shifted.threshold)
    assert shifted.metrics()["drift.height"] == 0


def test_an_earlier_drift_does_not_hide_a_later_one() -> None:
    apart = (NEWEST, NEWEST - timedelta(days=9))
    assert report(lambda day: drawn(day, 1) + 9 * (day in apart)).drifted


def test_a_report_comes_back_from_its_json() -> None:
    told = spoilt(lambda rows: np.full(len(rows), math.nan), 1)
    again = DriftReport.from_dict(told.to_dict())
    assert again.to_dict() == told.to_dict()
    assert again.warnings() == told.warnings()


def counted(units: Callable[[date], int]) -> DriftReport:
    """Days whose rows are alike and whose number is not."""
    features = tuple(Feature(name=f"c{number}", meaning="c") for number in range(COLUMNS))

    def of(day: date) -> tuple[pl.DataFrame, int]:
        return pl.DataFrame(drawn(day, 1), schema=[one.name for one in features]), units(day)

    population = Population(source="things", features=features, state=False, rows=of)
    return measure(count_days([population], DAYS, FeatureStatistics()), NEWEST)


def test_a_day_that_lost_half_of_its_rows_at_random_raises_an_alarm() -> None:
    found = counted(lambda day: 480 if day == NEWEST else 1_000 - day.toordinal() % 7)
    assert [one.source for one in found.lost] == ["things"]
    assert found.drifted
    assert "had 480 rows where such days have 99" in found.warnings()[-1]
    assert DriftReport.from_dict(found.to_dict()).lost == found.lost


def test_a_smaller_weekday_few_rows_and_more_rows_raise_none() -> None:
    def weekly(day: date) -> int:
        return 300 if day.weekday() == NEWEST.weekday() else 1_000

    assert not counted(weekly).lost
    assert not counted(lambda day: 30 if day == NEWEST else 90).lost
    assert not counted(lambda day: 70 if day == NEWEST else 100).lost
    assert not counted(lambda day: 3_000 if day == NEWEST else 1_000).lost
