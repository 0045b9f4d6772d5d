"""Columns that are too good: one that orders the rows of a request better alone than all others together.

Honest columns overlap: what one says of a label the others say in part, and a model of them all does not lose to one.
A column that beats the model by a margin knows something none of the others could tell it, most likely the label. The
comparison is paired by request; under its null the sign of each difference is a coin's (a permutation test whose
moments are known). Copies of a suspicious column are taken out of the model it is compared with, else each would hide
the other. A small model of the suspicious columns alone says what they know together.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.leaks.findings import Finding
from rolecall.pipelines.leaks.matrix import Codes, Matrix
from rolecall.pipelines.leaks.ranks import Array, association, auc_within, one_sided, ranks_within
from rolecall.pipelines.leaks.small_model import cross_fitted

MARGIN = 0.05
"""Of the area under the curve, by which a column must beat the model of all others."""

COPY = 0.9
"""Correlation of ranks within requests from which on a column is taken for a copy."""

FEWEST, MOST_SUSPECTS = 40, 5
MOST_ROWS = 20_000


def suspicious_alone(matrix: Matrix, alpha: float) -> list[Finding]:
    """Columns, best first, each of which beats the model of all that is not a suspect or a copy of it."""
    matrix = _contested(matrix)
    if np.isfinite(auc_within(matrix.place, matrix.positive, matrix.of)).sum() < FEWEST:
        return []
    single = _single_areas(matrix)
    found: list[Finding] = []
    suspects: set[int] = set()
    for best in np.argsort(-np.nanmean(single, axis=1), kind="stable")[:MOST_SUSPECTS].tolist():
        if best in suspects:
            continue
        group = _copies(matrix, best) - suspects
        rest = [place for place in range(len(single)) if place not in suspects | group]
        told = _model_areas(matrix, rest)
        strongest = max([told, *(single[place] for place in rest)], key=lambda areas: float(np.nanmean(areas)))
        p = _beats(single[best], strongest)
        if p > alpha / MOST_SUSPECTS:
            break
        suspects |= group
        evidence = {
            "auc": float(np.nanmean(single[best])),
            "auc of the others": float(np.nanmean(strongest)),
            "auc of a model of the suspects": float(np.nanmean(_model_areas(matrix, sorted(suspects)))),
            "requests": float(np.isfinite(single[best]).sum()),
            "p": p,
        }
        found += [
            Finding(kind="alone", column=matrix.examples.columns[place], evidence=evidence) for place in sorted(group)
        ]
    return found


def _contested(matrix: Matrix) -> Matrix:
    """Only what was shown, where enough was: to tell it from jobs drawn at random is no art."""
    shown = matrix.examples.rows(matrix.examples.shown)
    seen = Matrix.of_examples(shown, most_rows=MOST_ROWS)
    both = np.isfinite(auc_within(seen.place, seen.positive, seen.of)).sum() >= FEWEST if shown.requests else False
    return seen if both else Matrix.of_examples(matrix.examples, most_rows=MOST_ROWS)


def _single_areas(matrix: Matrix) -> Array:
    """AUC of each column in each request [c, g], in the direction that the other half of the requests shows."""
    areas = np.stack([auc_within(ranks, matrix.positive, matrix.of) for ranks in matrix.ranks.T.astype(np.float64)])
    half = np.arange(areas.shape[1]) % 2
    for side in (0, 1):
        falls = np.nan_to_num(np.nanmean(areas[:, half != side], axis=1), nan=0.5) < 0.5
        areas[np.ix_(falls, half == side)] = 1 - areas[np.ix_(falls, half == side)]
    return areas


def _model_areas(matrix: Matrix, columns: list[int]) -> Array:
    """AUC in each request of a small model of some columns, fitted on the other half of the requests."""
    fold: Codes = matrix.of % 2
    features: npt.NDArray[np.float32] = np.ascontiguousarray(matrix.examples.features[:, columns])
    scores = cross_fitted(features, matrix.positive, fold) if columns else np.zeros(len(matrix.of))
    return auc_within(ranks_within(scores, matrix.of), matrix.positive, matrix.of)


def _copies(matrix: Matrix, column: int) -> set[int]:
    own = matrix.ranks[:, column]
    return {column} | {
        place
        for place in range(matrix.ranks.shape[1])
        if abs(association(own, matrix.ranks[:, place], matrix.of).correlation) > COPY
    }


def _beats(one: Array, other: Array) -> float:
    """Chance of such differences, less the margin, had each request's sign been a coin's."""
    gap = one - other - MARGIN
    gap = gap[np.isfinite(gap)]
    size = math.sqrt(float((gap**2).sum()))
    return one_sided(float(gap.sum()) / size) if size else 1.0
