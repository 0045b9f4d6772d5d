"""Why a person was recommended for a job, in words: facts of their profile, never what they did on the site, and
nothing of their resume's text."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

import numpy as np

from rolecall.features.catalogue import Floats, Rows, normal
from rolecall.features.people_pairs import PeoplePairs, PreparedJob
from rolecall.features.text import tokens

MOST_REASONS = 4
MOST_SKILLS = 3
NEAR_KM = 50.0
SIMILAR = 0.4
_COLUMNS = ("title_desired", "title_career", "distance_km", "same_city")


class PeopleReasons:
    """Explains people of one release."""

    def __init__(self, pairs: PeoplePairs) -> None:
        self.pairs = pairs

    def explain(self, prepared: PreparedJob, rows: Rows, *, at: datetime) -> list[tuple[str, ...]]:
        """Up to four reasons a person, the weightiest first."""
        facts = self.pairs.matrix(prepared, rows, at=at, columns=_COLUMNS)
        return [
            tuple(found for found in self._reasons(prepared, self.pairs.people.person(int(row)), fact, at) if found)[
                :MOST_REASONS
            ]
            for row, fact in zip(rows, facts, strict=True)
        ]

    def _reasons(self, prepared: PreparedJob, person: dict[str, Any], facts: Floats, at: datetime) -> Iterable[str]:
        desired, career, distance, same_city = map(float, facts)
        yield _skills(prepared, person)
        if career >= SIMILAR:
            yield _career(prepared, person, at)
        if desired >= SIMILAR:
            yield f'looks for "{_closest(prepared, person["desired_titles"] or [])}"'
        if person["seniority"] and person["seniority"] == prepared.question.seniority:
            yield f"{person['seniority']} level, as asked"
        if same_city == 1:
            yield f"in {person['city']}"
        elif distance <= NEAR_KM:
            yield f"{distance:.0f} km away"


def _skills(prepared: PreparedJob, person: dict[str, Any]) -> str:
    has = {normal(skill) for skill in person["skills"] or ()}
    asked = list(dict.fromkeys(normal(skill) for skill in prepared.question.skills))
    shared = [skill for skill in asked if skill in has]
    more = f" and {len(shared) - MOST_SKILLS} more" if len(shared) > MOST_SKILLS else ""
    if not shared:
        return ""
    return f"has {len(shared)} of {len(asked)} skills: {', '.join(shared[:MOST_SKILLS])}{more}"


def _career(prepared: PreparedJob, person: dict[str, Any], at: datetime) -> str:
    """`was a Data Engineer for 6 years`, or `is` where the position goes on."""
    positions = [one for one in person["experience"] or () if one["title"]]
    title = _closest(prepared, [one["title"] for one in positions])
    if not title:
        return ""
    same = [one for one in positions if one["title"] == title]
    years = sum(_years(one["started_at"], one["ended_at"] or at.date()) for one in same)
    verb = "is" if any(one["ended_at"] is None for one in same) else "was"
    lasting = f" for {years:.0f} year{'s' if round(years) != 1 else ''}" if round(years) >= 1 else ""
    return f"{verb} {'an' if title[:1].lower() in 'aeiou' else 'a'} {title}{lasting}"


def _closest(prepared: PreparedJob, titles: list[str]) -> str:
    """The title that shares most words with the job's."""
    wanted = set(tokens(prepared.question.title))
    shares = [len(wanted & set(words)) / max(len(words), 1) for words in map(tokens, titles)]
    return titles[int(np.argmax(shares))] if shares else ""


def _years(start: date | None, end: date) -> float:
    return 0.0 if start is None else max((end - start).days, 0) / 365.25
