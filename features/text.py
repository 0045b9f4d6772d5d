"""Text views of jobs and candidates, and the tokenizer every lexical part shares.

The embedder reads the first 64 tokens or so, hence the order: what tells jobs apart comes first.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from rolecall.features.context import CandidateContext
from rolecall.features.names import LETTER, NOT_BEFORE, given_names

_PRONOUN = re.compile(
    rf"{NOT_BEFORE}(?:[Hh]e|[Ss]he|[Hh]im|[Hh]ers?|[Hh]is|[Hh]imself|[Hh]erself|Mr|Mrs|Ms|Miss|Herr|Frau)(?!{LETTER})\.?"
)
_SURNAME = re.compile(rf"[^\S\n]+[^\W\d_a-z]{LETTER}+(?=\s*(?:[,.:;|(\n]|$))")
_COMPANY = re.compile(
    rf"(?:[^\S\n]+(?:[^\W\d_a-z]{LETTER}*|&|und|and)){{0,3}}?[^\S\n]+"
    r"(?:GmbH|mbH|AG|SE|KG|KGaA|OHG|Inc|Ltd|LLC|LLP|PLC|plc|Corp|Corporation|SARL|SAS|SpA|BV|NV|ApS|Oy|"
    rf"Group|Gruppe|Holding|Stiftung|Foundation|University|Universit\u00e4t)(?!{LETTER})"
)
"""What makes a name on the same line an employer's or a school's: Robert Bosch GmbH, Anna University."""

_WORD = re.compile(r"[^\W_]+(?:\+\+|#)?")
_MAX_SKILLS = 12
_DESCRIPTION_WORDS = 48
_RESUME_WORDS = 48
_SPARE_WORDS = 32
"""More words of a resume than are wanted are looked through at first: names go."""


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
        resume_words(candidate.resume_text, _RESUME_WORDS),
    )


def resume_words(text: str | None, count: int) -> str:
    """The first words of a resume as rankers read it: without names and pronouns.

    Of a long one only the beginning is looked through, where enough of it is left.
    """
    whole = text or ""
    pieces = whole.split(maxsplit=count + _SPARE_WORDS)
    if len(pieces) > count + _SPARE_WORDS:
        kept = neutral(whole[: len(whole) - len(pieces[-1])]).split()
        if len(kept) > count + 6:  # the last ones may be a name that does not end there, or an employer's
            return " ".join(kept[:count])
    return _first_words(neutral(whole), count)


def desired_titles(candidate: CandidateContext) -> tuple[str, ...]:
    """The titles a candidate looks for as rankers read them: one each, without names and pronouns, maybe empty."""
    return tuple(neutral(title) for title in candidate.desired_titles)


def neutral(text: str) -> str:
    """The text without GIVEN_NAMES, the family names behind them on their line, and pronouns that tell a sex.

    Only words with a capital letter count as names. A name that is not in the list stays, and so does one that a legal
    form or the like follows: an employer's. Robert Bosch without one is taken for a person.
    """
    text = _PRONOUN.sub("", text)
    kept, end = [], 0
    for found in given_names(text):
        if found.start() >= end and not _COMPANY.match(text, found.end()):
            kept.append(text[end : found.start()])
            family = _SURNAME.match(text, found.end())
            end = family.end() if family else found.end()
    return " ".join("".join([*kept, text[end:]]).split()).lstrip(" ,.:;|")


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
