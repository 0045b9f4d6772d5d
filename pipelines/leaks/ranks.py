"""Rank statistics within the requests of a training set, with the exact moments of their permutation null.

Under the null "the order of `a` within each request says nothing of `b`" every order is equally likely. The sum of
products of two columns over such orders has mean and variance known in closed form (Hoeffding 1951, "A combinatorial
central limit theorem"), so nothing is drawn, and the tails that Holm's correction (1979) needs are there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.evaluation.statistics import holm

Array = npt.NDArray[np.float64]
Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class Association:
    """How two columns go together within requests: pooled correlation of ranks, and its p-value (two-sided)."""

    correlation: float
    p: float


def ranks_within(values: npt.NDArray[Any], of: npt.NDArray[np.int64]) -> Array:
    """Rank of each value within its request from 1, ties by their mean; NaN below everything.

    `of` int64[n]: the request of each row, from 0 without a gap, rows of a request together.
    """
    known = np.where(np.isnan(values), -np.inf, values.astype(np.float64))
    order = np.lexsort((known, of))
    sorted_of, sorted_values = of[order], known[order]
    starts = np.searchsorted(sorted_of, np.arange(int(of.max(initial=-1)) + 1))
    new = np.ones(len(values), np.bool_)
    new[1:] = (sorted_of[1:] != sorted_of[:-1]) | (sorted_values[1:] != sorted_values[:-1])
    run = np.cumsum(new) - 1
    place = np.arange(len(values)) - starts[sorted_of] + 1.0
    mean = np.bincount(run, weights=place) / np.bincount(run)
    ranks = np.empty(len(values), np.float64)
    ranks[order] = mean[run]
    return ranks


def auc_within(ranks: Array, positive: npt.NDArray[np.bool_], of: npt.NDArray[np.int64]) -> Array:
    """For each request the chance that a positive ranks above a negative, ties by half; NaN with one class only."""
    size = np.bincount(of).astype(np.float64)
    above = np.bincount(of, weights=positive)
    total = np.bincount(of, weights=np.where(positive, ranks, 0.0))
    pairs = above * (size - above)
    wins = total - above * (above + 1) / 2
    return np.where(pairs > 0, wins / np.maximum(pairs, 1), np.nan)


def association(a: npt.NDArray[Any], b: npt.NDArray[Any], of: npt.NDArray[np.int64]) -> Association:
    """Of two columns of ranks (or any numbers) within requests, pooled over all of them."""
    a, b = _centred(a, of), _centred(b, of)
    size = np.bincount(of).astype(np.float64)
    squares = [np.bincount(of, weights=column * column) for column in (a, b)]
    variance = float((squares[0] * squares[1] / np.maximum(size - 1, 1)).sum())
    if not variance > 0:
        return Association(correlation=0.0, p=1.0)
    product = float((a * b).sum())
    both = math.sqrt(float(squares[0][squares[1] > 0].sum()) * float(squares[1].sum()))
    return Association(correlation=product / max(both, 1e-300), p=two_sided(product / math.sqrt(variance)))


def two_sided(z: float) -> float:
    """Chance of a standard normal number as far from 0."""
    return math.erfc(abs(z) / math.sqrt(2))


def one_sided(z: float) -> float:
    """Chance of a standard normal number as large."""
    return math.erfc(z / math.sqrt(2)) / 2


def rejected(p: Mapping[Key, float], alpha: float) -> list[Key]:
    """The hypotheses rejected so that the chance of any false one is at most `alpha` (Holm), most certain first."""
    ordered = sorted(p, key=lambda key: p[key])
    adjusted = holm([p[key] for key in ordered])
    return [key for key, value in zip(ordered, adjusted, strict=True) if value <= alpha]


def _centred(values: npt.NDArray[Any], of: npt.NDArray[np.int64]) -> Array:
    values = values.astype(np.float64)
    mean = np.bincount(of, weights=values) / np.maximum(np.bincount(of), 1)
    return np.asarray(values - mean[of], np.float64)
