"""The funnel: recall, coarse ranking, fine ranking, policy. The stage objects that serve are the ones evaluated.

funnel.recommend(FunnelRequest(context=context, at=now, request_id="r1", limit=10))

prepared = funnel.prepare(context)                    # evaluation asks the stages one by one
retrieved = funnel.retrieve(prepared, at=at)
ranked = funnel.rank(prepared, retrieved.rows, at=at)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Catalogue, Floats, Rows
from rolecall.features.context import CandidateContext
from rolecall.features.pairs import PairFeatures, PreparedCandidate
from rolecall.platform.vectors.protocol import SearchFilter
from rolecall.serving.policy import Selection
from rolecall.serving.profiles import ProfileVectors
from rolecall.serving.ranker import Ranker
from rolecall.serving.reasons import Reasons
from rolecall.serving.recall import Retrieved

JobFeatures = Mapping[str, npt.NDArray[np.floating]]


class RecallStage(Protocol):
    """Finds the jobs worth ranking."""

    def retrieve(self, prepared: PreparedCandidate, conditions: SearchFilter, limit: int) -> Retrieved: ...


class PolicyStage(Protocol):
    """Chooses what is shown from jobs in order of score."""

    def select(
        self, rows: Rows, scores: Floats, context: CandidateContext, *, at_us: float, limit: int, request_id: str
    ) -> Selection: ...


class JobFeatureSource(Protocol):
    """Reads feature-view columns of jobs: arrays aligned with `rows`, NaN where unknown."""

    def read(self, rows: Rows) -> JobFeatures: ...


class SnapshotJobFeatures:
    """Feature-view columns as a release's `job_features.parquet` holds them: whole columns by catalogue row."""

    def __init__(self, columns: JobFeatures) -> None:
        self.columns = dict(columns)

    def read(self, rows: Rows) -> JobFeatures:
        return {name: column[rows] for name, column in self.columns.items()}


@dataclass(frozen=True, kw_only=True)
class FunnelRequest:
    """One question to the funnel. `at`: with a zone. `conditions.at` is set from `at`."""

    context: CandidateContext
    at: datetime
    request_id: str
    limit: int = 10
    conditions: SearchFilter = field(default_factory=SearchFilter)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One recommended job. `score`: `Ranker.probability`; `position` from 1; `propensity`: probability that
    the policy showed this job here, given the jobs above it."""

    job_id: str
    title: str
    employer: str | None
    place: str
    score: float
    position: int
    propensity: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StageTrace:
    """What one stage took, left and needed."""

    stage: str
    count_in: int
    count_out: int
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class FunnelReply:
    """The funnel's answer. `cold`: nothing the candidate did was known, the answer rests on content alone."""

    items: tuple[Item, ...]
    trace: tuple[StageTrace, ...]
    release_id: str
    cold: bool


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """What the coarse ranker kept, best first, and the columns it read of them, for the fine ranker to reuse."""

    rows: Rows
    columns: Mapping[str, Floats]


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Jobs in order of raw fine score, best first, ties by row; `probabilities`: `Ranker.probability`."""

    rows: Rows
    scores: Floats
    probabilities: Floats


class Funnel:
    """The stages of one release. Holds no request state: one object serves any number of threads."""

    def __init__(
        self,
        *,
        release_id: str,
        pairs: PairFeatures,
        profiles: ProfileVectors,
        recall: RecallStage,
        coarse: Ranker,
        fine: Ranker,
        policy: PolicyStage,
        job_features: JobFeatureSource,
        recall_limit: int,
        coarse_limit: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.release_id = release_id
        self.pairs = pairs
        self.profiles = profiles
        self.recall = recall
        self.coarse = coarse
        self.fine = fine
        self.policy = policy
        self.job_features = job_features
        self.recall_limit = recall_limit
        self.coarse_limit = coarse_limit
        self._reasons = Reasons(pairs)
        self._clock = clock

    @property
    def catalogue(self) -> Catalogue:
        return self.pairs.catalogue

    def recommend(self, request: FunnelRequest) -> FunnelReply:
        """Up to `request.limit` jobs with reasons; fewer only where fewer are eligible."""
        trace = _Trace(self._clock)
        at, context = request.at, request.context
        prepared = self.prepare(context)
        trace.add("features", len(context.history), len(prepared.history))
        needed = request.limit + len({*context.history, *context.applied, *context.dismissed})
        width = max(self.recall_limit, 2 * needed)
        retrieved = self.retrieve(prepared, at=at, conditions=request.conditions, limit=width)
        trace.add("recall", len(self.catalogue), len(retrieved.rows))
        kept = self._cut(prepared, retrieved.rows, at=at, limit=max(self.coarse_limit, needed))
        trace.add("coarse", len(retrieved.rows), len(kept.rows))
        ranked = self.rank(prepared, kept.rows, at=at, known=kept.columns)
        trace.add("fine", len(kept.rows), len(ranked.rows))
        selection = self.policy.select(
            ranked.rows,
            ranked.scores,
            context,
            at_us=at.timestamp() * 1e6,
            limit=request.limit,
            request_id=request.request_id,
        )
        items = self._items(prepared, ranked, selection, at)
        trace.add("rerank", len(ranked.rows), len(items))
        return FunnelReply(
            items=items, trace=tuple(trace.stages), release_id=self.release_id, cold=not len(prepared.history)
        )

    def prepare(self, context: CandidateContext) -> PreparedCandidate:
        """What the stages need of one candidate."""
        return self.pairs.prepare(context, self.profiles.of(context))

    def retrieve(
        self,
        prepared: PreparedCandidate,
        *,
        at: datetime,
        conditions: SearchFilter | None = None,
        limit: int | None = None,
    ) -> Retrieved:
        """Jobs worth ranking that are live at the instant, best first."""
        live = replace(conditions or SearchFilter(), at=at)
        return self.recall.retrieve(prepared, live, limit or self.recall_limit)

    def cut(self, prepared: PreparedCandidate, rows: Rows, *, at: datetime, limit: int | None = None) -> Rows:
        """The coarse ranker's best `limit` of the retrieved jobs, best first."""
        return self._cut(prepared, rows, at=at, limit=limit).rows

    def _cut(self, prepared: PreparedCandidate, rows: Rows, *, at: datetime, limit: int | None = None) -> _Cut:
        matrix = self.matrix(self.coarse.columns, prepared, rows, at=at)
        best = _descending(self.coarse.score(matrix), rows)[: limit or self.coarse_limit]
        return _Cut(rows=rows[best], columns=dict(zip(self.coarse.columns, matrix[best].T, strict=True)))

    def rank(
        self, prepared: PreparedCandidate, rows: Rows, *, at: datetime, known: Mapping[str, Floats] | None = None
    ) -> Ranked:
        """The fine ranker's order of all given jobs. `known`: columns already computed for these rows."""
        scores = self.fine.score(self.matrix(self.fine.columns, prepared, rows, at=at, known=known))
        order = _descending(scores, rows)
        return Ranked(rows=rows[order], scores=scores[order], probabilities=self.fine.probability(scores[order]))

    def matrix(
        self,
        columns: Sequence[str],
        prepared: PreparedCandidate,
        rows: Rows,
        *,
        at: datetime,
        known: Mapping[str, Floats] | None = None,
    ) -> Floats:
        """What a ranker with these columns reads of given jobs, float32[len(rows), len(columns)]."""
        features = self.job_features.read(rows)
        return self.pairs.matrix(prepared, rows, at=at, job_features=features, columns=columns, known=known)

    def rank_all(self, context: CandidateContext, *, at: datetime, conditions: SearchFilter | None = None) -> Ranked:
        """All stages but the policy, as evaluation asks for them."""
        prepared = self.prepare(context)
        retrieved = self.retrieve(prepared, at=at, conditions=conditions)
        kept = self._cut(prepared, retrieved.rows, at=at)
        return self.rank(prepared, kept.rows, at=at, known=kept.columns)

    def _items(
        self, prepared: PreparedCandidate, ranked: Ranked, selection: Selection, at: datetime
    ) -> tuple[Item, ...]:
        rows = ranked.rows[selection.picks]
        reasons = self._reasons.explain(prepared, rows, at=at)
        return tuple(
            Item(
                job_id=self.catalogue.job_ids[row],
                title=self.catalogue.titles[row],
                employer=self.catalogue.employers[row] or None,
                place=self.catalogue.places[row],
                score=float(ranked.probabilities[pick]),
                position=slot + 1,
                propensity=float(selection.propensities[slot]),
                reasons=reasons[slot],
            )
            for slot, (row, pick) in enumerate(zip(rows, selection.picks, strict=True))
        )


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
