"""The jobs of one release as columns of numbers, one row a job in order of job_id.

    catalogue = Catalogue.from_table(jobs)       # JOBS columns, and employer_name where there is one
    catalogue.row_of("j17")                      # row number, or None
    catalogue.city.codes[rows]                   # equal codes: same city; -1: unknown

Everything that ranks works on row numbers of this object, never on ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from rolecall.features.schema import JOBS, SENIORITIES
from rolecall.platform.errors import SchemaError

pc: Any = pyarrow.compute  # its functions are made at import, where no type checker sees them

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

EMPLOYER_NAME = "employer_name"
MICROSECONDS_A_DAY = 86_400e6
_SENIORITY_RANK = {name: rank for rank, name in enumerate(SENIORITIES)}


@dataclass(frozen=True, kw_only=True)
class Codes:
    """A text column as numbers: `codes` int32[n], -1 where null or empty; equal after trimming and lower-casing."""

    codes: Rows
    names: tuple[str, ...]
    index: Mapping[str, int]

    def of(self, text: str | None) -> int:
        """The code of a text, -1 where no job has it."""
        return self.index.get(normal(text), -1)

    @classmethod
    def encode(cls, column: pa.ChunkedArray | pa.Array) -> Codes:
        """Number the distinct texts of a column in sorted order."""
        texts = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        texts = pc.if_else(pc.equal(texts, ""), None, texts)
        names = tuple(sorted(name for name in pc.unique(texts).to_pylist() if name is not None))
        found = pc.index_in(texts, value_set=pa.array(names, pa.string()))
        return cls(
            codes=pc.fill_null(found, -1).to_numpy().astype(np.int32),
            names=names,
            index={name: code for code, name in enumerate(names)},
        )


@dataclass(frozen=True, kw_only=True)
class SkillLists:
    """Skills of every job: row r holds `codes[starts[r]:starts[r + 1]]`, each skill once."""

    starts: npt.NDArray[np.int64]
    codes: Rows
    names: tuple[str, ...]
    index: Mapping[str, int]

    def of(self, row: int) -> Rows:
        return self.codes[self.starts[row] : self.starts[row + 1]]

    def known(self, skills: Iterable[str]) -> Rows:
        """Codes of the skills that some job asks for, sorted, each once."""
        found = {self.index[name] for name in map(normal, skills) if name in self.index}
        return np.array(sorted(found), np.int32)

    @classmethod
    def encode(cls, lists: Sequence[Sequence[str] | None]) -> SkillLists:
        cleaned = [sorted({normal(skill) for skill in skills or ()} - {""}) for skills in lists]
        names = tuple(sorted({skill for skills in cleaned for skill in skills}))
        index = {name: code for code, name in enumerate(names)}
        starts = np.zeros(len(cleaned) + 1, np.int64)
        np.cumsum([len(skills) for skills in cleaned], out=starts[1:])
        codes = np.array([index[skill] for skills in cleaned for skill in skills], np.int32)
        return cls(starts=starts, codes=codes, names=names, index=index)


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All columns have one entry a row. Unknown numbers are NaN, unknown codes -1.

    `latitude`, `longitude` in radians; `salary` the middle of the range, in the job's currency;
    `seniority` the rank in SENIORITIES; `remote` 1, 0 or NaN; `posted`, `expires` microseconds since
    1970 (float64 holds them exactly). Texts are as written, empty where unknown: `places` city and region, `employers`
    the name, else the id; `table` holds every column.
    """

    table: pa.Table
    job_ids: tuple[str, ...]
    titles: tuple[str, ...]
    cities: tuple[str, ...]
    places: tuple[str, ...]
    employers: tuple[str, ...]
    title: Codes
    employer: Codes
    city: Codes
    region: Codes
    country: Codes
    category: Codes
    category_root: Codes
    skills: SkillLists
    latitude: Floats
    longitude: Floats
    salary: Floats
    seniority: Floats
    remote: Floats
    posted: npt.NDArray[np.float64]
    expires: npt.NDArray[np.float64]
    _row_by_id: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.job_ids)

    def row_of(self, job_id: str) -> int | None:
        """The row of a job, None where this release does not know it."""
        return self._row_by_id.get(job_id)

    def rows_of(self, job_ids: Iterable[str]) -> Rows:
        """Rows of those jobs that this release knows, in the order given."""
        found = (self._row_by_id.get(job_id) for job_id in job_ids)
        return np.array([row for row in found if row is not None], np.int32)

    def ids_of(self, rows: Rows) -> list[str]:
        return [self.job_ids[row] for row in rows]

    def job(self, row: int) -> dict[str, Any]:
        """Every table column of one job."""
        return dict(self.table.slice(row, 1).to_pylist()[0])

    def live(self, rows: Rows, at_us: float) -> npt.NDArray[np.bool_]:
        """Whether each job is posted and not expired at an instant; an unknown time is no obstacle."""
        return ~(self.posted[rows] > at_us) & ~(self.expires[rows] <= at_us)

    @classmethod
    def from_table(cls, jobs: pa.Table) -> Catalogue:
        """Build the columns, ordered by job_id. Raises SchemaError where a JOBS column lacks or a job_id repeats."""
        jobs = _checked(jobs)
        categories = jobs["category_path"].to_pylist()
        cities = _texts(jobs["city"])
        regions = _texts(jobs["region"])
        job_ids = tuple(jobs["job_id"].to_pylist())
        return cls(
            table=jobs,
            job_ids=job_ids,
            titles=_texts(jobs["title"]),
            cities=cities,
            places=tuple(", ".join(filter(None, place)) for place in zip(cities, regions, strict=True)),
            employers=_employers(jobs),
            title=Codes.encode(jobs["title"]),
            employer=Codes.encode(jobs["employer_id"]),
            city=Codes.encode(jobs["city"]),
            region=Codes.encode(jobs["region"]),
            country=Codes.encode(jobs["country"]),
            category=Codes.encode(pa.array([" > ".join(path or ()) for path in categories], pa.string())),
            category_root=Codes.encode(pa.array([(path or [""])[0] for path in categories], pa.string())),
            skills=SkillLists.encode(jobs["skills"].to_pylist()),
            latitude=np.radians(numbers(jobs["lat"])).astype(np.float32),
            longitude=np.radians(numbers(jobs["lon"])).astype(np.float32),
            salary=middle(numbers(jobs["salary_min"]), numbers(jobs["salary_max"])),
            seniority=np.array([rank_of(name) for name in jobs["seniority"].to_pylist()], np.float32),
            remote=numbers(pc.cast(jobs["remote"], pa.float32())).astype(np.float32),
            posted=instants(jobs["posted_at"]),
            expires=instants(jobs["expires_at"]),
            _row_by_id={job_id: row for row, job_id in enumerate(job_ids)},
        )


def normal(text: str | None) -> str:
    """The form in which two texts are compared."""
    return (text or "").strip().lower()


def rank_of(seniority: str | None) -> float:
    """Rank of a seniority, NaN where unknown."""
    return float(_SENIORITY_RANK.get(seniority or "", np.nan))


def _checked(jobs: pa.Table) -> pa.Table:
    missing = [name for name in JOBS.columns.names if name not in jobs.column_names]
    if missing:
        raise SchemaError(
            f"a jobs table without {missing}", str(JOBS.columns.names), "read it with TableStore.read(JOBS)"
        )
    if pc.count_distinct(jobs["job_id"]).as_py() != jobs.num_rows:
        raise SchemaError("a jobs table that holds a job_id twice", "one row a job", "keep the newest row of each job")
    return jobs.sort_by("job_id").combine_chunks()


def _texts(column: pa.ChunkedArray) -> tuple[str, ...]:
    return tuple(pc.fill_null(column, "").to_pylist())


def _employers(jobs: pa.Table) -> tuple[str, ...]:
    ids = _texts(jobs["employer_id"])
    if EMPLOYER_NAME not in jobs.column_names:
        return ids
    return tuple(name or id_ for name, id_ in zip(_texts(jobs[EMPLOYER_NAME]), ids, strict=True))


def numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A number column as float64, NaN where null."""
    return np.asarray(pc.fill_null(pc.cast(column, pa.float64()), float("nan")).to_numpy(), np.float64)


def instants(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A timestamp column as microseconds since 1970, NaN where null."""
    return numbers(pc.cast(column, pa.int64()))


def middle(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> Floats:
    """Of two numbers their mean; of one that one; of none NaN."""
    low, high = np.where(np.isnan(low), high, low), np.where(np.isnan(high), low, high)
    return ((low + high) / 2).astype(np.float32)
