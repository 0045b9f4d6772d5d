"""Id effects: a column that names who asks, or what is ranked, lets a tree remember instead of understand.

Such a column has one value for each candidate (or job) in all of their requests and another for nearly every other
one. What a job really is can look like that too (a salary to the cent); of that the other columns tell something, of an
id they tell nothing. So a column with a value of its own for each is an id where it runs with the ids' order, or where
a model of all other columns cannot say which half of its values it is in (no better than chance, `EXPLAINED`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.leaks.findings import Finding
from rolecall.pipelines.leaks.matrix import Codes, Matrix
from rolecall.pipelines.leaks.ranks import Array, one_sided, ranks_within
from rolecall.pipelines.leaks.small_model import cross_fitted

DISTINCT = 0.95
"""Share of the known keys that must have a value of their own."""

IN_ORDER = 0.99
EXPLAINED = 0.01
"""Chance level at which the other columns are taken to explain a column. Larger: fewer columns are called ids."""

FEWEST = 30
"""Keys asked for more than once, below which nothing can be said."""

FEWEST_EXPLAINED = 60
"""Keys below which nothing is asked to be explained: of so few, an honest column often is not."""

ATTRIBUTES = frozenset({"log_salary"})
"""Plain attributes of a posting, which may well be of its own for each and which nothing else needs to explain. That
they are what they say is checked by replaying them from the tables."""


@dataclass(frozen=True, kw_only=True)
class _Keys:
    """One value a key of those keys that occur in two requests or more."""

    numbers: Codes
    values: Array


def identities(matrix: Matrix) -> list[Finding]:
    """Columns that name the asker or the item."""
    return [found for key in ("item", "asker") for found in _identities(matrix, key)]


def _identities(matrix: Matrix, key: str) -> Iterator[Finding]:
    codes = matrix.keys[key]
    pairs = np.unique(np.stack([codes, matrix.of]), axis=1)
    again = np.bincount(pairs[0]) >= 2
    for name in matrix.examples.columns:
        own = _own_values(matrix.column(name), codes, again)
        if own is None:
            continue
        runs = abs(_correlation(own.numbers.astype(np.float64), own.values))
        asked = name not in ATTRIBUTES and len(own.values) >= FEWEST_EXPLAINED
        p = _explained(matrix, codes, name, own) if asked and runs <= IN_ORDER else 0.0
        if runs > IN_ORDER or p > EXPLAINED:
            evidence: dict[str, float | str] = {"names": key, "keys": float(len(own.values)), "id order": runs}
            yield Finding(kind="identity", column=name, evidence=evidence | ({"explained p": p} if p else {}))


def _own_values(column: npt.NDArray[np.float32], codes: Codes, again: npt.NDArray[np.bool_]) -> _Keys | None:
    """The column by key, None where a key has two values or keys share theirs."""
    low, high = np.full(len(again), np.inf), np.full(len(again), -np.inf)
    np.minimum.at(low, codes, np.where(np.isnan(column), np.inf, column))
    np.maximum.at(high, codes, np.where(np.isnan(column), -np.inf, column))
    known = again & (high > -np.inf)
    if known.sum() < max(FEWEST, again.sum() / 2) or not (low[known] == high[known]).all():
        return None
    values = high[known].astype(np.float64)
    alike = len(np.unique(values)) < DISTINCT * len(values)
    return None if alike else _Keys(numbers=np.flatnonzero(known), values=values)


def _explained(matrix: Matrix, codes: Codes, name: str, own: _Keys) -> float:
    """Chance that columns which know nothing of the values tell their upper half from the lower one so well."""
    others = [place for place, column in enumerate(matrix.examples.columns) if column != name]
    known = np.nan_to_num(matrix.examples.features[:, others].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    count = np.maximum(np.bincount(codes), 1)
    means = np.stack([np.bincount(codes, weights=column) for column in known.T], axis=1) / count[:, None]
    upper = own.values > np.median(own.values)
    told = cross_fitted(means[own.numbers].astype(np.float32), upper, np.arange(len(upper)) % 5)
    return one_sided(_correlation(told, upper.astype(np.float64)) * math.sqrt(len(upper) - 1))


def _correlation(a: Array, b: Array) -> float:
    """Spearman's, of whole columns."""
    one = np.zeros(len(a), np.int64)
    a, b = ranks_within(a, one), ranks_within(b, one)
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else 0.0
