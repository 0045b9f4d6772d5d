"""What is kept of every feature day by day: a Parquet file of some hundred kilobytes that travels with the release.

A day is counted once, from the tables as they were when it was new; later runs take it over from the release before
them. So rows that are rewritten later (a column in another unit, a column that was lost) differ from what was kept.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rolecall.pipelines.drift.sketch import Sketch, Statistics
from rolecall.platform.errors import IntegrityError

STATISTICS_FILE = "feature_statistics.parquet"
STATISTICS_PART = "feature_statistics"
_SKETCHES = b"rolecall.sketches"
_SCHEMA: dict[str, Any] = {
    "day": pl.Date,
    "source": pl.String,
    "column": pl.String,
    "units": pl.Int64,
    "rows": pl.Int64,
    "missing": pl.Int64,
    "mean": pl.Float64,
    "spread": pl.Float64,
    "quantiles": pl.List(pl.Float64),
    "counts": pl.List(pl.Int64),
}
Key = tuple[str, str]
"""Source and column."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What is counted under a name: when `digest` (of its documentation) changes, earlier days are not taken over."""

    sketch: Sketch
    digest: str


@dataclass(frozen=True, kw_only=True)
class Day:
    """A source on one day. `units`: how many people, jobs or requests its rows are about."""

    day: date
    source: str
    units: int
    columns: Mapping[str, Statistics]


@dataclass(kw_only=True)
class FeatureStatistics:
    """Every source's days, and how their columns are counted."""

    definitions: dict[Key, Definition] = field(default_factory=dict)
    days: dict[tuple[date, str], Day] = field(default_factory=dict)

    def has(self, day: date, source: str) -> bool:
        return (day, source) in self.days

    def add(self, day: Day) -> None:
        self.days[day.day, day.source] = day

    def drop(self, source: str) -> None:
        """Forget a source: it is counted anew."""
        self.definitions = {key: told for key, told in self.definitions.items() if key[0] != source}
        self.days = {key: day for key, day in self.days.items() if key[1] != source}

    def of(self, source: str) -> list[Day]:
        """A source's days in order."""
        return [day for (_, name), day in sorted(self.days.items()) if name == source]

    def sources(self) -> list[str]:
        return sorted({source for _, source in self.days})

    def since(self, first: date, until: date) -> FeatureStatistics:
        """Only the days from `first` to `until`, both inclusive."""
        days = {key: day for key, day in self.days.items() if first <= key[0] <= until}
        return FeatureStatistics(definitions=dict(self.definitions), days=days)

    def knowing(self, digests: Mapping[Key, str]) -> FeatureStatistics:
        """What still counts under these definitions: a source any of whose columns is new or means something else is
        counted anew from the tables."""
        changed = {key[0] for key, digest in digests.items() if self._digest(key) != digest}
        kept = {key: told for key, told in self.definitions.items() if key in digests and key[0] not in changed}
        names = {source for source, _ in kept}
        return FeatureStatistics(definitions=kept, days={key: day for key, day in self.days.items() if key[1] in names})

    def _digest(self, key: Key) -> str | None:
        found = self.definitions.get(key)
        return None if found is None else found.digest

    def to_bytes(self) -> bytes:
        """Parquet with the sketches in its metadata; the same statistics give the same bytes."""
        table = pl.DataFrame(list(self._rows()), schema=_SCHEMA, orient="row").to_arrow(
            compat_level=pl.CompatLevel.oldest()
        )
        told = [[*key, asdict(one.sketch), one.digest] for key, one in sorted(self.definitions.items())]
        out = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({_SKETCHES: json.dumps(told)}), out, compression="zstd")
        return out.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> FeatureStatistics:
        """Raises IntegrityError for bytes that `to_bytes` did not write."""
        try:
            table = pq.read_table(io.BytesIO(content))
            told = json.loads((table.schema.metadata or {})[_SKETCHES])
            definitions = {(source, column): _definition(sketch, digest) for source, column, sketch, digest in told}
            days = {(day.day, day.source): day for day in _days(pl.DataFrame(pl.from_arrow(table)).iter_rows())}
        except (pa.ArrowInvalid, KeyError, ValueError, TypeError) as error:
            raise IntegrityError(f"these are no feature statistics: {error}", todo="run the daily pipeline") from error
        return cls(definitions=definitions, days=days)

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        for (day, source), one in sorted(self.days.items()):
            for name, column in sorted(one.columns.items()):
                yield (day, source, name, one.units, *asdict(column).values())


def _definition(sketch: Mapping[str, Any], digest: str) -> Definition:
    read = Sketch(form=sketch["form"], edges=tuple(sketch["edges"]), values=tuple(sketch["values"]))
    return Definition(sketch=read, digest=digest)


def _days(rows: Iterable[tuple[Any, ...]]) -> Iterator[Day]:
    found: dict[tuple[date, str], dict[str, Statistics]] = {}
    units: dict[tuple[date, str], int] = {}
    for day, source, name, count, seen, missing, mean, spread, quantiles, counts in rows:
        units[day, source] = count
        found.setdefault((day, source), {})[name] = Statistics(
            rows=seen, missing=missing, mean=mean, spread=spread, quantiles=tuple(quantiles), counts=tuple(counts)
        )
    for (day, source), columns in found.items():
        yield Day(day=day, source=source, units=units[day, source], columns=columns)
