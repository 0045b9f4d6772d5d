"""What has happened so far in one course of events. Several policies can go on from one point, each with a copy."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.market.config import DAY_US

FORGOTTEN_AFTER_DAYS = 14
_SHIFT = 32
Numbers = npt.NDArray[Any]


def pair_key(candidate: Numbers, job: Numbers) -> npt.NDArray[np.int64]:
    """One number for a candidate and a job; the arguments broadcast."""
    return (np.asarray(candidate, dtype=np.int64) << _SHIFT) | np.maximum(np.asarray(job, dtype=np.int64), 0)


class Tally:
    """Counts by key, as sorted arrays: a few bytes a key, looked up by the thousand."""

    def __init__(self) -> None:
        self._keys = np.empty(0, dtype=np.int64)
        self._counts = np.empty(0, dtype=np.int32)
        self._seen = np.empty(0, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: npt.NDArray[np.int64], day: int = 0) -> None:
        """Count each of `keys` once more; `day` is when."""
        new, times = np.unique(keys, return_counts=True)
        merged = np.union1d(self._keys, new)
        counts, seen = np.zeros(len(merged), dtype=np.int32), np.zeros(len(merged), dtype=np.int32)
        old_rows, new_rows = np.searchsorted(merged, self._keys), np.searchsorted(merged, new)
        counts[old_rows], seen[old_rows] = self._counts, self._seen
        counts[new_rows] += times.astype(np.int32)
        seen[new_rows] = day
        self._keys, self._counts, self._seen = merged, counts, seen

    def get(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """How often each of `keys` was counted, in their shape."""
        if not len(self._keys):
            return np.zeros(keys.shape, dtype=np.int32)
        rows = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[rows] == keys, self._counts[rows], 0).astype(np.int32)

    def forget(self, before_day: int) -> None:
        """Drop what was last counted before that day."""
        kept = self._seen >= before_day
        self._keys, self._counts, self._seen = self._keys[kept], self._counts[kept], self._seen[kept]

    def copy(self) -> Tally:
        """An independent tally of the same counts."""
        other = Tally()
        other._keys, other._counts, other._seen = self._keys, self._counts, self._seen  # replaced, never written to
        return other


@dataclass(frozen=True, kw_only=True)
class Interest:
    """Parallel arrays: what a candidate showed for a job, which its employer has yet to look at.

    `tag` names the request and position it came from, and so the events that follow from it.
    """

    candidate: npt.NDArray[np.int64]
    job: npt.NDArray[np.int64]
    at_us: npt.NDArray[np.int64]
    visit: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    applied: npt.NDArray[np.bool_]

    def take(self, rows: npt.NDArray[Any]) -> Interest:
        """Some of them."""
        return Interest(**{f.name: getattr(self, f.name)[rows] for f in fields(Interest)})

    @classmethod
    def joined(cls, parts: list[Interest]) -> Interest:
        """All of several, in the order of time, then of candidate and job."""
        whole = cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})
        return whole.take(np.lexsort([whole.position, whole.job, whole.candidate, whole.at_us]))


@dataclass(frozen=True, kw_only=True)
class Pending:
    """Parallel arrays: events that employers' decisions will lead to. `kind` is a position in `answers.KINDS`."""

    due_us: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int8]
    candidate: npt.NDArray[np.int64]
    job: npt.NDArray[np.int64]
    visit: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]

    def take(self, rows: npt.NDArray[Any]) -> Pending:
        """Some of them."""
        return Pending(**{f.name: getattr(self, f.name)[rows] for f in fields(Pending)})

    @classmethod
    def joined(cls, parts: list[Pending]) -> Pending:
        """All of several, one after another."""
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})


@dataclass(kw_only=True)
class Memory:
    """One course of events so far: who applied to, saw and opened what, and what employers have not answered yet."""

    applied: Tally = field(default_factory=Tally)
    shown: Tally = field(default_factory=Tally)
    clicked: Tally = field(default_factory=Tally)
    applications: Tally = field(default_factory=Tally)
    hired: Tally = field(default_factory=Tally)
    interest: list[Interest] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)

    def copy(self) -> Memory:
        """An independent course of events that begins with this one."""
        return Memory(
            applied=self.applied.copy(),
            shown=self.shown.copy(),
            clicked=self.clicked.copy(),
            applications=self.applications.copy(),
            hired=self.hired.copy(),
            interest=list(self.interest),
            pending=list(self.pending),
        )

    def forget(self, day_us: int) -> None:
        """People forget what they were shown two weeks ago, unless they opened it."""
        self.shown.forget(day_us // DAY_US - FORGOTTEN_AFTER_DAYS)
