"""What is kept of every day."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import pytest

from rolecall.features.feature import Feature
from rolecall.pipelines.drift.populations import Population, count_days
from rolecall.pipelines.drift.statistics import FeatureStatistics
from rolecall.platform.errors import IntegrityError

DAY = date(2026, 9, 1)
DAYS = [DAY - timedelta(days=back) for back in (2, 1, 0)]


def population(rows: pl.DataFrame, meaning: str = "what it is") -> Population:
    features = (Feature(name="size", meaning=meaning), Feature(name="kind", kind="text", meaning="of which kind"))
    return Population(source="things", features=features, state=False, rows=lambda day: (rows, rows.height))


ROWS = pl.DataFrame({"size": [float(n) for n in range(20)], "kind": ["a"] * 15 + ["b"] * 5})
TWICE = ROWS.with_columns(pl.col("size") * 2)


def test_what_is_kept_comes_back_from_its_bytes() -> None:
    counted = count_days([population(ROWS)], DAYS, FeatureStatistics())
    read = FeatureStatistics.from_bytes(counted.to_bytes())
    assert read == counted
    assert read.to_bytes() == counted.to_bytes()


def test_a_day_that_was_counted_keeps_its_figures_when_the_tables_change() -> None:
    before = count_days([population(ROWS)], DAYS[:2], FeatureStatistics())
    after = count_days([population(TWICE)], DAYS, before)
    means = [day.columns["size"].mean for day in after.of("things")]
    assert means == [9.5, 9.5, 19.0]
    assert after.definitions == before.definitions


def test_a_source_whose_column_means_something_else_is_counted_anew() -> None:
    before = count_days([population(ROWS)], DAYS[:2], FeatureStatistics())
    after = count_days([population(TWICE, meaning="another thing")], DAYS, before)
    assert [day.columns["size"].mean for day in after.of("things")] == [19.0] * 3


@pytest.mark.parametrize("content", [b"", b"PAR1", b"{}"])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(IntegrityError, match="no feature statistics"):
        FeatureStatistics.from_bytes(content)
