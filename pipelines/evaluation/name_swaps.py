"""The same person under two names: does the answer change?

The correspondence test of Bertrand and Mullainathan (2004), "Are Emily and Greg more employable than Lakisha and
Jamal?" (American Economic Review 94), put to a recommender: whatever names and pronouns a resume and its titles hold
become those of one name, then those of another, and the resume tells that name once more, each time in another of the
places where resumes tell it. The two answers must be the same.

Half of the names are ones that no list of the platform holds: a text view that knows names by heart is told on.
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
from rolecall.features.name_positions import Span, name_spans, own_names, title_spans
from rolecall.features.names import LETTER, NOT_BEFORE
from rolecall.features.ordinary import folded
from rolecall.features.people import People
from rolecall.features.people_pairs import PeoplePairs
from rolecall.features.people_words import PeopleWords
from rolecall.features.text import candidate_text, known
from rolecall.kernels.quantization import quantize_rows
from rolecall.pipelines.people import careers_of, profiles_of
from rolecall.serving.funnel import Funnel
from rolecall.serving.people_funnel import PeopleFunnel

NAMES = (
    ("Greg", "Emily"),
    ("Thabo Nkosi", "Lerato Dlamini"),
    ("Brendan", "Lakisha"),
    ("Oluwaseun Adeyemi", "Nkechi Okonkwo"),
    ("Jamal", "Sarah"),
    ("Hiroto Tanaka", "Yui Nakamura"),
    ("Mohammed", "Fatima"),
    ("Bekzod Karimov", "Dilnoza Yusupova"),
    ("Stefan", "Katharina"),
    ("Siddharth Iyer", "Kavitha Venkatesan"),
    ("Tyrone", "Anne"),
    ("Kwame Mensah", "Akosua Boateng"),
    ("Darnell", "Meredith"),
    ("Eirik Haugen", "Sigrid Solberg"),
    ("Matthew", "Aisha"),
    ("Nikos Papadakis", "Eleni Stavrou"),
)
"""Pairs of a man's name and a woman's; those with a family name are in no list of the platform."""

PLACES = (
    "{name}: {resume}",
    "{name}\n{resume}",
    "My name is {name}. {resume}",
    "{resume}\n\nSincerely,\n{name}",
    "Name: {name}\n{resume}",
    "I am {name}. {resume}",
    "{name} has told this. {resume}",
)
"""Where a resume tells whose it is."""

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
_ADDRESS = re.compile(r"[@/]|www")
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


def renamed(text: str, spans: Sequence[Span], side: int, names: tuple[str, str]) -> str:
    """The text with names[side] at these spans, as words of their own, or its mail address where one stood; and
    pronouns to match: side 0 a man's, 1 a woman's."""
    address = f"{names[side].replace(' ', '.').lower()}@mail.example"
    kept, end = [], 0
    for start, stop in spans:
        name = address if _ADDRESS.search(text[start:stop]) else names[side]
        kept += [_with_pronouns(text[end:start], side), f" {name} "]
        end = stop
    return "".join([*kept, _with_pronouns(text[end:], side)])


def _with_pronouns(text: str, side: int) -> str:
    def put(found: re.Match[str]) -> str:
        word = found.group()
        forms = HE_SHE.get(word.lower())
        if forms is None or word.isupper():
            return word
        return forms[side].capitalize() if word[0].isupper() else forms[side]

    return _WORD.sub(put, text)


def under_name(
    context: CandidateContext, side: int, names: tuple[str, str], place: str = PLACES[0]
) -> CandidateContext:
    """The candidate with a resume and titles of that name, which the resume tells in that place as well."""
    told, both = known(context), {folded(word) for name in names for word in name.split()}
    resume = renamed(context.resume_text, name_spans(context.resume_text, told, both), side, names)
    own = own_names(context.resume_text, told) | both
    titles = tuple(renamed(title, title_spans(title, own), side, names) for title in context.desired_titles)
    return replace(context, resume_text=place.format(name=names[side], resume=resume), desired_titles=titles)


def swap_candidates(funnel: Funnel, asked: Sequence[tuple[CandidateContext, datetime]]) -> Swaps:
    """Ask for jobs under two names each; an answer is the first SHOWN of the fine ranker's order."""
    told = Swaps()
    for number, (context, at) in enumerate(asked):
        names = NAMES[number % len(NAMES)]
        both = (under_name(context, side, names, _place(number)) for side in (0, 1))
        first, second = (funnel.rank_all(one, at=at).rows[:SHOWN] for one in both)
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
            profile = under_name(profiles_of(person)[0], side, names, _place(number))
            pairs = _one_person(funnel, person, profile)
            matrices = [
                pairs.matrix(pairs.prepare(question), np.zeros(1, np.int32), at=at, columns=funnel.fine.columns)
                for question in questions
            ]
            scores.append(funnel.fine.score(np.concatenate(matrices)))
        same = scores[0] == scores[1]
        told += Swaps(swaps=1, changed=int(not same.all()), overlap=float(same.mean()))
    return told


def _place(number: int) -> str:
    """Every name comes to stand in every place, as the two counts have no common factor."""
    return PLACES[number % len(PLACES)]


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
