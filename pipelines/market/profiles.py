"""Candidates as rows of their table. They speak their own language: the other half of the titles, O*NET's short
activities, other skills.

Who writes differs too: some tell of themselves in the first person, some let others tell with a name and a pronoun,
some list. Names and pronouns are drawn by group and by nothing else, and are the only trace of a group in any table.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rolecall.features.schema import CANDIDATES, SENIORITIES, TIMESTAMP
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.employers import employer_id
from rolecall.pipelines.market.event_rows import candidate_id
from rolecall.pipelines.market.job_table import place_columns
from rolecall.pipelines.market.luck import Draw, Luck
from rolecall.pipelines.market.people import CONSENT, VISIBLE, People
from rolecall.pipelines.market.places import Places
from rolecall.pipelines.market.taxonomy import Occupation, Taxonomy
from rolecall.pipelines.market.wording import limited, several

_YEARS_BY_SENIORITY = (0, 2, 5, 9, 13, 18)
_DRAWS = 40
_NAMES_A = "James Robert Michael David William Thomas Daniel Paul Mark Andrew Peter Stefan Lukas Jonas Oliver Harry"
_NAMES_B = "Mary Patricia Jennifer Linda Elizabeth Susan Sarah Karen Emma Laura Anna Julia Katharina Lena Olivia Amelia"
_FIRST_NAMES = (_NAMES_A.split(), _NAMES_B.split())
_PRONOUN = ("He", "She")
Numbers = npt.NDArray[Any]


class Profiles:
    """Puts words to candidates."""

    def __init__(self, config: MarketConfig, luck: Luck, taxonomy: Taxonomy, places: Places) -> None:
        self._config, self._luck, self._taxonomy, self._places = config, luck, taxonomy, places
        self._today = config.starts_at.date()

    def rows(self, people: People, row_N: Numbers, version_N: Numbers) -> pa.Table:
        """The candidates at these positions of `people`, as their profiles stand at these versions."""
        number = people.number[row_N]
        declared, level = people.declared[row_N, version_N], people.seniority[row_N, version_N]
        draws = self._luck.uniform(Draw.PERSON_TEXT, number[:, None], version_N[:, None], np.arange(_DRAWS))
        works = [self._taxonomy.occupations[o] for o in declared.tolist()]
        past = [self._taxonomy.occupations[o] for o in people.work[row_N].tolist()]
        # what is told of the past is the same in every version
        held = self._luck.uniform(Draw.PERSON_TEXT, number[:, None], 0, np.arange(_DRAWS))
        told = [*zip(past, level.tolist(), people.group[row_N].tolist(), held.tolist(), strict=True)]
        experience = [_experience(work, rank, self._today, u) for work, rank, _, u in told]
        columns = {
            "candidate_id": [candidate_id(n) for n in number.tolist()],
            "desired_titles": [_desired(work, u) for work, u in zip(works, draws.tolist(), strict=True)],
            "resume_text": [_resume(work, rank, group, self._config.max_words, u) for work, rank, group, u in told],
            "skills": [self._labels(row) for row in people.listed[row_N, version_N].tolist()],
            "seniority": pa.array([SENIORITIES[rank] for rank in level.tolist()], mask=held[:, 0] < 0.1),
            "experience": pa.array(experience, CANDIDATES.columns.field("experience").type),
            "consent": [CONSENT[n] for n in people.consent[row_N].tolist()],
            "visibility": [VISIBLE[n] for n in people.visibility[row_N].tolist()],
            "hidden_from": [_hidden(row) for row in people.hidden_from[row_N].tolist()],
            "updated_at": pa.array(people.told_us[row_N, version_N], TIMESTAMP),
            **place_columns(self._places, people.place[row_N, version_N], held[:, 1] < 0.05),
        }
        return pa.Table.from_pydict(columns, schema=CANDIDATES.columns)

    def known(self, people: People, until_us: int) -> pa.Table:
        """Everybody who had joined before `until_us`, with the newest of what they had told."""
        rows = np.flatnonzero(people.joined_us < until_us)
        return self.rows(people, rows, people.version(rows, np.full(len(rows), until_us - 1)))

    def told(self, people: People, since_us: int, until_us: int) -> pa.Table:
        """What newcomers and edits told in [since, until), in order of time."""
        row, version = np.nonzero((people.told_us >= since_us) & (people.told_us < until_us))
        order = np.lexsort([row, people.told_us[row, version]])
        return self.rows(people, row[order], version[order])

    def _labels(self, skills: Sequence[int]) -> list[str]:
        return [self._taxonomy.skills[skill] for skill in sorted(skills) if skill >= 0]


def _own_words(work: Occupation) -> tuple[str, ...]:
    return work.titles[1::2] or work.titles


def _desired(work: Occupation, u: Sequence[float]) -> list[str]:
    pool = _own_words(work) if u[2] < 0.8 else work.titles
    return several(pool, min(len(pool), 1 + int(3 * u[3])), u[4])


def _resume(work: Occupation, level: int, group: int, limit: int, u: Sequence[float]) -> str:
    years = max(0, _YEARS_BY_SENIORITY[level] + int(4 * u[5]) - 1)
    done = [text[0].lower() + text[1:] for text in several(work.activities, 3 + int(3 * u[6]), u[7])]
    title = _pick(_own_words(work), u[8])
    since = f"{years} years of work" if years else "Starting out"
    if u[9] < 0.4:
        return limited([f"{since} as {title}.", f"Used to: {'; '.join(done)}."], limit)
    if u[9] < 0.6:
        return limited([f"I am {title}, {years} years.", *(f"I {text}." for text in done)], limit)
    name, pronoun = _pick(_FIRST_NAMES[group], u[10]), _PRONOUN[group]
    if u[9] < 0.8:
        return limited([f"{name}, {since.lower()} as {title}.", f"{pronoun} is used to: {'; '.join(done)}."], limit)
    return limited([f"{name}: {title}, {years} years.", *(text.capitalize() + "." for text in done)], limit)


def _experience(work: Occupation, level: int, today: date, u: Sequence[float]) -> list[dict[str, str | date | None]]:
    """Past positions, newest first, without a gap; the newest is still held by two thirds."""
    count = 0 if level == 0 else 1 + int(u[11] * (min(level, 3) + 1))
    ended: date | None = None if u[12] < 0.67 else today - timedelta(days=20 + int(380 * u[13]))
    held: list[dict[str, str | date | None]] = []
    for position in range(count):
        length, title, text = u[14 + 3 * position : 17 + 3 * position]
        started = (ended or today) - timedelta(days=200 + int(1600 * length))
        held.append(
            {
                "title": _pick(_own_words(work), title),
                "company": None,
                "started_at": started,
                "ended_at": ended,
                "description": _pick(work.activities, text),
            }
        )
        ended = started
    return held


def _hidden(employers: Sequence[int]) -> list[str] | None:
    return [employer_id(number) for number in employers if number >= 0] or None


def _pick(pool: Sequence[str], u: float) -> str:
    return pool[int(u * len(pool))]
