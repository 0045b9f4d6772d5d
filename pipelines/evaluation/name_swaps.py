"""The same person under two names: does the answer change?

The correspondence test of Bertrand and Mullainathan (2004), "Are Emily and Greg more employable than Lakisha and
Jamal?" (American Economic Review 94), put to a recommender: whatever names and pronouns a resume and its titles hold
become those of one name, then those of another, and the two answers must be the same. A resume without a name is given
one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from rolecall.features.context import CandidateContext
from rolecall.features.job_vectors import JobVectors
from rolecall.features.names import LETTER, NOT_BEFORE, given_names
from rolecall.features.people import People
from rolecall.features.people_pairs import PeoplePairs
from rolecall.features.people_words import PeopleWords
from rolecall.features.text import candidate_text
from rolecall.kernels.quantization import quantize_rows
from rolecall.pipelines.people import careers_of, profiles_of
from rolecall.serving.funnel import Funnel
from rolecall.serving.people_funnel import PeopleFunnel

NAMES = (
    ("Greg", "Emily"),
    ("Brendan", "Lakisha"),
    ("Jamal", "Sarah"),
    ("Mohammed", "Fatima"),
    ("Stefan", "Katharina"),
    ("Tyrone", "Anne"),
    ("Darnell", "Meredith"),
    ("Matthew", "Aisha"),
)
"""Pairs of a man's name and a woman's."""

HE_SHE: Mapping[str, tuple[str, str]] = {
    "he": ("he", "she"),
    "she": ("he", "she"),
    "him": ("him", "her"),
    "her": ("his", "her"),
    "hers": ("his", "hers"),
    "his": ("his", "her"),
    "himself": ("himself", "herself"),
    "herself": ("himself", "herself"),
    "mr": ("Mr", "Ms"),
    "mrs": ("Mr", "Ms"),
    "ms": ("Mr", "Ms"),
}
_WORD = re.compile(rf"{NOT_BEFORE}[^\W\d_]{LETTER}*")
SHOWN = 20
"""Jobs of an answer that are compared."""


@dataclass(frozen=True, kw_only=True)
class Swaps:
    """How many were asked under two names, how many answers differed, and the mean overlap of their first ten."""

    swaps: int = 0
    changed: int = 0
    overlap: float = 1.0

    def __add__(self, other: Swaps) -> Swaps:
        total = self.swaps + other.swaps
        both = self.overlap * self.swaps + other.overlap * other.swaps
        return Swaps(swaps=total, changed=self.changed + other.changed, overlap=both / total if total else 1.0)


def renamed(text: str, side: int, names: tuple[str, str]) -> str:
    """The text with every known name as `names[side]`, and pronouns to match: side 0 a man's, 1 a woman's."""

    named = {found.start() for found in given_names(text)}

    def put(found: re.Match[str]) -> str:
        word = found.group()
        if found.start() in named:
            return names[side]
        forms = HE_SHE.get(word.lower())
        if forms is None or word.isupper():
            return word
        return forms[side].capitalize() if word[0].isupper() else forms[side]

    return _WORD.sub(put, text)


def under_name(context: CandidateContext, side: int, names: tuple[str, str]) -> CandidateContext:
    """The candidate with a resume and titles of that name; a resume that holds none begins with it."""
    resume = renamed(context.resume_text, side, names)
    if names[side] not in _WORD.findall(resume):
        resume = f"{names[side]}: {resume}"
    titles = tuple(renamed(title, side, names) for title in context.desired_titles)
    return replace(context, resume_text=resume, desired_titles=titles)


def swap_candidates(funnel: Funnel, asked: Sequence[tuple[CandidateContext, datetime]]) -> Swaps:
    """Ask for jobs under two names each; an answer is the first SHOWN of the fine ranker's order."""
    told = Swaps()
    for number, (context, at) in enumerate(asked):
        names = NAMES[number % len(NAMES)]
        first, second = (funnel.rank_all(under_name(context, side, names), at=at).rows[:SHOWN] for side in (0, 1))
        told += _told(first, second)
    return told


def swap_people(funnel: PeopleFunnel, rows: Sequence[int], jobs: Sequence[str], at: datetime) -> Swaps:
    """Score people of a release for jobs as if their profile had held another name.

    An answer is the fine ranker's scores of one person for all the jobs; the overlap is the share of equal ones.
    """
    told = Swaps()
    questions = [question for question in map(funnel.pairs.question, jobs) if question is not None]
    for number, row in enumerate(rows if questions else ()):
        names, person = NAMES[number % len(NAMES)], funnel.pairs.people.table.slice(row, 1)
        scores = []
        for side in (0, 1):
            pairs = _one_person(funnel, person, under_name(profiles_of(person)[0], side, names))
            matrices = [
                pairs.matrix(pairs.prepare(question), np.zeros(1, np.int32), at=at, columns=funnel.fine.columns)
                for question in questions
            ]
            scores.append(funnel.fine.score(np.concatenate(matrices)))
        same = scores[0] == scores[1]
        told += Swaps(swaps=1, changed=int(not same.all()), overlap=float(same.mean()))
    return told


def _one_person(funnel: PeopleFunnel, person: pa.Table, context: CandidateContext) -> PeoplePairs:
    """A release of one person with another profile text: its words and vector as the daily run makes them."""
    jobs = funnel.pairs.jobs
    vector = funnel.texts.vector(candidate_text(context))
    rows = quantize_rows(torch.from_numpy(np.array(vector[None], np.float32)))
    people = People.from_table(person, jobs.catalogue)
    words = PeopleWords.fit(jobs.lexicon, [context], careers_of(person))
    return PeoplePairs(people, words, JobVectors(rows.codes.numpy(), rows.scales.numpy()), jobs)


def _told(first: npt.NDArray[np.int32], second: npt.NDArray[np.int32]) -> Swaps:
    shared = len(set(first[:10].tolist()) & set(second[:10].tolist()))
    return Swaps(
        swaps=1,
        changed=int(not np.array_equal(first, second)),
        overlap=shared / max(len(first[:10]), len(second[:10]), 1),
    )
