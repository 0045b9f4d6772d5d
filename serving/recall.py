"""Recall: from all jobs of a release to the few that are worth ranking, in one batched search.

Several questions are asked at once: nearest vectors to the profile and to the history; best words (BM25) for the
profile, for the newest history jobs, and for their places. The answers are fused by weighted reciprocal rank
(Cormack et al. 2009): a job's score is the sum of weight / (60 + rank) over the answers that hold it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Catalogue, Floats, Rows
from rolecall.features.job_vectors import JobVectors
from rolecall.features.pairs import PreparedCandidate
from rolecall.features.text import candidate_lexical_text, tokens
from rolecall.platform.vectors.protocol import DenseQuery, Hits, Query, SearchFilter, SparseQuery, VectorIndex
from rolecall.serving.nearest import SCAN_FROM, NearestJobs

P = TypeVar("P")
RANK_OFFSET = 60
HISTORY_WORDS = 5
"""Newest history jobs whose words and places are asked for."""

DEPTH = 0.6
"""How deep each of several questions is answered, as a share of what recall returns: deeper costs time, not quality."""

QUESTIONS: Mapping[str, float] = {
    "profile_meaning": 1.0,
    "history_meaning": 1.0,
    "profile_words": 1.0,
    "history_words": 2.0,
    "history_places": 1.0,
    "anything": 0.1,
}
"""The questions and their weights in the fusion. `anything`, the vectors nearest to the middle of the catalogue, is
asked where no other vector is known, since words alone may find too few."""


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """Rows worth ranking, best first. `sources` uint8: bit i is set where question i found the row."""

    rows: Rows
    scores: Floats
    sources: npt.NDArray[np.uint8]


class FusedRecall(ABC, Generic[P]):
    """Asks a vector index several questions at once and fuses the answers. `weights`: of each question by name."""

    def __init__(self, index: VectorIndex, weights: Mapping[str, float]) -> None:
        self.index = index
        self.weights = dict(weights)
        self._bits = {name: 1 << place for place, name in enumerate(weights)}

    def retrieve(self, prepared: P, conditions: SearchFilter, limit: int) -> Retrieved:
        """Up to `limit` rows that meet the conditions; equal fused scores are ordered by row."""
        questions = self._questions(prepared)
        depth = limit if len(questions) == 1 else math.ceil(DEPTH * limit)
        hits = self._search(list(questions.values()), conditions, depth)
        return fuse(
            hits, [self.weights[name] for name in questions], limit, bits=[self._bits[name] for name in questions]
        )

    def _search(self, questions: Sequence[Query], conditions: SearchFilter, depth: int) -> list[Hits]:
        return self.index.search(questions, conditions, depth)

    @abstractmethod
    def _questions(self, prepared: P) -> dict[str, Query]:
        """What the index is asked, at least one question."""


class Recall(FusedRecall[PreparedCandidate]):
    """Asks a release's vector index about one candidate.

    Of someone nothing is known about, the jobs nearest to the middle of the catalogue.
    """

    def __init__(
        self,
        index: VectorIndex,
        catalogue: Catalogue,
        vectors: JobVectors,
        *,
        weights: Mapping[str, float] = QUESTIONS,
        scan_from: int = SCAN_FROM,
    ) -> None:
        super().__init__(index, {name: weights[name] for name in QUESTIONS if name in weights})
        self._nearest = NearestJobs(catalogue, vectors, scan_from=scan_from)
        self.catalogue = catalogue
        self._typical = _unit(_centre(vectors))

    def _questions(self, prepared: PreparedCandidate) -> dict[str, Query]:
        questions: dict[str, Query] = {}
        if prepared.profile is not None:
            questions["profile_meaning"] = DenseQuery(vector=prepared.profile)
        if len(prepared.history):
            questions["history_meaning"] = DenseQuery(vector=_unit(prepared.recent @ prepared.history_vectors))
        for name, text in self._words(prepared).items():
            if terms := tokens(text):
                questions[name] = SparseQuery(terms=terms)
        if not {"profile_meaning", "history_meaning"} & set(questions):
            questions["anything"] = DenseQuery(vector=self._typical)
        return questions

    def _search(self, questions: Sequence[Query], conditions: SearchFilter, depth: int) -> list[Hits]:
        """Questions of meaning by a scan of the codes where that is cheaper, the rest by the index."""
        if not self._nearest.answers(conditions, depth):
            return super()._search(questions, conditions, depth)
        meanings = [question for question in questions if isinstance(question, DenseQuery)]
        words = [question for question in questions if isinstance(question, SparseQuery)]
        near = iter(self._nearest.search(meanings, conditions, depth) if meanings else ())
        found = iter(super()._search(words, conditions, depth) if words else ())
        return [next(near if isinstance(question, DenseQuery) else found) for question in questions]

    def _words(self, prepared: PreparedCandidate) -> dict[str, str]:
        newest = prepared.history[-HISTORY_WORDS:]
        places = " ".join(self.catalogue.places[row] for row in newest)
        return {
            "profile_words": candidate_lexical_text(prepared.context),
            "history_words": " ".join((*(self.catalogue.titles[row] for row in newest), places)),
            "history_places": places,
        }


def fuse(hits: Sequence[Hits], weights: Sequence[float], limit: int, *, bits: Sequence[int] | None = None) -> Retrieved:
    """Weighted reciprocal-rank fusion of ranked answers, at least one."""
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
