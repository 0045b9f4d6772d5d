"""Text views of jobs and candidates, and the tokenizer every lexical part shares.

The embedder reads the first 64 tokens or so, hence the order: what tells jobs apart comes first.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from rolecall.features.context import CandidateContext
from rolecall.features.name_positions import NOTHING, Known, Span, name_spans, own_names, title_spans
from rolecall.features.names import LETTER, NOT_BEFORE
from rolecall.features.ordinary import folded

_PRONOUN = re.compile(
    rf"{NOT_BEFORE}(?:[Hh]e|[Ss]he|[Hh]im|[Hh]ers?|[Hh]is|[Hh]imself|[Hh]erself|Mr|Mrs|Ms|Miss|Herr|Frau)(?!{LETTER})\.?"
)

_WORD = re.compile(r"[^\W_]+(?:\+\+|#)?")
_LETTERS = re.compile(r"[^\W\d_]+")
_MAX_SKILLS = 12
_DESCRIPTION_WORDS = 48
_RESUME_WORDS = 48
_KEPT = 32
"""Resumes read last: one request asks for its own several times."""


JOB_TEXT = ("title", "employer_name", "skills", "category_path", "description")
"""The columns that `job_text` reads."""


def job_text(job: Mapping[str, Any]) -> str:
    """What the embedder reads of a job (a row of the jobs table, `employer_name` where it was joined)."""
    category = list(job.get("category_path") or ())
    return _joined(
        job.get("title"),
        job.get("employer_name"),
        ", ".join(list(job.get("skills") or ())[:_MAX_SKILLS]),
        category[-1] if category else None,
        _first_words(job.get("description"), _DESCRIPTION_WORDS),
    )


def candidate_text(candidate: CandidateContext) -> str:
    """What the embedder reads of a candidate, laid out as a job is. Empty where nothing is known."""
    return _joined(
        ", ".join(filter(None, desired_titles(candidate)[:3])),
        ", ".join(candidate.skills[:_MAX_SKILLS]),
        resume_words(candidate, _RESUME_WORDS),
    )


def resume_words(candidate: CandidateContext, count: int) -> str:
    """The first words of a resume as rankers read it: without names and pronouns."""
    return _first_words(_resume(candidate.resume_text, known(candidate)), count)


def desired_titles(candidate: CandidateContext) -> tuple[str, ...]:
    """The titles a candidate looks for as rankers read them: one each, without names and pronouns, maybe empty."""
    if not candidate.desired_titles:
        return ()
    names = _names(candidate.resume_text, known(candidate))
    return tuple(neutral_title(title, names) for title in candidate.desired_titles)


@lru_cache(maxsize=_KEPT)
def _resume(text: str, told: Known) -> str:
    return neutral(text, told)


@lru_cache(maxsize=_KEPT)
def _names(text: str, told: Known) -> frozenset[str]:
    return own_names(text, told)


def known(candidate: CandidateContext) -> Known:
    """What a profile tells of its resume: its skills, places and past employers are no names."""
    told = (*candidate.skills, candidate.city, candidate.region, candidate.country)
    words = frozenset(folded(word) for text in told if text for word in _LETTERS.findall(text))
    return Known(words=words, employers=candidate.past_employers)


def neutral(text: str, told: Known = NOTHING) -> str:
    """The text of a resume without the names of people (`name_positions` says which), mail and web addresses, and
    pronouns that tell a sex. `told`: what is no name.

    An employer's name stays, whoever it is called after, where that can be told: welder at Robert Bosch.
    """
    return _without(text, name_spans(text, told))


def neutral_title(title: str, names: Collection[str] = ()) -> str:
    """The same of a job title; `names`: the folded words of its owner's name."""
    return _without(title, title_spans(title, names))


def _without(text: str, spans: Iterable[Span]) -> str:
    kept, end = [], 0
    for start, stop in spans:
        kept.append(text[end:start])
        end = stop
    return " ".join(_PRONOUN.sub("", "".join([*kept, text[end:]])).split()).lstrip(" ,.:;|")


def job_lexical_text(job: Mapping[str, Any]) -> str:
    """The words a job is found by: title, place, skills."""
    return _words(job.get("title"), job.get("city"), job.get("region"), *(job.get("skills") or ()))


def candidate_lexical_text(candidate: CandidateContext) -> str:
    """The words that describe a candidate, as `job_lexical_text` describes a job."""
    return _words(*desired_titles(candidate), candidate.city, candidate.region, *candidate.skills)


def tokens(text: str) -> list[str]:
    """Lower-case words without accents, plurals folded; `c++` and `c#` stay whole.

    Scripts that write no spaces come out as one word a run.
    """
    plain = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(c for c in plain if not unicodedata.combining(c)) if not plain.isascii() else plain
    return [_singular(word) for word in _WORD.findall(plain)]


def text_hash(text: str) -> bytes:
    """SHA-256 of the text: its key in the vector cache."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _joined(*parts: str | None) -> str:
    return " | ".join(part for part in map(_squeezed, parts) if part)


def _words(*parts: str | None) -> str:
    return " ".join(part for part in map(_squeezed, parts) if part)


def _squeezed(text: str | None) -> str:
    return " ".join(text.split()) if text else ""


def _first_words(text: str | None, count: int) -> str:
    words: Iterable[str] = (text or "").split(maxsplit=count)[:count]
    return " ".join(words)
