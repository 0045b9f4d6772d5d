"""The re-rank policy: which of the scored jobs are shown, in which order, and with what probability.

1. Eligible: not in the history, not applied for, not dismissed, live at the instant.
2. Relevance: scores scaled to [0, 1], halved per freshness half-life of age.
3. Slot by slot: maximal marginal relevance (Carbonell & Goldstein 1998) among jobs that keep the caps; with
   probability `exploration` a slot is drawn evenly from all remaining eligible jobs instead.
Caps give way, in the order title, employer, duplicate, before a slot stays empty.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import MICROSECONDS_A_DAY, Catalogue, Floats, Rows
from rolecall.features.context import CandidateContext
from rolecall.features.job_vectors import JobVectors
from rolecall.platform.settings import PolicySettings

Q = TypeVar("Q")
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """`picks`: positions in the scored rows, best slot first. `propensities`: probability of each pick, given those
    before it."""

    picks: npt.NDArray[np.int64]
    propensities: Floats


@dataclass(frozen=True, kw_only=True)
class Groups:
    """What the caps count, by row: equal codes belong together, -1 (employers) to nobody."""

    title: Rows
    employer: Rows


class Rerank(ABC, Generic[Q]):
    """The rules both directions share; the same request id gives the same selection."""

    def __init__(self, settings: PolicySettings, vectors: JobVectors) -> None:
        self.settings = settings
        self.vectors = vectors

    def select(self, rows: Rows, scores: Floats, context: Q, *, at_us: float, limit: int, request_id: str) -> Selection:
        """Fill up to `limit` slots: fewer only where fewer rows are eligible."""
        eligible = np.flatnonzero(self.eligible(rows, context, at_us))
        relevance = self._relevance(rows[eligible], scores[eligible], context, at_us)
        slots = _Slots(self.settings, self.vectors, rows[eligible], relevance, self._groups(rows[eligible]))
        random = np.random.default_rng(seed_of(request_id))
        for _ in range(min(limit, len(eligible))):
            slots.fill(random, self.settings.exploration)
        return Selection(
            picks=eligible[np.array(slots.picks, np.int64)],
            propensities=np.array(slots.propensities, np.float32),
        )

    @abstractmethod
    def eligible(self, rows: Rows, context: Q, at_us: float) -> Mask:
        """Which rows may be shown at all."""

    @abstractmethod
    def _groups(self, rows: Rows) -> Groups:
        """What the caps count."""

    def _relevance(self, rows: Rows, scores: Floats, context: Q, at_us: float) -> Floats:
        """Scores scaled to [0, 1]."""
        if not len(rows):
            return np.zeros(0, np.float32)
        low, high = float(scores.min()), float(scores.max())
        return np.asarray((scores - low) / (high - low) if high > low else np.ones_like(scores), np.float32)


class Policy(Rerank[CandidateContext]):
    """Which jobs a person is shown."""

    def __init__(self, settings: PolicySettings, catalogue: Catalogue, vectors: JobVectors) -> None:
        super().__init__(settings, vectors)
        self.catalogue = catalogue

    def eligible(self, rows: Rows, context: CandidateContext, at_us: float) -> Mask:
        """Which jobs may be shown at all."""
        hidden: AbstractSet[str] = set(context.history)
        if self.settings.hide_applied:
            hidden |= context.applied
        if self.settings.hide_dismissed:
            hidden |= context.dismissed
        return self.catalogue.live(rows, at_us) & ~np.isin(rows, self.catalogue.rows_of(sorted(hidden)))

    def _groups(self, rows: Rows) -> Groups:
        return Groups(title=self.catalogue.title.codes[rows], employer=self.catalogue.employer.codes[rows])

    def _relevance(self, rows: Rows, scores: Floats, context: CandidateContext, at_us: float) -> Floats:
        relevance = super()._relevance(rows, scores, context, at_us)
        half_life = self.settings.freshness_half_life_days
        if half_life and len(rows):
            age = np.nan_to_num(
                np.maximum((at_us - self.catalogue.posted[rows]) / MICROSECONDS_A_DAY, 0), nan=half_life
            )
            relevance = np.asarray(relevance * 0.5 ** (age / half_life), np.float32)
        return relevance


class _Slots:
    """The state of one selection: what was picked, and what that leaves open."""

    def __init__(
        self, settings: PolicySettings, vectors: JobVectors, rows: Rows, relevance: Floats, groups: Groups
    ) -> None:
        self.picks: list[int] = []
        self.propensities: list[float] = []
        self._settings = settings
        self._relevance = relevance
        self._title = groups.title
        self._employer = groups.employer
        self._vectors = vectors.rows(rows) if settings.diversity else None
        self._nearest = np.zeros(len(rows), np.float32)
        self._left = np.ones(len(rows), np.bool_)
        self._duplicate = np.zeros(len(rows), np.bool_)
        self._employer_full = np.zeros(len(rows), np.bool_)
        self._title_full = np.zeros(len(rows), np.bool_)

    def fill(self, random: np.random.Generator, exploration: float) -> None:
        """Pick one more row. At least one must be left."""
        best = self._best()
        chosen = best
        remaining = int(self._left.sum())
        if exploration and random.random() < exploration:
            chosen = int(np.flatnonzero(self._left)[random.integers(remaining)])
        self.picks.append(chosen)
        self.propensities.append((1 - exploration) * (chosen == best) + exploration / remaining)
        self._close(chosen)

    def _best(self) -> int:
        weight = self._settings.diversity
        value = (1 - weight) * self._relevance - weight * self._nearest
        return int(np.argmax(np.where(self._open(), value, -np.inf)))

    def _open(self) -> Mask:
        """Rows that keep the caps, or else as many of the caps as leave one row open."""
        for broken in (
            self._duplicate | self._employer_full | self._title_full,
            self._duplicate | self._employer_full,
            self._duplicate,
        ):
            keeping = self._left & ~broken
            if keeping.any():
                return keeping
        return self._left

    def _close(self, chosen: int) -> None:
        """Take a row and what it forbids out of the next slots. An unknown employer has no cap and no duplicates."""
        self._left[chosen] = False
        title = self._title == self._title[chosen]
        if np.count_nonzero(self._title[self.picks] == self._title[chosen]) >= self._settings.max_per_title:
            self._title_full |= title
        if self._employer[chosen] >= 0:
            employer = self._employer == self._employer[chosen]
            self._duplicate |= title & employer
            taken = np.count_nonzero(self._employer[self.picks] == self._employer[chosen])
            if taken >= self._settings.max_per_employer:
                self._employer_full |= employer
        if self._vectors is not None:
            np.maximum(self._nearest, self._vectors @ self._vectors[chosen], out=self._nearest)


def seed_of(request_id: str) -> int:
    """64 bits that follow from a request id."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "big")
