"""Jobs for a person: the funnel's stages over the jobs of a release.

funnel.recommend(FunnelRequest(context=context, at=now, request_id="r1", limit=10))

prepared = funnel.prepare(context)                    # evaluation asks the stages one by one
retrieved = funnel.retrieve(prepared, at=at)
ranked = funnel.rank(prepared, retrieved.rows, at=at)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Catalogue, Floats, Rows
from rolecall.features.context import CandidateContext
from rolecall.features.pairs import PairFeatures, PreparedCandidate
from rolecall.serving.policy import Selection
from rolecall.serving.profiles import ProfileVectors
from rolecall.serving.reasons import Reasons
from rolecall.serving.stages import Answer, Asked, PolicyStage, Ranked, RankStage, RecallStage, Stages

JobFeatures = Mapping[str, npt.NDArray[np.floating]]
FunnelRequest = Asked[CandidateContext]
"""One question of a candidate."""


class JobFeatureSource(Protocol):
    """Reads feature-view columns of jobs as known at an instant: arrays aligned with `rows`, NaN where unknown."""

    def read(self, rows: Rows, *, at: datetime) -> JobFeatures: ...


class SnapshotJobFeatures:
    """Feature-view columns as a release's `job_features.parquet` holds them: whole columns by catalogue row, as known
    when it was built."""

    def __init__(self, columns: JobFeatures) -> None:
        self.columns = dict(columns)

    def read(self, rows: Rows, *, at: datetime) -> JobFeatures:
        return {name: column[rows] for name, column in self.columns.items()}


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


FunnelReply = Answer[Item]
"""The answer to a candidate."""


class Funnel(Stages[CandidateContext, PreparedCandidate, Item]):
    """The stages of one release that recommend jobs."""

    def __init__(
        self,
        *,
        release_id: str,
        pairs: PairFeatures,
        profiles: ProfileVectors,
        recall: RecallStage[PreparedCandidate],
        coarse: RankStage,
        fine: RankStage,
        policy: PolicyStage[CandidateContext],
        job_features: JobFeatureSource,
        recall_limit: int,
        coarse_limit: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(
            release_id=release_id,
            recall=recall,
            coarse=coarse,
            fine=fine,
            policy=policy,
            recall_limit=recall_limit,
            coarse_limit=coarse_limit,
            clock=clock,
        )
        self.pairs = pairs
        self.profiles = profiles
        self.job_features = job_features
        self._reasons = Reasons(pairs)

    @property
    def catalogue(self) -> Catalogue:
        return self.pairs.catalogue

    @property
    def size(self) -> int:
        """Jobs of the release."""
        return len(self.catalogue)

    def prepare(self, context: CandidateContext) -> PreparedCandidate:
        """What the stages need of one candidate."""
        return self.pairs.prepare(context, self.profiles.of(context))

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
        features = self.job_features.read(rows, at=at)
        return self.pairs.matrix(prepared, rows, at=at, job_features=features, columns=columns, known=known)

    def _told(self, prepared: PreparedCandidate) -> tuple[int, int]:
        return len(prepared.context.history), len(prepared.history)

    def _unwanted(self, context: CandidateContext) -> int:
        return len({*context.history, *context.applied, *context.dismissed})

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
