"""Order effects: a place in the file that predicts the label, and columns that tell the place.

The training set's rows, and its requests, come in an order drawn by hash, so in a clean one the permutation null holds
exactly: within a request every order of its rows is equally likely, and so is every order of the requests.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rolecall.pipelines.leaks.findings import Finding
from rolecall.pipelines.leaks.matrix import Matrix
from rolecall.pipelines.leaks.ranks import Array, Association, association, ranks_within, rejected

ROWS, FILE = "(order of rows)", "(order of requests)"


def order_effects(matrix: Matrix, alpha: float) -> list[Finding]:
    """Whatever goes with the place of rows within requests, or of requests within the file."""
    told = dict(_associations(matrix))
    named = rejected({key: found.p for key, found in told.items()}, alpha)
    return [
        Finding(
            kind="order",
            column=column,
            evidence={"goes with": place, "correlation": told[place, column].correlation, "p": told[place, column].p},
        )
        for place, column in named
    ]


def _associations(matrix: Matrix) -> Iterator[tuple[tuple[str, str], Association]]:
    of, labels = matrix.of, matrix.examples.labels
    yield (ROWS, ROWS), association(matrix.place, labels, of)
    one = np.zeros(matrix.examples.requests, np.int64)
    number = np.arange(matrix.examples.requests, dtype=np.float64)
    yield (FILE, FILE), association(number, _means(labels.astype(np.float64), matrix), one)
    for place, name in enumerate(matrix.examples.columns):
        yield (ROWS, name), association(matrix.place, matrix.ranks[:, place], of)
        whole = ranks_within(matrix.column(name), np.zeros(len(of), np.int64))
        yield (FILE, name), association(number, _means(whole, matrix), one)


def _means(values: Array, matrix: Matrix) -> Array:
    """Of each request."""
    return np.bincount(matrix.of, weights=values) / np.maximum(matrix.examples.groups, 1)
