"""Search: free text over the jobs of a release, by meaning and by words, fused as recall is."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from rolecall.features.catalogue import Catalogue, Floats
from rolecall.features.text import tokens
from rolecall.platform.vectors.protocol import DenseQuery, Query, SearchFilter, SparseQuery, VectorIndex
from rolecall.serving.profiles import Encoder
from rolecall.serving.recall import RANK_OFFSET, fuse

MEANING, WORDS = 1.0, 1.0
DEPTH = 100
SNIPPET_WORDS = 30


@dataclass(frozen=True, kw_only=True)
class FoundJob:
    """One hit, best first from position 1. `score`: fused reciprocal ranks, at most 1 for the best of both answers.
    `snippet`: the words of the job that fit the question best."""

    job_id: str
    title: str
    employer: str | None
    place: str
    score: float
    position: int
    snippet: str


class Search:
    """Searches one release."""

    def __init__(self, index: VectorIndex, catalogue: Catalogue, encoder: Encoder) -> None:
        self.index = index
        self.catalogue = catalogue
        self.encoder = encoder

    def search(
        self,
        text: str,
        *,
        at: datetime,
        conditions: SearchFilter | None = None,
        limit: int = 10,
        vector: Floats | None = None,
    ) -> tuple[FoundJob, ...]:
        """Up to `limit` jobs live at the instant that meet the conditions; a text without words finds by meaning.
        `vector`: the text's, where it is known already."""
        vector = np.asarray(self.encoder.encode([text])[0], np.float32) if vector is None else vector
        terms = tokens(text)
        questions: list[Query] = [DenseQuery(vector=vector), *([SparseQuery(terms=terms)] if terms else [])]
        live = replace(conditions or SearchFilter(), at=at)
        hits = self.index.search(questions, live, max(DEPTH, limit))
        found = fuse(hits, [MEANING, WORDS][: len(hits)], limit)
        best = found.scores / (sum([MEANING, WORDS][: len(hits)]) / (RANK_OFFSET + 1))
        return tuple(
            FoundJob(
                job_id=self.catalogue.job_ids[row],
                title=self.catalogue.titles[row],
                employer=self.catalogue.employers[row] or None,
                place=self.catalogue.places[row],
                score=float(score),
                position=position,
                snippet=snippet(self.body(int(row)), terms),
            )
            for position, (row, score) in enumerate(zip(found.rows, best, strict=True), 1)
        )

    def body(self, row: int) -> str:
        """What a job says of itself."""
        table = self.catalogue.table
        skills = ", ".join(table["skills"][row].as_py() or ())
        return str(table["description"][row].as_py() or skills or self.catalogue.titles[row])


def snippet(body: str, terms: list[str], words: int = SNIPPET_WORDS) -> str:
    """The window of `words` words that holds most distinct terms, the first of equals; dots mark what was cut."""
    parts = re.split(r"\s+", body.strip())
    wanted = set(terms)
    hits = [wanted.intersection(tokens(part)) for part in parts]
    starts = range(max(1, len(parts) - words + 1))
    best = max(starts, key=lambda first: (len(set().union(*hits[first : first + words])), -first))
    text = " ".join(parts[best : best + words])
    return f"{'… ' if best else ''}{text}{' …' if best + words < len(parts) else ''}"
