"""People for a job: the funnel's stages with the roles exchanged.

    question = funnel.pairs.question("job-17")
    funnel.recommend(PeopleRequest(context=question, at=now, request_id="r1", limit=10))

Nobody whom the policy would refuse is ever ranked, and whoever is about to be shown is looked up once more: a consent
that was withdrawn after the release was built counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import numpy as np

from rolecall.features.catalogue import Floats, Rows
from rolecall.features.context import JobQuestion
from rolecall.features.people_pairs import PeoplePairs, PreparedJob
from rolecall.features.text import job_text
from rolecall.platform.vectors.protocol import SearchFilter
from rolecall.serving.people_policy import PeoplePolicy, Permission, PermissionSource
from rolecall.serving.people_reasons import PeopleReasons
from rolecall.serving.policy import Selection
from rolecall.serving.profiles import TextVectors
from rolecall.serving.recall import Retrieved
from rolecall.serving.stages import Answer, Asked, Ranked, RankStage, RecallStage, Stages

SLACK = 16
"""People that recall is asked for beyond the share that may not be shown."""

PeopleRequest = Asked[JobQuestion]
"""One question of an employer."""


@dataclass(frozen=True, kw_only=True)
class PersonItem:
    """One recommended person. `score`: `Ranker.probability`; `position` from 1; `propensity`: probability that the
    policy showed them here, given those above."""

    candidate_id: str
    score: float
    position: int
    propensity: float
    reasons: tuple[str, ...]


PeopleAnswer = Answer[PersonItem]
"""The answer to an employer."""


class NothingNewer:
    """A permission source that knows nothing newer than the release."""

    def permissions(self, candidate_ids: Sequence[str]) -> list[Permission | None]:
        return [None] * len(candidate_ids)


class PeopleFunnel(Stages[JobQuestion, PreparedJob, PersonItem]):
    """The stages of one release that recommend people. `trained`: its rankers learned from outcomes."""

    policy: PeoplePolicy

    def __init__(
        self,
        *,
        release_id: str,
        pairs: PeoplePairs,
        texts: TextVectors,
        recall: RecallStage[PreparedJob],
        coarse: RankStage,
        fine: RankStage,
        policy: PeoplePolicy,
        recall_limit: int,
        coarse_limit: int,
        trained: bool,
        permissions: PermissionSource | None = None,
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
        self.texts = texts
        self.trained = trained
        self.permissions: PermissionSource = permissions or NothingNewer()
        self._reasons = PeopleReasons(pairs)

    @property
    def size(self) -> int:
        """People of the release."""
        return len(self.pairs.people)

    def prepare(self, context: JobQuestion) -> PreparedJob:
        """What the stages need of one job. One that the release does not hold is read from its content."""
        known = context.job_id is not None and self.pairs.jobs.catalogue.row_of(context.job_id) is not None
        return self.pairs.prepare(context, None if known else self.texts.vector(job_text(asdict(context))))

    def retrieve(
        self,
        prepared: PreparedJob,
        *,
        at: datetime,
        conditions: SearchFilter | None = None,
        limit: int | None = None,
    ) -> Retrieved:
        """People worth ranking whom this employer may see, best first.

        The index is asked for as many more as the share of people who may not be seen, and again for more where that
        was not enough.
        """
        visible = self.policy.visible(prepared.question, at.timestamp() * 1e6)
        wanted = limit or self.recall_limit
        width = wanted * self.size // max(int(np.count_nonzero(visible)), 1) + SLACK
        found = super().retrieve(prepared, at=at, conditions=conditions, limit=width)
        kept = np.flatnonzero(visible[found.rows])
        while len(kept) < min(wanted, len(found.rows)) and width < self.size:
            width = min(4 * width, self.size)
            before, found = found, super().retrieve(prepared, at=at, conditions=conditions, limit=width)
            kept = np.flatnonzero(visible[found.rows])
            if len(found.rows) == len(before.rows):
                break
        kept = kept[:wanted]
        return replace(found, rows=found.rows[kept], scores=found.scores[kept], sources=found.sources[kept])

    def matrix(
        self,
        columns: Sequence[str],
        prepared: PreparedJob,
        rows: Rows,
        *,
        at: datetime,
        known: Mapping[str, Floats] | None = None,
    ) -> Floats:
        """What a ranker with these columns reads of given people, float32[len(rows), len(columns)]."""
        return self.pairs.matrix(prepared, rows, at=at, columns=columns, known=known)

    def _told(self, prepared: PreparedJob) -> tuple[int, int]:
        return 1, int(prepared.row >= 0)

    def _unwanted(self, context: JobQuestion) -> int:
        return 0

    def _select(self, ranked: Ranked, request: Asked[JobQuestion]) -> Selection:
        """Select, look up those selected, and select again without whoever took their permission back."""
        at_us = request.at.timestamp() * 1e6
        left, asked = np.arange(len(ranked.rows)), set[int]()
        while True:
            now = replace(ranked, rows=ranked.rows[left], scores=ranked.scores[left])
            selection = super()._select(now, request)
            picks = left[selection.picks]
            fresh = [int(pick) for pick in picks if int(pick) not in asked]
            asked.update(fresh)
            refused = self._refused(ranked.rows[fresh], request.context, at_us)
            if not refused.any():
                return replace(selection, picks=picks)
            left = left[~np.isin(left, np.array(fresh, np.int64)[refused])]

    def _refused(self, rows: Rows, question: JobQuestion, at_us: float) -> np.ndarray:
        permissions = self.permissions.permissions([self.pairs.people.candidate_ids[row] for row in rows])
        allowed = [
            self.policy.permits(int(row), permission, question, at_us)
            for row, permission in zip(rows, permissions, strict=True)
        ]
        return ~np.array(allowed, np.bool_)

    def _items(
        self, prepared: PreparedJob, ranked: Ranked, selection: Selection, at: datetime
    ) -> tuple[PersonItem, ...]:
        rows = ranked.rows[selection.picks]
        reasons = self._reasons.explain(prepared, rows, at=at)
        return tuple(
            PersonItem(
                candidate_id=self.pairs.people.candidate_ids[row],
                score=float(ranked.probabilities[pick]),
                position=slot + 1,
                propensity=float(selection.propensities[slot]),
                reasons=reasons[slot],
            )
            for slot, (row, pick) in enumerate(zip(rows, selection.picks, strict=True))
        )
