"""Target statistics: a column computed from the labels it is to predict, such as the mean label of a job.

What somebody or something will get has a true rate and luck. No column that only knows the past knows the luck, and so
none can agree with a mean of labels better than its reliability, which is how well two halves of these labels agree
with each other (attenuation: Spearman 1904; stepped up to the whole by Spearman and Brown 1910). A column that agrees
better than that has seen the labels. The column is read at the key's first request: nothing labelled came before.
The halves are halves of the requests, since the labels of one request are not drawn apart from each other (requests
that nobody answered are not learned from).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.leaks.findings import Finding
from rolecall.pipelines.leaks.matrix import Codes, Matrix
from rolecall.pipelines.leaks.ranks import Array, one_sided, ranks_within, rejected

MARGIN = 0.15
"""Of the squared correlation: so much may the reliability, itself an estimate, be wrong."""

EXACT = 0.98
"""Squared correlation from which on a column is the mean label itself, where there is luck in it at all."""

KEYS = ("asker", "item")
FEWEST_REQUESTS, FEWEST_KEYS = 2, 40
ROUNDS = 200
"""Bootstrap rounds over keys, for a standard error."""


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """By key: mean label of all rows and of two random halves."""

    whole: Array
    halves: tuple[Array, Array]
    keys: Codes


@dataclass(frozen=True, kw_only=True)
class _Agreement:
    agreement: float
    reliability: float
    p: float
    keys: int


def target_statistics(matrix: Matrix, alpha: float, *, seed: int = 7) -> list[Finding]:
    """Columns that agree with the mean label of askers or items more than honest columns can."""
    told = {(key, name): found for key in KEYS for name, found in _agreements(matrix, key, np.random.default_rng(seed))}
    named = rejected({key: found.p for key, found in told.items()}, alpha)
    return [
        Finding(
            kind="target",
            column=name,
            evidence={
                "mean label by": key,
                "agreement": told[key, name].agreement,
                "reliability": told[key, name].reliability,
                "keys": float(told[key, name].keys),
                "p": told[key, name].p,
            },
        )
        for key, name in named
    ]


def _agreements(matrix: Matrix, key: str, random: np.random.Generator) -> Iterator[tuple[str, _Agreement]]:
    codes = matrix.keys[key]
    sums = _label_means(matrix, codes, random)
    if len(sums.keys) < FEWEST_KEYS or not sums.whole.std():
        return
    first = _first_rows(codes, matrix.times)
    weights = random.multinomial(len(sums.keys), np.full(len(sums.keys), 1 / len(sums.keys)), ROUNDS).astype(np.float64)
    weights = np.concatenate([np.ones((1, len(sums.keys))), weights])
    reliability = _stepped_up(_correlations(weights, sums.halves[0][:, None], sums.halves[1])[:, 0])
    columns = np.stack([_at_first(matrix.column(name), codes, first)[sums.keys] for name in matrix.examples.columns], 1)
    agreement = np.maximum(
        _correlations(weights, columns, sums.whole) ** 2,
        _correlations(weights, _ranked(columns), sums.whole) ** 2,
    )
    gap = agreement - reliability[:, None]
    error = gap[1:].std(axis=0)
    for place, name in enumerate(matrix.examples.columns):
        z = (gap[0, place] - MARGIN) / max(float(error[place]), 1e-3)
        the_mean_itself = agreement[0, place] > EXACT and reliability[0] < EXACT - MARGIN
        yield (
            name,
            _Agreement(
                agreement=float(agreement[0, place]),
                reliability=float(reliability[0]),
                p=0.0 if the_mean_itself else one_sided(float(z)),
                keys=len(sums.keys),
            ),
        )


def _label_means(matrix: Matrix, codes: Codes, random: np.random.Generator) -> _Sums:
    """Of the keys with requests enough; each key's requests are dealt to the halves in turn, in a random order."""
    labels, size = matrix.positive.astype(np.float64), int(codes.max(initial=-1)) + 1
    pairs, place = np.unique(codes * matrix.examples.requests + matrix.of, return_inverse=True)
    owner = pairs // matrix.examples.requests
    order = np.lexsort((random.random(len(pairs)), owner))
    count = np.bincount(owner, minlength=size)
    side = np.empty(len(pairs), np.int64)
    side[order] = (np.arange(len(pairs)) - (np.cumsum(count) - count)[owner[order]]) % 2
    half, keys = side[place], np.flatnonzero(count >= FEWEST_REQUESTS)

    def mean(rows: npt.NDArray[np.bool_]) -> Array:
        counts = np.maximum(np.bincount(codes[rows], minlength=size), 1)
        return (np.bincount(codes[rows], weights=labels[rows], minlength=size) / counts)[keys]

    return _Sums(whole=mean(half >= 0), halves=(mean(half == 0), mean(half == 1)), keys=keys)


def _first_rows(codes: Codes, times: Codes) -> npt.NDArray[np.bool_]:
    """Rows of each key's first request."""
    earliest = np.full(int(codes.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(earliest, codes, times)
    return np.asarray(times == earliest[codes])


def _at_first(column: npt.NDArray[np.float32], codes: Codes, first: npt.NDArray[np.bool_]) -> Array:
    """Mean of a column over each key's first rows; unknown ones count as the smallest value there is."""
    known = np.isfinite(column)
    low = float(column[known].min()) if known.any() else 0.0
    values = np.where(known, column, low).astype(np.float64)[first]
    size = int(codes.max(initial=-1)) + 1
    counts = np.maximum(np.bincount(codes[first], minlength=size), 1)
    return np.bincount(codes[first], weights=values, minlength=size) / counts


def _ranked(columns: Array) -> Array:
    one = np.zeros(len(columns), np.int64)
    return np.stack([ranks_within(column, one) for column in columns.T], axis=1)


def _correlations(weights: Array, columns: Array, target: Array) -> Array:
    """Pearson's, of every column [k, c] with the target [k] under each row of weights [r, k]: [r, c]."""
    columns = (columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), 1e-12)
    target = (target - target.mean()) / max(float(target.std()), 1e-12)
    total = weights.sum(axis=1, keepdims=True)
    a, b = weights @ columns / total, (weights @ target)[:, None] / total
    spread_a = np.maximum(weights @ columns**2 / total - a**2, 0)
    spread_b = np.maximum((weights @ target**2)[:, None] / total - b**2, 0)
    both = weights @ (columns * target[:, None]) / total - a * b
    return np.asarray(both / np.sqrt(np.maximum(spread_a * spread_b, 1e-12)), np.float64)


def _stepped_up(halves: Array) -> Array:
    """Reliability of the whole from the correlation of its halves (Spearman-Brown)."""
    return np.clip(2 * halves / np.maximum(1 + halves, 1e-6), 0, 1)
