"""What any recommender must beat: each gives a score to every job of the catalogue."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Rows
from rolecall.features.pair_columns import JOB_PREFIX
from rolecall.features.pairs import PairFeatures, PreparedCandidate

Scores = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One target as baselines see it. `job_columns`: feature-view columns of all jobs, by catalogue row."""

    pairs: PairFeatures
    prepared: PreparedCandidate
    at: datetime
    job_columns: Columns

    @property
    def rows(self) -> Rows:
        return np.arange(len(self.pairs.catalogue), dtype=np.int32)


def tfidf(question: Question) -> Scores:
    """TF-IDF of title and place against the mean of the history; against the profile where there is no history."""
    return _similarity(question, "full_mean", "full_profile")


def dense(question: Question) -> Scores:
    """Embedding cosine against the mean of the history; against the profile where there is no history."""
    return _similarity(question, "dense_mean", "dense_profile")


def popularity(question: Question) -> Scores:
    """Engagements of all candidates in the 30 days before."""
    return _known(question.job_columns.get("job_engagements_30d"), len(question.rows))


def recency(question: Question) -> Scores:
    """Newest posting first; unknown dates last."""
    return np.nan_to_num(question.pairs.catalogue.posted.astype(np.float64), nan=0.0)


def random(question: Question) -> Scores:
    """An order drawn anew for each candidate."""
    who = question.prepared.context.candidate_id or ""
    return np.random.default_rng(zlib.crc32(who.encode())).random(len(question.rows))


BASELINES: Mapping[str, Callable[[Question], Scores]] = {
    "tfidf": tfidf,
    "dense": dense,
    "popularity": popularity,
    "recency": recency,
    "random": random,
}


NOISE: Mapping[str, float] = {"tfidf": 2e-6, "dense": 2e-6}
"""Scores that differ by no more are ties: what a float32 sum of products leaves open. A matrix product may round a row
by where it stands, so two postings of one text would be told apart by nothing but their place in the catalogue."""

OTHERS_BEHAVIOUR = frozenset({"popularity"})
"""Baselines that use what other candidates did: no yardstick for a ranker that may not."""


def fair_baselines(columns: Sequence[str]) -> tuple[str, ...]:
    """The baselines that know no more than a ranker that reads these columns."""
    full = any(name.startswith(JOB_PREFIX + "job_") for name in columns)
    return tuple(name for name in BASELINES if full or name not in OTHERS_BEHAVIOUR)


def _similarity(question: Question, history: str, profile: str) -> Scores:
    column = history if len(question.prepared.history) else profile
    matrix = question.pairs.matrix(question.prepared, question.rows, at=question.at, job_features={}, columns=[column])
    return _known(matrix[:, 0], len(question.rows))


def _known(column: npt.NDArray[np.float32] | None, count: int) -> Scores:
    return np.zeros(count) if column is None else np.nan_to_num(column.astype(np.float64), nan=0.0)
