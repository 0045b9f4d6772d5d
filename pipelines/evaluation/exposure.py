"""What lists of recommendations do to a catalogue, beyond being right: who is shown at all, and how alike.

All of it is computed from the first rows of each target's list, best first, as row numbers of one catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rolecall.features.job_vectors import JobVectors

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True, eq=False)
class Popularity:
    """How popular every row was on one day, among what could be recommended on it.

    `counts` float64[n]: engagements before the day, 0 where unknown; `live` bool[n].
    """

    counts: Array
    live: Flags

    @cached_property
    def ordered(self) -> Array:
        """Engagements of live rows, rising."""
        return np.sort(self.counts[self.live])

    @cached_property
    def total(self) -> float:
        """Engagements with live rows."""
        return float(self.ordered.sum())

    @property
    def mean(self) -> float:
        """Engagements of a live row; NaN where nothing is live."""
        return self.total / len(self.ordered) if len(self.ordered) else float("nan")

    def surprise(self, rows: Rows) -> Array:
        """Self-information of rows, -log2 of their share of all engagements; who has none counts as having one
        (Zhou et al. 2010; Vargas and Castells 2011). NaN where there was no engagement at all."""
        if not self.total:
            return np.full(len(rows), np.nan)
        return np.asarray(np.log2(self.total) - np.log2(np.maximum(self.counts[rows], 1)), np.float64)

    def expectedness(self, rows: Rows) -> Array:
        """Where a list of the most popular would put the rows, 1 first to 1/n last of n live rows, ties sharing their
        mean place; 0 where nobody engaged: such a list would never show it (Murakami et al. 2007)."""
        known, wanted = self.ordered, self.counts[rows]
        above = len(known) - np.searchsorted(known, wanted, side="right")
        ties = np.searchsorted(known, wanted, side="right") - np.searchsorted(known, wanted, side="left")
        place = above + (ties + 1) / 2
        return np.asarray(np.where(wanted > 0, (len(known) + 1 - place) / max(len(known), 1), 0.0), np.float64)


def coverage(shown: Array, live: Flags) -> float:
    """Share of what could be shown that was (Ge et al. 2010). `shown`: exposures by row."""
    return float(np.count_nonzero(shown[live]) / live.sum()) if live.any() else float("nan")


def gini(counts: Array) -> float:
    """How unequally a sum is spread: 0 where all have the same, (n - 1) / n where one of n has all; NaN of nothing.

    Half the mean difference of two over the mean (Gini 1912); for exposure see Fleder and Hosanagar 2009.
    """
    total, n = float(counts.sum()), len(counts)
    if not total:
        return float("nan")
    ranks = np.arange(1, n + 1)
    return float((2 * ranks - n - 1) @ np.sort(counts) / (n * total))


def popularity_lift(rows: Rows, popularity: Popularity) -> float:
    """Mean popularity of a list over that of the live catalogue (average recommendation popularity, Yin et al. 2012):
    1 is none of a bias, above 1 the popular are favoured. NaN of no list, or where nothing was popular."""
    mean = popularity.mean
    return float(popularity.counts[rows].mean() / mean) if len(rows) and mean > 0 else float("nan")


def novelty(rows: Rows, popularity: Popularity) -> float:
    """Mean self-information of a list, bits; NaN of no list."""
    return float(popularity.surprise(rows).mean()) if len(rows) else float("nan")


def serendipity(rows: Rows, relevant: Flags, popularity: Popularity) -> float:
    """Mean over a list of what is relevant and would not have been shown for its popularity: how much further up it
    stands than a list of the most popular would put it (Murakami et al. 2007; Ge et al. 2010). NaN of no list.

    `relevant` bool[len(rows)].
    """
    if not len(rows):
        return float("nan")
    size = max(len(popularity.ordered), 1)
    own = (size + 1 - np.arange(1, len(rows) + 1)) / size
    return float((np.maximum(own - popularity.expectedness(rows), 0) * relevant).mean())


def diversity(rows: Rows, vectors: JobVectors) -> float:
    """Mean cosine distance of two different ones of a list, over the embedder's vectors (intra-list, Ziegler et al.
    2005): 0 where all are the same. NaN of fewer than two."""
    count = len(rows)
    if count < 2:
        return float("nan")
    vector = vectors.rows(np.asarray(rows, np.int32)).astype(np.float64)
    together = np.square(vector.sum(axis=0)).sum() - np.square(vector).sum()
    return float(1 - together / (count * (count - 1)))


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One target's list: `rows` best first, which of them were `relevant` and which ended in an application."""

    rows: Rows
    relevant: Flags
    applied: Flags
    popularity: Popularity


def spread_metrics(lists: Sequence[Rows], live: Flags, vectors: JobVectors, *, k: int = 10) -> dict[str, float]:
    """How lists spread over what was `live` for any of them, bool[n]: `coverage`, `gini_exposure`, and `diversity`
    within a list. The catalogue's are among `catalogue_metrics`; of people for jobs these are all."""
    if not lists:
        return {f"{name}@{k}": float("nan") for name in ("coverage", "gini_exposure", "diversity")}
    shown = np.zeros(len(live))
    for rows in lists:
        shown[rows[:k]] += 1
    return {
        f"coverage@{k}": coverage(shown, live),
        f"gini_exposure@{k}": gini(shown[live]),
        f"diversity@{k}": _mean([diversity(rows[:k], vectors) for rows in lists]),
    }


def catalogue_metrics(lists: Sequence[Shown], vectors: JobVectors, *, k: int = 10) -> dict[str, float]:
    """What one system's lists do to the catalogue: means over targets, and figures over all lists together.

    `gini_applications`: of the applications that followed for what was within the first k; over what was live for any
    of the targets, as is `gini_exposure`. Without a list everything is NaN.
    """
    names = ("gini_applications", "novelty", "serendipity", "popularity_bias")
    if not lists:
        return {f"{name}@{k}": float("nan") for name in names} | spread_metrics([], np.zeros(0, np.bool_), vectors, k=k)
    live = np.logical_or.reduce([popularity.live for popularity in dict.fromkeys(one.popularity for one in lists)])
    applied = np.zeros(len(live))
    for one in lists:
        applied[one.rows[:k][one.applied[:k]]] += 1
    values = (
        gini(applied[live]),
        _mean([novelty(one.rows[:k], one.popularity) for one in lists]),
        _mean([serendipity(one.rows[:k], one.relevant[:k], one.popularity) for one in lists]),
        _mean([popularity_lift(one.rows[:k], one.popularity) for one in lists]),
    )
    told = {f"{name}@{k}": value for name, value in zip(names, values, strict=True)}
    return spread_metrics([one.rows for one in lists], live, vectors, k=k) | told


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
