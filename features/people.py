"""The people of one release as columns of numbers, one row a person in order of candidate_id.

    people = People.from_table(table, catalogue)     # PEOPLE columns; `catalogue`: the release's jobs
    people.log.before(rows, at_us)                   # what those people did before an instant

Only people who agreed to be recommended are in it (`pipelines/people.py` builds the table). What is known as of an
instant is asked with that instant, so training, evaluation and serving read the same object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from rolecall.features.catalogue import Catalogue, Codes, Floats, Rows, SkillLists, instants, normal, numbers, rank_of
from rolecall.features.schema import CANDIDATES, TEXT_LIST
from rolecall.platform.errors import SchemaError

pc: Any = pyarrow.compute  # its functions are made at import, where no type checker sees them

LOG_KINDS = ("view", "click", "save", "apply", "dismiss")
"""What a person's log remembers; entries hold places in this tuple."""

APPLIED, CLOSED = 0, 1
"""Kinds of facts: the person applied to the job; the job is closed to them (they dismissed it, or the employer rejected
or hired them)."""

_LOG = [
    ("log_us", pa.list_(pa.int64())),
    ("log_job", TEXT_LIST),
    ("log_employer", TEXT_LIST),
    ("log_kind", pa.list_(pa.int8())),
]
_FACTS = [
    ("fact_us", pa.list_(pa.int64())),
    ("fact_job", TEXT_LIST),
    ("fact_employer", TEXT_LIST),
    ("fact_kind", pa.list_(pa.int8())),
]
PEOPLE_SCHEMA = pa.schema([*CANDIDATES.columns, *(pa.field(name, kind) for name, kind in (*_LOG, *_FACTS))])
"""The candidates table's columns, the person's log in order of time, and facts that decide who may be shown."""

_UNIX = date(1970, 1, 1).toordinal()
_DAY_US = 86_400e6


@dataclass(frozen=True, kw_only=True)
class Entries:
    """Log entries of some people, in order of person and time: `owner` is a place in the rows asked for."""

    owner: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    jobs: Rows
    employers: Rows
    kinds: npt.NDArray[np.int8]

    def where(self, mask: npt.NDArray[np.bool_]) -> Entries:
        return Entries(
            owner=self.owner[mask],
            times=self.times[mask],
            jobs=self.jobs[mask],
            employers=self.employers[mask],
            kinds=self.kinds[mask],
        )

    def newest(self, count: int) -> Entries:
        """At most `count` of each person's, the newest."""
        if not len(self.owner):
            return self
        ends = np.cumsum(np.bincount(self.owner))
        return self.where(ends[self.owner] - np.arange(len(self.owner)) <= count)


@dataclass(frozen=True, kw_only=True)
class ActivityLog:
    """What people did: person r has entries `starts[r]:starts[r + 1]`, oldest first.

    `times` microseconds since 1970; `jobs` catalogue rows and `employers` its employer codes, -1 where the release
    does not know them; `kinds` places in LOG_KINDS.
    """

    starts: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    jobs: Rows
    employers: Rows
    kinds: npt.NDArray[np.int8]

    def before(self, rows: Rows, at_us: float) -> Entries:
        """Entries of the people strictly before an instant."""
        places, owner = flat_places(self.starts, rows)
        known = self.times[places] < at_us
        places = places[known]
        return Entries(
            owner=owner[known],
            times=self.times[places],
            jobs=self.jobs[places],
            employers=self.employers[places],
            kinds=self.kinds[places],
        )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Who applied where, and who is closed to which job: by key the people's rows and since when (microseconds)."""

    by_key: Mapping[str, tuple[Rows, npt.NDArray[np.float64]]]

    def before(self, key: str | None, at_us: float) -> Rows:
        """Rows with such a fact strictly before an instant; of no key none."""
        if not key or key not in self.by_key:
            return np.zeros(0, np.int32)
        rows, since = self.by_key[key]
        return rows[since < at_us]

    @classmethod
    def of(cls, keys: Sequence[str], rows: Rows, since: npt.NDArray[np.float64]) -> Facts:
        found: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            if key:
                found.setdefault(key, []).append(place)
        return cls(by_key={key: (rows[places], since[places]) for key, places in found.items()})


@dataclass(frozen=True, kw_only=True)
class Career:
    """Past positions: person r has `starts[r]:starts[r + 1]`. `began`, `ended` microseconds, NaN where unknown."""

    starts: npt.NDArray[np.int64]
    began: npt.NDArray[np.float64]
    ended: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class People:
    """All columns have one entry a row. Unknown numbers are NaN, unknown codes -1; see Catalogue.

    `known_since`: when the profile was recorded, microseconds since 1970. `applicants_only`: shown only to employers
    they applied to. `hidden_from`: by employer (`normal` form) the rows that must never be shown to it.
    `applied_jobs`, `closed_jobs` by job id, `applied_employers` by employer.
    """

    table: pa.Table
    candidate_ids: tuple[str, ...]
    city: Codes
    region: Codes
    country: Codes
    skills: SkillLists
    latitude: Floats
    longitude: Floats
    seniority: Floats
    known_since: npt.NDArray[np.float64]
    applicants_only: npt.NDArray[np.bool_]
    hides: npt.NDArray[np.bool_]
    hidden_from: Mapping[str, Rows]
    applied_jobs: Facts
    applied_employers: Facts
    closed_jobs: Facts
    log: ActivityLog
    career: Career
    _row_by_id: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.candidate_ids)

    def row_of(self, candidate_id: str) -> int | None:
        """The row of a person, None where this release may not show them."""
        return self._row_by_id.get(candidate_id)

    def rows_of(self, candidate_ids: Iterable[str]) -> Rows:
        """Rows of those people that this release holds, in the order given."""
        found = (self._row_by_id.get(name) for name in candidate_ids)
        return np.array([row for row in found if row is not None], np.int32)

    def person(self, row: int) -> dict[str, Any]:
        """Every table column of one person."""
        return dict(self.table.slice(row, 1).to_pylist()[0])

    @classmethod
    def from_table(cls, table: pa.Table, catalogue: Catalogue) -> People:
        """Build the columns. Raises SchemaError on a missing column, a repeated id, or somebody who did not consent."""
        table = _checked(table)
        ids = tuple(table["candidate_id"].to_pylist())
        applied, closed = _facts(table, APPLIED), _facts(table, CLOSED)
        return cls(
            table=table,
            candidate_ids=ids,
            city=Codes.encode(table["city"]),
            region=Codes.encode(table["region"]),
            country=Codes.encode(table["country"]),
            skills=SkillLists.encode(table["skills"].to_pylist()),
            latitude=np.radians(numbers(table["lat"])).astype(np.float32),
            longitude=np.radians(numbers(table["lon"])).astype(np.float32),
            seniority=np.array([rank_of(name) for name in table["seniority"].to_pylist()], np.float32),
            known_since=instants(table["updated_at"]),
            applicants_only=np.array([name == "applied" for name in table["visibility"].to_pylist()], np.bool_),
            hides=np.array([bool(names) for names in table["hidden_from"].to_pylist()], np.bool_),
            hidden_from=_hidden(table),
            applied_jobs=Facts.of(applied.jobs, applied.rows, applied.since),
            applied_employers=Facts.of(applied.employers, applied.rows, applied.since),
            closed_jobs=Facts.of(closed.jobs, closed.rows, closed.since),
            log=_log(table, catalogue),
            career=_career(table),
            _row_by_id={name: row for row, name in enumerate(ids)},
        )


def flat_places(starts: npt.NDArray[np.int64], rows: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Places of all entries of some rows of a ragged array, and for each the place of its owner in `rows`."""
    lengths = starts[rows + 1] - starts[rows]
    ends = np.cumsum(lengths)
    owner = np.repeat(np.arange(len(rows)), lengths)
    places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts[rows] - (ends - lengths), lengths)
    return places, owner


@dataclass(frozen=True, kw_only=True)
class _FactRows:
    jobs: list[str]
    employers: list[str]
    rows: Rows
    since: npt.NDArray[np.float64]


def _checked(table: pa.Table) -> pa.Table:
    missing = [name for name in PEOPLE_SCHEMA.names if name not in table.column_names]
    if missing:
        raise SchemaError(f"a people table without {missing}", str(PEOPLE_SCHEMA.names), "build the release again")
    allowed = pc.fill_null(
        pc.and_(table["consent"], pc.not_equal(pc.fill_null(table["visibility"], "all"), "none")), False
    )
    if not pc.all(allowed, min_count=0).as_py():
        raise SchemaError("a people table with somebody who may not be shown", "consent, and visibility not none")
    if pc.count_distinct(table["candidate_id"]).as_py() != table.num_rows:
        raise SchemaError("a people table that holds a candidate_id twice", "one row a person")
    return table.sort_by("candidate_id").combine_chunks()


def _ragged(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Starts [n + 1] and flat values of a list column without nulls."""
    lists = pc.list_value_length(column).to_numpy().astype(np.int64)
    starts = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(lists, out=starts[1:])
    return starts, pc.list_flatten(column)


def _facts(table: pa.Table, kind: int) -> _FactRows:
    starts, since = _ragged(table["fact_us"])
    owner = np.repeat(np.arange(table.num_rows, dtype=np.int32), np.diff(starts))
    wanted = np.asarray(pc.list_flatten(table["fact_kind"]).to_numpy()) == kind
    jobs, employers = (pc.list_flatten(table[name]).to_pylist() for name in ("fact_job", "fact_employer"))
    places = np.flatnonzero(wanted)
    return _FactRows(
        jobs=[jobs[place] for place in places],
        employers=[normal(employers[place]) for place in places],
        rows=owner[places],
        since=np.asarray(since.to_numpy(), np.float64)[places],
    )


def _hidden(table: pa.Table) -> dict[str, Rows]:
    found: dict[str, list[int]] = {}
    for row, names in enumerate(table["hidden_from"].to_pylist()):
        for name in {normal(name) for name in names or ()}:
            found.setdefault(name, []).append(row)
    return {name: np.array(rows, np.int32) for name, rows in found.items()}


def _log(table: pa.Table, catalogue: Catalogue) -> ActivityLog:
    starts, times = _ragged(table["log_us"])
    jobs = [catalogue.row_of(name) for name in pc.list_flatten(table["log_job"]).to_pylist()]
    employers = [catalogue.employer.of(name) for name in pc.list_flatten(table["log_employer"]).to_pylist()]
    return ActivityLog(
        starts=starts,
        times=np.asarray(times.to_numpy(), np.float64),
        jobs=np.array([-1 if row is None else row for row in jobs], np.int32),
        employers=np.array(employers, np.int32),
        kinds=np.asarray(pc.list_flatten(table["log_kind"]).to_numpy(), np.int8),
    )


def _career(table: pa.Table) -> Career:
    positions = [person or [] for person in table["experience"].to_pylist()]
    starts = np.zeros(len(positions) + 1, np.int64)
    np.cumsum([len(person) for person in positions], out=starts[1:])
    flat = [position for person in positions for position in person]
    return Career(
        starts=starts,
        began=np.array([_midnight_us(position["started_at"]) for position in flat], np.float64),
        ended=np.array([_midnight_us(position["ended_at"]) for position in flat], np.float64),
    )


def _midnight_us(day: date | None) -> float:
    return float("nan") if day is None else (day.toordinal() - _UNIX) * _DAY_US
