"""A training set as the detector looks at it: at most so many rows, who asked and what was ranked as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.leaks.ranks import Array, ranks_within
from rolecall.platform.errors import InputError

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matrix:
    """Rows of whole requests. `of` int64[n]: the request of each row."""

    examples: TrainingSet

    @classmethod
    def of_examples(cls, examples: TrainingSet, *, most_rows: int) -> Matrix:
        """The first requests of a set that has its origin, which come in an order drawn by hash."""
        if examples.origin is None:
            raise InputError("a training set without its origin", "one that was just built", "audit it before saving")
        kept = np.cumsum(examples.groups) <= most_rows
        return cls(examples if kept.all() else examples.select(kept))

    @cached_property
    def of(self) -> Codes:
        return np.repeat(np.arange(self.examples.requests), self.examples.groups)

    @cached_property
    def positive(self) -> npt.NDArray[np.bool_]:
        return self.examples.labels > 0

    @cached_property
    def place(self) -> Array:
        """Where each row stands within its request, from 0."""
        starts = np.cumsum(self.examples.groups) - self.examples.groups
        return (np.arange(len(self.of)) - starts[self.of]).astype(np.float64)

    @cached_property
    def times(self) -> Codes:
        """Instant of each row, microseconds since 1970."""
        return self.examples.times[self.of]

    @cached_property
    def keys(self) -> Mapping[str, Codes]:
        """By what rows can be put together: their request, who asked, what was ranked."""
        origin = self.examples.origin
        if origin is None:
            raise InputError("a training set without its origin", "one that was just built")
        askers = np.unique(np.array(origin.askers, np.str_), return_inverse=True)[1]
        items = np.unique(origin.items, return_inverse=True)[1]
        return {"request": self.of, "asker": askers[self.of].astype(np.int64), "item": items.astype(np.int64)}

    def column(self, name: str) -> npt.NDArray[np.float32]:
        return self.examples.features[:, self.examples.columns.index(name)]

    @cached_property
    def ranks(self) -> npt.NDArray[np.float32]:
        """Every column's ranks within its request, float32[n, c]."""
        columns = [ranks_within(self.column(name), self.of).astype(np.float32) for name in self.examples.columns]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.of), 0), np.float32)
