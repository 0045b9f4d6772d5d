"""How a day's values are counted."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from rolecall.features.feature import Kind
from rolecall.pipelines.drift.sketch import LEAST_ROWS, Sketch

NUMBERS = st.lists(st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, 1.0])), max_size=60)
TEXTS = st.lists(st.one_of(st.none(), st.sampled_from("abcdefgh")), max_size=60)
LISTS = st.lists(st.one_of(st.none(), st.lists(st.sampled_from("abcdefgh"), max_size=4)), max_size=60)
COLUMNS: list[tuple[Kind, pl.DataType, st.SearchStrategy[list[object]]]] = [
    ("number", pl.Float64(), NUMBERS),
    ("text", pl.String(), TEXTS),
    ("list", pl.List(pl.String()), LISTS),
]


@given(st.sampled_from(COLUMNS), st.data())
def test_two_days_counted_together_are_the_sum_of_the_days(
    column: tuple[Kind, pl.DataType, st.SearchStrategy[list[object]]], data: st.DataObject
) -> None:
    kind, dtype, strategy = column
    before, one, other = (pl.Series("c", data.draw(strategy), dtype=dtype) for _ in range(3))
    sketch = Sketch.learn(before, kind)
    both = sketch.statistics(one.append(other).alias("c"))
    parts = [sketch.statistics(rows) for rows in (one.head(len(one) - len(other)), other)]
    assert both.rows == sum(part.rows for part in parts)
    assert both.missing == sum(part.missing for part in parts)
    assert both.counts == tuple(sum(pair) for pair in zip(*(part.counts for part in parts), strict=True))


@given(NUMBERS, NUMBERS)
def test_every_known_number_falls_into_one_bin(first: list[float | None], day: list[float | None]) -> None:
    sketch = Sketch.learn(pl.Series(first, dtype=pl.Float64), "number")
    told = sketch.statistics(pl.Series(day, dtype=pl.Float64))
    known = [value for value in day if value is not None and not math.isnan(value)]
    assert sum(told.counts) == len(known) == told.rows - told.missing


def test_a_number_that_all_rows_share_is_told_from_larger_and_smaller_ones() -> None:
    sketch = Sketch.learn(pl.Series([3.0] * 50), "number")
    counts = {value: sketch.statistics(pl.Series([value])).counts for value in (1.5, 3.0, 6.0)}
    assert len(set(counts.values())) == 3


@given(st.lists(st.sampled_from("abcdefghij"), max_size=80))
def test_nothing_that_few_rows_say_is_written_down(rows: list[str]) -> None:
    sketch = Sketch.learn(pl.Series("c", rows, dtype=pl.String), "text")
    assert all(rows.count(value) >= LEAST_ROWS for value in sketch.values)


def test_ids_and_free_texts_are_measured_and_never_written_down() -> None:
    ids = pl.Series("c", [["job-1", "job-2"]] * 40)
    resumes = pl.Series("c", [f"the résumé of person {number}" for number in range(40)])
    for sketch in (Sketch.learn(ids, "list", named=False), Sketch.learn(resumes, "text")):
        assert sketch.form == "length"
        assert not sketch.values


def test_few_values_give_no_quantiles() -> None:
    values = pl.Series(np.arange(float(LEAST_ROWS)))
    sketch = Sketch.learn(values, "number")
    assert sketch.statistics(values).quantiles[2] == 4.5
    assert sketch.statistics(values.head(LEAST_ROWS - 1)).quantiles == ()


@given(st.lists(st.floats(-90, 90), max_size=LEAST_ROWS - 1))
def test_of_few_numbers_no_value_is_written_down(values: list[float]) -> None:
    column = pl.Series(values, dtype=pl.Float64)
    sketch = Sketch.learn(column, "number")
    told = sketch.statistics(column)
    assert sketch.blank
    assert math.isnan(told.mean)
    assert math.isnan(told.spread)
    assert (told.rows, told.counts) == (len(values), (len(values),))
