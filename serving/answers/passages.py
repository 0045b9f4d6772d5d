"""Passages that may answer a question: pieces of adverts, found as search finds jobs, and what the adverts together
show of the occupations and skills that it is about.

source = PassageSource(release.search, release.funnel.pairs.vectors)
found = source.find("Which jobs need a forklift licence?", at=now, limit=6)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from rolecall.features.job_vectors import JobVectors
from rolecall.features.text import tokens
from rolecall.platform.vectors.protocol import SearchFilter
from rolecall.serving.answers.concepts import Concepts, FoundConcept
from rolecall.serving.recall import RANK_OFFSET
from rolecall.serving.search import MEANING, WORDS, FoundJob, Search, snippet

PASSAGE_WORDS = 90
NEAR = 0.35
"""Cosine of a question and an advert from which the advert is about what was asked."""
COVERED = 0.5
"""Share of a question's telling words that a passage must have where it is not near."""
_ASKING_WORDS = (
    "a about an and any are as at be by can could do does for from give have how i in is it job many me my "
    "need of on or please position role should tell than that the their them there these this to vacancy want "
    "was were what when where which who why will with work would you your "
)
_ASKING = frozenset(_ASKING_WORDS.split())


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A piece of text that answers may rest on. `id`: a job's, or `occupation:` or `skill:` with a name; `similarity`:
    cosine with the question, of an occupation or skill the mean of its adverts'."""

    id: str
    title: str
    text: str
    similarity: float
    score: float


class PassageSource:
    """The adverts of one release, its occupations and its skills as passages."""

    def __init__(self, search: Search, vectors: JobVectors) -> None:
        self._search = search
        self._vectors = vectors
        self._concepts = Concepts(search.catalogue, vectors)

    def find(
        self, question: str, *, at: datetime, conditions: SearchFilter | None = None, limit: int = 6
    ) -> tuple[Passage, ...]:
        """The best passages that fit the question, best first; none where nothing does. At most half of them, and at
        least one, may be of occupations and skills; `conditions` are for adverts."""
        vector = np.asarray(self._search.encoder.encode([question])[0], np.float32)
        jobs = self._search.search(question, at=at, conditions=conditions, limit=limit, vector=vector)
        wanted = telling(question)
        adverts = [self._passage(job, vector, sorted(wanted)) for job in jobs]
        concepts = [
            self._concept(found, rank, at)
            for rank, found in enumerate(self._concepts.find(vector, wanted, limit=max(1, limit // 2)), 1)
            if found.named or found.similarity >= NEAR
        ]
        fitting = [*concepts, *(advert for advert in adverts if fits(advert, wanted))]
        return tuple(sorted(fitting, key=lambda passage: -passage.score)[:limit])

    def _concept(self, found: FoundConcept, rank: int, at: datetime) -> Passage:
        """Scored as an advert of that rank by meaning alone; one that the question names, better than any advert."""
        near = (RANK_OFFSET + 1) / (RANK_OFFSET + rank) * MEANING / (MEANING + WORDS)
        return Passage(
            id=found.concept.id,
            title=found.concept.names[0],
            text=self._concepts.text(found.concept, at),
            similarity=found.similarity,
            score=near + found.named,
        )

    def _passage(self, job: FoundJob, vector: np.ndarray, terms: list[str]) -> Passage:
        row = self._search.catalogue.row_of(job.job_id)
        rows = np.array([row], np.int32)
        employer, place = f" at {job.employer}" if job.employer else "", f" in {job.place}" if job.place else ""
        facts = ", ".join(filter(None, (f"{job.title}{employer}{place}", self._pay(rows))))
        body = snippet(self._search.body(int(rows[0])), terms, PASSAGE_WORDS)
        return Passage(
            id=job.job_id,
            title=job.title,
            text=f"{facts}: {body}",
            similarity=float(self._vectors.cosines(rows, vector[:, None])[0, 0]),
            score=job.score,
        )

    def _pay(self, rows: np.ndarray) -> str | None:
        table, row = self._search.catalogue.table, int(rows[0])
        low, high, currency = (table[name][row].as_py() for name in ("salary_min", "salary_max", "currency"))
        if low is None and high is None:
            return None
        bounds = [f"{value:,.0f}" for value in dict.fromkeys((low, high)) if value is not None]
        return f"pay {' to '.join(bounds)}{f' {currency}' if currency else ''}"


def telling(question: str) -> set[str]:
    """The words of a question that say what it is about."""
    return {word for word in tokens(question) if word not in _ASKING}


def fits(passage: Passage, wanted: set[str]) -> bool:
    """Whether a passage is about what was asked: by meaning, or by its words."""
    if passage.similarity >= NEAR:
        return True
    return bool(wanted) and len(wanted.intersection(tokens(passage.text))) / len(wanted) >= COVERED
