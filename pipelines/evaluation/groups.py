"""Groups of people and jobs that fairness is audited by, from a file of the operator's.

The file is Parquet or CSV with two columns, `candidate_id` (or `job_id`) and `group`; settings name it. It is no table
of the platform: no mapping ingests it, no feature view reads it, and it is opened by the audit alone, so that a group
can never be a feature. Whoever is not in it belongs to no group.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import polars as pl

from rolecall.platform.errors import InputError
from rolecall.platform.settings import FairnessSettings

GROUP = "group"
MOST_GROUPS = 50
_READERS: Mapping[str, Callable[..., pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": partial(pl.read_csv, infer_schema=False),  # an id is text: 007 is not 7
}


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Group by id. Empty: none is given, and nothing is compared."""

    candidates: Mapping[str, str] = field(default_factory=dict)
    jobs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_settings(cls, settings: FairnessSettings) -> Self:
        """Read the files that settings name."""
        named = {"candidate_id": settings.candidate_groups, "job_id": settings.job_groups}
        read = {key: read_groups(Path(file), key) if file else {} for key, file in named.items()}
        return cls(candidates=read["candidate_id"], jobs=read["job_id"])

    def require_known(self, candidates: Collection[str], jobs: Collection[str]) -> None:
        """Raise InputError where a file is given and names none of those ids: nothing would be compared, unnoticed."""
        for key, given, known in (("candidate_id", self.candidates, candidates), ("job_id", self.jobs, jobs)):
            if given and known and given.keys().isdisjoint(known):
                raise InputError(
                    f"the groups file names {len(given):,} ids, such as {next(iter(given))!r}, and none of them is the "
                    f"{key} of any of {len(known):,} in the table, such as {min(known)!r}",
                    f"ids as they are in the table, in the column {key}",
                    "write the file with the table's ids, or correct fairness.candidate_groups or fairness.job_groups",
                )


def read_groups(file: Path, key: str) -> dict[str, str]:
    """Group by id from a file with the columns `key` and `group`.

    Raises InputError where the file is not there or neither Parquet nor CSV, where it lacks a column, names an id twice
    with two groups, leaves one empty, or has more than MOST_GROUPS groups (which is what a file of ids looks like).
    """
    rows = _read(file, key)
    empty = rows.filter(pl.any_horizontal(pl.all().is_null() | (pl.all().str.strip_chars() == "")))
    if empty.height:
        raise InputError(
            f"{file}: {empty.height} rows without {key} or group", "both in every row", "fill or drop them"
        )
    twice = rows.unique().filter(pl.col(key).is_duplicated())
    if twice.height:
        raise InputError(f"{file}: {key} {twice[key][0]!r} is in two groups", "one group an id", "keep one row an id")
    if (count := rows[GROUP].n_unique()) > MOST_GROUPS:
        raise InputError(f"{file}: {count} groups", f"at most {MOST_GROUPS}", "name the column of groups `group`")
    return dict(rows.unique().sort(key).iter_rows())


def _read(file: Path, key: str) -> pl.DataFrame:
    reader: Callable[..., pl.DataFrame] | None = _READERS.get(file.suffix.lower())
    if reader is None or not file.is_file():
        raise InputError(
            f"groups file {file}" + (" does not exist" if reader else ""),
            f"a Parquet or CSV file with the columns {key} and {GROUP}",
            "correct fairness.candidate_groups or fairness.job_groups",
        )
    try:
        rows = reader(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{file} cannot be read: {error}", "Parquet or CSV", "write the file again") from error
    missing = [name for name in (key, GROUP) if name not in rows.columns]
    if missing:
        raise InputError(f"{file} has the columns {rows.columns}", f"{key} and {GROUP}", f"add {', '.join(missing)}")
    return rows.select(pl.col(key, GROUP).cast(pl.String))
