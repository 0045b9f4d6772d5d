"""Evaluation of a release's people funnel on what became of jobs after everything it learned from.

Every target is answered by the stage objects that serve, out of everybody the employer may see at the instant. A
person counts as they were known then: what they did later is in no column.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rolecall.features.people_pairs import PreparedJob
from rolecall.pipelines.evaluation.exposure import spread_metrics
from rolecall.pipelines.evaluation.judge import FUNNEL, LISTED, Evaluation, by_slice, rank_values
from rolecall.pipelines.evaluation.metrics import Array, best_rows, ranks_of
from rolecall.pipelines.evaluation.people_targets import PeopleTarget
from rolecall.pipelines.evaluation.slices import people_slices, person_slices
from rolecall.serving.people_funnel import PeopleFunnel

Values = npt.NDArray[np.float64]
_COLUMN_OF: Mapping[str, str] = {"tfidf": "full_profile", "dense": "dense_profile", "recency": "days_since_active"}
PEOPLE_BASELINES = tuple(_COLUMN_OF)
"""What a recommender of people must beat: TF-IDF and embedding against the profile, and who was active last."""

PREFIX = "people."


@dataclass(frozen=True, kw_only=True)
class _Reply:
    ranks: Mapping[str, Array]
    lists: Mapping[str, npt.NDArray[np.integer]]
    stages: Mapping[str, float]
    slices: tuple[str, ...] = ()
    item_slices: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class PeopleJudge:
    """Puts one set of targets to any number of releases."""

    targets: tuple[PeopleTarget, ...]
    rounds: int = 1000
    seed: int = 7
    clock: Callable[[], float] = field(default=time.perf_counter)

    def evaluate(
        self,
        funnel: PeopleFunnel,
        *,
        baselines: Sequence[str] = PEOPLE_BASELINES,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Evaluation:
        """The funnel's and the baselines' values on every target; a job the release does not hold is missed."""
        replies = []
        for done, target in enumerate(self.targets, start=1):
            replies.append(self._reply(funnel, target, baselines))
            progress(done, len(self.targets))
        gains = [np.array(target.labels, np.float64) for target in self.targets]
        names = (f"recall@{funnel.recall_limit}", f"coarse_recall@{funnel.coarse_limit}") if replies else ()
        systems = (FUNNEL, *baselines)
        ids, live = funnel.pairs.people.candidate_ids, self._visible(funnel)
        lists = {system: [reply.lists[system] for reply in replies] for system in systems}
        return Evaluation(
            targets=self.targets,
            systems={system: rank_values([reply.ranks[system] for reply in replies], gains) for system in systems},
            lists={name: tuple(tuple(ids[row] for row in rows) for rows in some) for name, some in lists.items()},
            catalogue={name: spread_metrics(some, live, funnel.pairs.vectors) for name, some in lists.items()},
            stages={name: np.array([reply.stages[name] for reply in replies], np.float64) for name in names},
            slices=by_slice(replies, gains),
            milliseconds=np.array([reply.milliseconds for reply in replies], np.float64),
            rounds=self.rounds,
            seed=self.seed,
        )

    def _visible(self, funnel: PeopleFunnel) -> npt.NDArray[np.bool_]:
        """Who could have been shown for any of the targets."""
        live = np.zeros(funnel.size, np.bool_)
        for target in self.targets:
            question = funnel.pairs.question(target.job_id)
            if question is not None:
                live |= funnel.policy.visible(question, target.at.timestamp() * 1e6)
        return live

    def _reply(self, funnel: PeopleFunnel, target: PeopleTarget, baselines: Sequence[str]) -> _Reply:
        question = funnel.pairs.question(target.job_id)
        systems, count = (FUNNEL, *baselines), len(target.candidate_ids)
        stages = (f"recall@{funnel.recall_limit}", f"coarse_recall@{funnel.coarse_limit}")
        if question is None:
            missed = np.full(count, np.inf)
            return _Reply(
                ranks=dict.fromkeys(systems, missed),
                lists=dict.fromkeys(systems, np.zeros(0, np.int64)),
                stages=dict.fromkeys(stages, 0.0),
                milliseconds=0.0,
            )
        begun = self.clock()
        prepared = funnel.prepare(question)
        retrieved = funnel.retrieve(prepared, at=target.at)
        kept = funnel.cut(prepared, retrieved.rows, at=target.at)
        ranked = funnel.rank(prepared, kept, at=target.at)
        took = (self.clock() - begun) * 1e3
        found = [funnel.pairs.people.row_of(name) for name in target.candidate_ids]
        scores = {FUNNEL: np.full(funnel.size, -np.inf)}
        scores[FUNNEL][ranked.rows] = ranked.scores
        scores |= {name: _baseline(funnel, prepared, target, name) for name in baselines}
        at_us = target.at.timestamp() * 1e6
        rows = np.array([-1 if row is None else row for row in found], np.int32)
        return _Reply(
            ranks={name: _ranks(values, rows) for name, values in scores.items()},
            lists={name: best_rows(values, LISTED) for name, values in scores.items()},
            slices=people_slices(funnel.pairs.jobs.catalogue, prepared.row, at_us=at_us) if prepared.row >= 0 else (),
            item_slices=person_slices(funnel.pairs.people.known_since, rows, at_us=at_us),
            stages={
                stages[0]: float(np.isin(rows, retrieved.rows).mean()),
                stages[1]: float(np.isin(rows, kept).mean()),
            },
            milliseconds=took,
        )


def people_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The evaluation's metrics by the names a manifest and MLflow keep them under."""
    return {f"{PREFIX}{name}": value for name, value in evaluation.metrics().items()}


def _baseline(funnel: PeopleFunnel, prepared: PreparedJob, target: PeopleTarget, name: str) -> Values:
    rows = np.arange(funnel.size, dtype=np.int32)
    column = funnel.pairs.matrix(prepared, rows, at=target.at, columns=[_COLUMN_OF[name]])[:, 0].astype(np.float64)
    scores = -np.nan_to_num(column, nan=1e9) if name == "recency" else np.nan_to_num(column, nan=0.0)
    visible = funnel.policy.visible(prepared.question, target.at.timestamp() * 1e6)
    return np.where(visible, scores, -np.inf)


def _ranks(scores: Values, rows: npt.NDArray[np.int32]) -> Array:
    """Ranks of the relevant people; who is not in the release, or not visible, is missed."""
    ranks = np.full(len(rows), np.inf)
    known = rows >= 0
    ranks[known] = ranks_of(scores, rows[known])
    return ranks
