"""Replay of the columns that people are recommended by: would they say the same had what they may not know
never been?

For a few requests the table of people is built again by the same code and every column computed from it,

- from the log without anything at or after the request: no column may change, and
- for each person from that person's own events alone: no column may change, in either feature service, since what
  other people did is no reason to recommend somebody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from rolecall.features.catalogue import Floats, Rows
from rolecall.features.job_vectors import JobVectors
from rolecall.features.people import People
from rolecall.features.people_columns import PEOPLE_COLUMNS
from rolecall.features.people_pairs import PeoplePairs
from rolecall.pipelines.knowledge import before
from rolecall.pipelines.leaks.findings import Finding, Kind
from rolecall.pipelines.people import people_as_of
from rolecall.pipelines.people_training import JobRequest

MOST_PEOPLE = 6
"""People of each request that are looked at alone."""

MakePeople = Callable[[pl.DataFrame, pl.DataFrame, pl.DataFrame], pa.Table]
"""Makes the table of people as `people_as_of` does."""


@dataclass(frozen=True, kw_only=True)
class PeopleLeakAudit:
    """The code under audit and the tables that are not events."""

    candidates: pl.DataFrame
    jobs: pl.DataFrame
    pairs: PeoplePairs
    make_people: MakePeople = people_as_of

    def findings(self, events: pl.DataFrame, sampled: Sequence[JobRequest]) -> tuple[Finding, ...]:
        """A finding for each leaking column and kind, in order of column."""
        found: dict[tuple[Kind, str], Finding] = {}
        for request in sampled:
            for finding in self._request(events, request):
                found.setdefault((finding.kind, finding.column), finding)
        return tuple(found[key] for key in sorted(found))

    def _request(self, events: pl.DataFrame, request: JobRequest) -> Iterator[Finding]:
        rows = np.sort(request.rows[:MOST_PEOPLE])  # a table of people is in order of their ids
        expected = self._columns(events, request, rows)
        past = self._columns(events.filter(before(request.at)), request, rows)
        yield from _findings("future", expected, past, request)
        for place, row in enumerate(rows):
            name = self.pairs.people.candidate_ids[row]
            own = events.filter(pl.col("candidate_id") == name)
            alone = self._columns(own, request, rows[place : place + 1])
            yield from _findings("others", expected[place : place + 1], alone, request)

    def _columns(self, events: pl.DataFrame, request: JobRequest, rows: Rows) -> Floats:
        """Every column of some people, from a table of people made anew. Their profiles are no events: they stay."""
        whole = self.pairs
        names = [whole.people.candidate_ids[row] for row in rows]
        mine = self.candidates.filter(pl.col("candidate_id").is_in(names))
        people = People.from_table(self.make_people(mine, events, self.jobs), whole.jobs.catalogue)
        vectors = JobVectors(whole.vectors.codes[rows], whole.vectors.scales[rows])
        pairs = PeoplePairs(people, whole.words.take(rows), vectors, whole.jobs)
        columns = tuple(PEOPLE_COLUMNS)
        question = pairs.question(whole.jobs.catalogue.job_ids[request.job])
        if question is None:
            return np.zeros((0, len(columns)), np.float32)
        everybody = np.arange(len(rows), dtype=np.int32)
        return pairs.matrix(pairs.prepare(question), everybody, at=request.at, columns=columns)


def _findings(kind: Kind, expected: Floats, found: Floats, request: JobRequest) -> Iterator[Finding]:
    alike = np.isclose(expected, found, rtol=1e-5, atol=1e-6, equal_nan=True)
    for column, name in enumerate(PEOPLE_COLUMNS):
        if not alike[:, column].all():
            row = int(np.argmin(alike[:, column]))
            evidence: dict[str, float | str] = {
                "request": f"{request.at:%Y-%m-%d %H:%M:%S}",
                "people changed": float((~alike[:, column]).mean()),
                "held": float(expected[row, column]),
                "without it": float(found[row, column]),
            }
            yield Finding(kind=kind, column=name, evidence=evidence)
