"""The funnel's stages whichever way round it is asked: recall, coarse ranking, fine ranking, policy.

`Funnel` (jobs for a person) and `PeopleFunnel` (people for a job) say what a question is and how an item reads; the
order of the stages, their widths and their trace are here, once. The stage objects that serve are the ones evaluated.

Shapes of the types: Q the question (CandidateContext, JobQuestion), P what the stages need of it, I an item.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Floats, Rows
from rolecall.platform.vectors.protocol import SearchFilter
from rolecall.serving.policy import Selection
from rolecall.serving.recall import Retrieved

Q = TypeVar("Q")
P = TypeVar("P")
I = TypeVar("I")  # noqa: E741 - an item
Q_contra = TypeVar("Q_contra", contravariant=True)
P_contra = TypeVar("P_contra", contravariant=True)


class RecallStage(Protocol[P_contra]):
    """Finds what is worth ranking."""

    def retrieve(self, prepared: P_contra, conditions: SearchFilter, limit: int) -> Retrieved: ...


class PolicyStage(Protocol[Q_contra]):
    """Chooses what is shown from rows in order of score."""

    def select(
        self, rows: Rows, scores: Floats, context: Q_contra, *, at_us: float, limit: int, request_id: str
    ) -> Selection: ...


class RankStage(Protocol):
    """Scores rows of a feature matrix with these columns."""

    @property
    def columns(self) -> tuple[str, ...]: ...
    def score(self, matrix: Floats) -> Floats: ...
    def probability(self, scores: Floats) -> Floats: ...


@dataclass(frozen=True, kw_only=True)
class Asked(Generic[Q]):
    """One question to a funnel. `at`: with a zone. `conditions.at` is set from `at`."""

    context: Q
    at: datetime
    request_id: str
    limit: int = 10
    conditions: SearchFilter = field(default_factory=SearchFilter)


@dataclass(frozen=True, kw_only=True)
class StageTrace:
    """What one stage took, left and needed."""

    stage: str
    count_in: int
    count_out: int
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[I]):
    """A funnel's answer. `cold`: nothing that anybody did was known, the answer rests on content alone."""

    items: tuple[I, ...]
    trace: tuple[StageTrace, ...]
    release_id: str
    cold: bool


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What the coarse ranker kept, best first, and the columns it read of them, for the fine ranker to reuse."""

    rows: Rows
    columns: Mapping[str, Floats]


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Rows in order of raw fine score, best first, ties by row; `probabilities`: `Ranker.probability`."""

    rows: Rows
    scores: Floats
    probabilities: Floats


class Stages(ABC, Generic[Q, P, I]):
    """The stages of one release in one direction. Holds no request state: serves any number of threads."""

    def __init__(
        self,
        *,
        release_id: str,
        recall: RecallStage[P],
        coarse: RankStage,
        fine: RankStage,
        policy: PolicyStage[Q],
        recall_limit: int,
        coarse_limit: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.release_id = release_id
        self.recall = recall
        self.coarse = coarse
        self.fine = fine
        self.policy = policy
        self.recall_limit = recall_limit
        self.coarse_limit = coarse_limit
        self._clock = clock

    def recommend(self, request: Asked[Q]) -> Answer[I]:
        """Up to `request.limit` items with reasons; fewer only where fewer are eligible."""
        trace = _Trace(self._clock)
        at = request.at
        prepared = self.prepare(request.context)
        trace.add("features", *self._told(prepared))
        needed = request.limit + self._unwanted(request.context)
        width = max(self.recall_limit, 2 * needed)
        retrieved = self.retrieve(prepared, at=at, conditions=request.conditions, limit=width)
        trace.add("recall", self.size, len(retrieved.rows))
        kept = self._cut(prepared, retrieved.rows, at=at, limit=max(self.coarse_limit, needed))
        trace.add("coarse", len(retrieved.rows), len(kept.rows))
        ranked = self.rank(prepared, kept.rows, at=at, known=kept.columns)
        trace.add("fine", len(kept.rows), len(ranked.rows))
        items = self._items(prepared, ranked, self._select(ranked, request), at)
        trace.add("rerank", len(ranked.rows), len(items))
        return Answer(
            items=items, trace=tuple(trace.stages), release_id=self.release_id, cold=not self._told(prepared)[1]
        )

    @property
    @abstractmethod
    def size(self) -> int:
        """How many there are to choose from."""

    @abstractmethod
    def prepare(self, context: Q) -> P:
        """What the stages need of a question."""

    def retrieve(
        self, prepared: P, *, at: datetime, conditions: SearchFilter | None = None, limit: int | None = None
    ) -> Retrieved:
        """Rows worth ranking that are live at the instant, best first."""
        live = replace(conditions or SearchFilter(), at=at)
        return self.recall.retrieve(prepared, live, limit or self.recall_limit)

    def cut(self, prepared: P, rows: Rows, *, at: datetime, limit: int | None = None) -> Rows:
        """The coarse ranker's best `limit` of the retrieved rows, best first."""
        return self._cut(prepared, rows, at=at, limit=limit).rows

    def rank(self, prepared: P, rows: Rows, *, at: datetime, known: Mapping[str, Floats] | None = None) -> Ranked:
        """The fine ranker's order of all given rows. `known`: columns already computed for them."""
        scores = self.fine.score(self.matrix(self.fine.columns, prepared, rows, at=at, known=known))
        order = _descending(scores, rows)
        return Ranked(rows=rows[order], scores=scores[order], probabilities=self.fine.probability(scores[order]))

    @abstractmethod
    def matrix(
        self,
        columns: Sequence[str],
        prepared: P,
        rows: Rows,
        *,
        at: datetime,
        known: Mapping[str, Floats] | None = None,
    ) -> Floats:
        """What a ranker with these columns reads of given rows, float32[len(rows), len(columns)]."""

    def rank_all(self, context: Q, *, at: datetime, conditions: SearchFilter | None = None) -> Ranked:
        """All stages but the policy, as evaluation asks for them."""
        prepared = self.prepare(context)
        retrieved = self.retrieve(prepared, at=at, conditions=conditions)
        kept = self._cut(prepared, retrieved.rows, at=at)
        return self.rank(prepared, kept.rows, at=at, known=kept.columns)

    def _cut(self, prepared: P, rows: Rows, *, at: datetime, limit: int | None = None) -> Cut:
        matrix = self.matrix(self.coarse.columns, prepared, rows, at=at)
        best = _descending(self.coarse.score(matrix), rows)[: limit or self.coarse_limit]
        return Cut(rows=rows[best], columns=dict(zip(self.coarse.columns, matrix[best].T, strict=True)))

    def _select(self, ranked: Ranked, request: Asked[Q]) -> Selection:
        return self.policy.select(
            ranked.rows,
            ranked.scores,
            request.context,
            at_us=request.at.timestamp() * 1e6,
            limit=request.limit,
            request_id=request.request_id,
        )

    @abstractmethod
    def _told(self, prepared: P) -> tuple[int, int]:
        """How much was told of the one who asks, and how much of it the release knows."""

    @abstractmethod
    def _unwanted(self, context: Q) -> int:
        """At most how many rows the policy will refuse."""

    @abstractmethod
    def _items(self, prepared: P, ranked: Ranked, selection: Selection, at: datetime) -> tuple[I, ...]:
        """The chosen rows as they are answered."""


class _Trace:
    """Counts and times of the stages so far; each stage is timed from the end of the one before."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.stages: list[StageTrace] = []
        self._clock = clock
        self._last = clock()

    def add(self, stage: str, count_in: int, count_out: int) -> None:
        now = self._clock()
        took = (now - self._last) * 1e3
        self.stages.append(StageTrace(stage=stage, count_in=count_in, count_out=count_out, milliseconds=took))
        self._last = now


def _descending(scores: Floats, rows: Rows) -> npt.NDArray[np.int64]:
    """Order by falling score, equal scores by row."""
    return np.asarray(np.lexsort((rows, -scores)), np.int64)
