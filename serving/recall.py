"""Recall: from all jobs of a release to the few that are worth ranking, in one batched search.

Up to five questions are asked at once: nearest vectors to the profile, to the mean of the history and to its
newest job; best words (BM25) for the profile and for the history. Their answers are fused by weighted reciprocal
rank (Cormack et al. 2009): a job's score is the sum of weight / (60 + rank) over the answers that hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Catalogue, Floats, Rows
from rolecall.features.job_vectors import JobVectors
from rolecall.features.pairs import PreparedCandidate
from rolecall.features.text import candidate_lexical_text, tokens
from rolecall.platform.vectors.protocol import DenseQuery, Hits, SearchFilter, SparseQuery, VectorIndex

RANK_OFFSET = 60
HISTORY_WORDS = 5
"""Newest history jobs whose words make the BM25 question."""

QUESTIONS: Mapping[str, float] = {
    "profile_meaning": 1.0,
    "history_meaning": 1.0,
    "last_meaning": 1.0,
    "profile_words": 1.0,
    "history_words": 2.0,
}
"""The questions and their weights in the fusion."""


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """Jobs worth ranking, best first. `sources` uint8: bit i is set where question i of QUESTIONS found the job."""

    rows: Rows
    scores: Floats
    sources: npt.NDArray[np.uint8]


class Recall:
    """Asks a release's vector index about one candidate."""

    def __init__(
        self,
        index: VectorIndex,
        catalogue: Catalogue,
        vectors: JobVectors,
        *,
        weights: Mapping[str, float] = QUESTIONS,
    ) -> None:
        self.index = index
        self.catalogue = catalogue
        self.weights = dict(weights)
        self._typical = _unit(_centre(vectors))

    def retrieve(self, prepared: PreparedCandidate, conditions: SearchFilter, limit: int) -> Retrieved:
        """Up to `limit` jobs that meet the conditions; equal fused scores are ordered by row.

        Of someone nothing is known about, the jobs nearest to the middle of the catalogue.
        """
        questions = self._questions(prepared)
        hits = self.index.search(list(questions.values()), conditions, limit)
        return fuse(hits, [self.weights[name] for name in questions], limit, bits=[_BIT[name] for name in questions])

    def _questions(self, prepared: PreparedCandidate) -> dict[str, DenseQuery | SparseQuery]:
        questions: dict[str, DenseQuery | SparseQuery] = {}
        history = prepared.history_vectors
        if prepared.profile is not None:
            questions["profile_meaning"] = DenseQuery(vector=prepared.profile)
        if len(history):
            questions["history_meaning"] = DenseQuery(vector=_unit(history.mean(axis=0)))
        if len(history) > 1:
            questions["last_meaning"] = DenseQuery(vector=history[-1])
        if terms := tokens(candidate_lexical_text(prepared.context)):
            questions["profile_words"] = SparseQuery(terms=terms)
        if terms := tokens(self._history_words(prepared.history)):
            questions["history_words"] = SparseQuery(terms=terms)
        return questions or {"profile_meaning": DenseQuery(vector=self._typical)}

    def _history_words(self, history: Rows) -> str:
        newest = history[-HISTORY_WORDS:]
        return " ".join(f"{self.catalogue.titles[row]} {self.catalogue.place(row)}" for row in newest)


_BIT = {name: 1 << place for place, name in enumerate(QUESTIONS)}


def fuse(hits: Sequence[Hits], weights: Sequence[float], limit: int, *, bits: Sequence[int] | None = None) -> Retrieved:
    """Weighted reciprocal-rank fusion of ranked answers."""
    rows = np.concatenate([hit.rows for hit in hits])
    ranks = np.concatenate([np.arange(len(hit.rows)) for hit in hits])
    weight = np.repeat(np.asarray(weights, np.float64), [len(hit.rows) for hit in hits])
    marks = np.repeat(np.asarray(bits or [1] * len(hits), np.uint8), [len(hit.rows) for hit in hits])
    found, place = np.unique(rows, return_inverse=True)
    scores = np.bincount(place, weights=weight / (RANK_OFFSET + 1 + ranks), minlength=len(found))
    sources = np.zeros(len(found), np.uint8)
    np.bitwise_or.at(sources, place, marks)
    order = np.argsort(-scores, kind="stable")[:limit]
    return Retrieved(
        rows=found[order].astype(np.int32), scores=scores[order].astype(np.float32), sources=sources[order]
    )


def _centre(vectors: JobVectors, chunk: int = 8192) -> Floats:
    total = np.zeros(vectors.width, np.float64)
    for first in range(0, len(vectors), chunk):
        total += vectors.rows(np.arange(first, min(first + chunk, len(vectors)), dtype=np.int32)).sum(axis=0)
    return total.astype(np.float32)


def _unit(vector: Floats) -> Floats:
    norm = float(np.linalg.norm(vector))
    if not norm:
        vector, norm = np.ones_like(vector), float(np.sqrt(len(vector)))
    return np.asarray(vector / norm, np.float32)
