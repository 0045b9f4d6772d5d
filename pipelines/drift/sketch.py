"""How the values of a column are counted: the same bins every day, so that days can be compared, and added up, long
after their rows are gone.

Numbers are counted between quantiles of the first rows seen (each quantile is two edges, just below it and at it, so
that a value which many rows share keeps a bin of its own); texts and lists by their most frequent values. Nothing that
fewer than `LEAST_ROWS` rows say is written down, so no count tells of one person.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from rolecall.features.feature import Kind

QUANTILES = 15
"""Quantiles that the bins of a number are cut at."""

MOST_VALUES = 30
"""Texts and list items that are counted by name."""

LEAST_ROWS = 10
"""Rows that must say the same before it is written down."""

_LARGEST = 1e150
_FREE_TEXT = 0.1
"""A text whose frequent values cover less than this share of the rows is only measured in characters."""

TOLD_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Counts = npt.NDArray[np.int64]
Form = Literal["number", "length", "text", "list"]
"""`length`: of a list, or of a text nobody shares, only the length is counted."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """One column on one day. `counts` by the sketch's bins; numbers are of the known values (lengths of lists and free
    texts), NaN where there are fewer than `LEAST_ROWS`."""

    rows: int
    missing: int
    mean: float
    spread: float
    quantiles: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def missing_share(self) -> float:
        return self.missing / self.rows if self.rows else math.nan


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """The bins of one column. `edges` of numbers and lengths, ascending; `values` of texts and list items."""

    form: Form
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    @classmethod
    def learn(cls, column: pl.Series, kind: Kind, *, named: bool = True) -> Sketch:
        """Bins that fit these values. `named`: False where values are ids, which are never written down."""
        if kind == "number":
            return cls(form="number", edges=_edges(numbers(column)))
        frequent = _frequent(_items(column)) if named else ()
        if kind == "list" and named:
            return cls(form="list", values=frequent)
        covered = int(column.is_in(frequent).sum()) if frequent else 0
        if kind == "text" and covered >= _FREE_TEXT * max(1, len(column) - column.null_count()):
            return cls(form="text", values=frequent)
        return cls(form="length", edges=_edges(_lengths(column)))

    @property
    def blank(self) -> bool:
        """Whether there was nothing to fit bins to."""
        return not self.edges and not self.values

    @property
    def ordered(self) -> bool:
        """Whether the bins follow one another, as those of numbers do."""
        return self.form in ("number", "length")

    def statistics(self, column: pl.Series) -> Statistics:
        """Counts and moments of a day's rows."""
        values = numbers(column) if self.form == "number" else _lengths(column)
        known = values[~np.isnan(values)]
        enough = len(known) >= LEAST_ROWS
        return Statistics(
            rows=len(column),
            missing=len(column) - len(known),
            mean=float(known.mean()) if enough else math.nan,
            spread=float(known.std()) if enough else math.nan,
            quantiles=tuple(map(float, np.quantile(known, TOLD_QUANTILES))) if enough and self.ordered else (),
            counts=tuple(map(int, self._counts(column, known))),
        )

    def _counts(self, column: pl.Series, known: npt.NDArray[np.float64]) -> Counts:
        """int64: one a bin of numbers; one a value of texts and lists (a row of a list counts for each of its items),
        then the rows with none of the values."""
        if self.ordered:
            return np.bincount(np.searchsorted(self.edges, known), minlength=len(self.edges) + 1).astype(np.int64)
        items = _items(column)
        told = dict(items.value_counts().iter_rows())
        counts = [told.get(value, 0) for value in self.values]
        return np.array([*counts, len(known) - self._covered(column)], np.int64)

    def _covered(self, column: pl.Series) -> int:
        if not self.values:
            return 0
        if self.form == "text":
            return int(column.is_in(self.values).sum())
        wanted = set(self.values)
        return sum(1 for row in column.to_list() if row and not wanted.isdisjoint(row))


def numbers(column: pl.Series) -> npt.NDArray[np.float64]:
    """float64, NaN where nothing is known; what is beyond 1e150 counts as that."""
    values = column.cast(pl.Float64).fill_null(math.nan).to_numpy()
    return np.asarray(np.clip(values.astype(np.float64), -_LARGEST, _LARGEST), np.float64)


def _lengths(column: pl.Series) -> npt.NDArray[np.float64]:
    """Items of a list, characters of a text; NaN where it is null or empty."""
    size = column.list.len() if column.dtype.base_type() == pl.List else column.str.len_chars()
    return numbers(size.cast(pl.Float64).replace(0.0, None))


def _items(column: pl.Series) -> pl.Series:
    if column.dtype.base_type() == pl.List:
        return column.list.unique().explode(keep_nulls=False, empty_as_null=False).drop_nulls()
    return column.drop_nulls()


def _frequent(items: pl.Series) -> tuple[str, ...]:
    counts = items.value_counts(name="rows").sort("rows", items.name, descending=[True, False])
    return tuple(counts.filter(pl.col("rows") >= LEAST_ROWS)[items.name].head(MOST_VALUES).to_list())


def _edges(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    known = values[~np.isnan(values)]
    if len(known) < LEAST_ROWS:
        return ()
    cuts = np.unique(np.quantile(known, np.arange(1, QUANTILES + 1) / (QUANTILES + 1), method="inverted_cdf"))
    return tuple(map(float, np.unique(np.concatenate([np.nextafter(cuts, -np.inf), cuts]))))
