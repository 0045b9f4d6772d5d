"""Recall of people for a job: nearest profiles by meaning, best by the words of title, place and skills."""

from __future__ import annotations

from collections.abc import Mapping

from rolecall.features.people_pairs import PreparedJob
from rolecall.features.text import job_lexical_text, tokens
from rolecall.platform.vectors.protocol import DenseQuery, Query, SparseQuery, VectorIndex
from rolecall.serving.recall import FusedRecall

PEOPLE_QUESTIONS: Mapping[str, float] = {"meaning": 1.0, "words": 1.0, "title": 1.0, "skills": 1.0}
"""The questions and their weights in the fusion."""


class PeopleRecall(FusedRecall[PreparedJob]):
    """Asks a release's index of people about one job."""

    def __init__(self, index: VectorIndex, *, weights: Mapping[str, float] = PEOPLE_QUESTIONS) -> None:
        super().__init__(index, weights)

    def _questions(self, prepared: PreparedJob) -> dict[str, Query]:
        job = prepared.question
        texts = {
            "words": job_lexical_text(
                {"title": job.title, "city": job.city, "region": job.region, "skills": job.skills}
            ),
            "title": job.title,
            "skills": " ".join(job.skills),
        }
        questions: dict[str, Query] = {"meaning": DenseQuery(vector=prepared.vector)}
        for name, text in texts.items():
            if terms := tokens(text):
                questions[name] = SparseQuery(terms=terms)
        return questions
