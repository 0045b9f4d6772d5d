"""The newest feature rows: written by the daily run, read while serving (SQLite or Redis), staleness enforced here.

A run tells the store what it does not know yet: rows that are new, and rows that arrived late or changed under the
instant they had. Feast's own materialisation reads the window by event time and writes all of it, and its Redis store
passes over a row whose instant is not newer, so writing is decided here (`online_journal`) and done by Feast's store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rolecall.features.feast_repository import PROJECT, FeastRepository, quiet
from rolecall.features.online_journal import Journal, open_journal
from rolecall.features.online_rows import (
    Stamp,
    entity_keys,
    entity_of,
    from_feast,
    given_rows,
    join_key,
    newest_rows,
    stamps,
    to_feast,
)
from rolecall.features.stamped_columns import StampedColumns, stamped
from rolecall.features.views import CONSENT_VIEW, VIEWS, ViewShape, service_views
from rolecall.platform.errors import InputError
from rolecall.platform.settings import FeatureSettings

Row = Mapping[str, object]
COUNTED = "features:counted"
"""Watermark in the event log up to which events are in the tables that the stored rows were computed from."""

_READ = 5_000
_WRITE = 2_000
_NO_KEY = ""


@dataclass(frozen=True, kw_only=True)
class Materialized:
    """What a run told the online store. `newest`: keys a view that have a row; `written`: those it did not know."""

    newest: Mapping[str, int]
    written: Mapping[str, int]


class OnlineStore:
    """The online half of `FeatureStore`. Safe to use from several threads."""

    def __init__(self, home: Path, settings: FeatureSettings, *, sources: Path | None = None) -> None:
        self._feast = FeastRepository(home, settings, sources)

    @cached_property
    def _journal(self) -> Journal:
        return open_journal(self._feast.online_file, self._feast.settings, PROJECT)

    def materialize(self, as_of: datetime, *, consents: pl.DataFrame | None = None) -> Materialized | None:
        """Tell the online store every view's newest rows up to `as_of`, as far as it does not know them.

        Every row of the sources is looked at, so one that arrived late is not missed; a row older than the stored one
        is not written. `consents`: rows of `candidate_consent` that hold in place of the sources'. None, and nothing
        is written, where the store already holds a later day: a backfill must not serve the past.
        """
        through = self._journal.through()
        if through is not None and through > as_of:
            return None
        newest = {view: newest_rows(self._feast.source_path(view.name), view, as_of) for view in VIEWS}
        if consents is not None:
            newest[CONSENT_VIEW] = _instead(newest[CONSENT_VIEW], given_rows(consents, CONSENT_VIEW))
        written = {view.name: self._tell(view, rows) for view, rows in newest.items()}
        self._journal.advance(as_of)
        return Materialized(newest={view.name: rows.height for view, rows in newest.items()}, written=written)

    def publish(self, as_of: datetime) -> None:
        """Tell Feast's own tools, through the registry that outlives the process, what is online up to `as_of`."""
        with self._feast.lock, quiet():
            self._feast.publish(as_of)

    def materialized_through(self) -> datetime | None:
        """The day whose rows are online; None before the first run."""
        return self._journal.through()

    def write_consents(self, consents: pl.DataFrame) -> bool:
        """Put rows of `candidate_consent` online at once, whatever their instants: the newest word of each candidate.

        Returns False, and writes nothing, where nothing was materialised yet: then no release shows anybody.
        """
        if self._journal.through() is None:
            return False
        self._tell(CONSENT_VIEW, given_rows(consents, CONSENT_VIEW))
        return True

    def _tell(self, view: ViewShape, rows: pl.DataFrame) -> int:
        """Write the rows that the store does not know. Returns how many.

        Of consents the last word counts, not the latest instant: a profile may be corrected under an earlier time.
        """
        keys, given = entity_keys(view, rows[join_key(view)].to_list()), stamps(rows, view)
        any_order = view is CONSENT_VIEW
        with self._journal.locked(view.name):
            known = self._journal.stamps(view.name, keys)
            wanted = [place for place, now in enumerate(given) if _is_news(now, known[place], any_order=any_order)]
            for start in range(0, len(wanted), _WRITE):
                batch = wanted[start : start + _WRITE]
                self._write(view, rows[batch])
                self._journal.remember(view.name, {keys[place]: given[place] for place in batch})
        return len(wanted)

    def _write(self, view: ViewShape, rows: pl.DataFrame) -> None:
        with self._feast.lock, quiet():
            store, table = self._feast.online(view.name)
            store.online_write_batch(self._feast.memory.config, table, list(to_feast(rows, view)), None)

    def online_candidates(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Row]:
        """Feature rows of the candidates, in order; a value past its view's ttl, or later than `at`, is None."""
        views = tuple(view for view in service_views("ranker_full") if view.entity == "candidate")
        return self._online_rows(views, candidate_ids, at)

    def online_consent(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Row]:
        """What the candidates allow, in order: `consent`, `visibility`, `hidden_from`, each None where unknown.

        A word is obeyed from the moment it is stored, be its instant ahead of `at`.
        """
        return self._online_rows((CONSENT_VIEW,), candidate_ids, at)

    def _online_rows(self, views: Sequence[ViewShape], candidate_ids: Sequence[str], at: datetime) -> list[Row]:
        read = self._online(views, "candidate_id", list(candidate_ids), at)
        return [dict(zip(read, values, strict=True)) for values in zip(*read.values(), strict=True)]

    def online_jobs(
        self, job_ids: Sequence[str], employer_ids: Sequence[str | None], *, at: datetime
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Numeric columns of jobs and their employers, each aligned with `job_ids`; NaN where missing or stale."""
        columns = self.online_job_columns(job_ids, employer_ids)
        return {name: column for view in columns for name, column in view.read(at).items()}

    def online_job_columns(
        self, job_ids: Sequence[str], employer_ids: Sequence[str | None]
    ) -> tuple[StampedColumns, ...]:
        """What `online_jobs` reads, before it is known for which instant: to be held and asked many times."""
        if len(job_ids) != len(employer_ids):
            raise InputError(f"{len(job_ids)} jobs, {len(employer_ids)} employers", "one employer (or None) a job")
        known = sorted({employer for employer in employer_ids if employer is not None})
        place = {employer: row for row, employer in enumerate(known)}
        rows = np.array([place.get(employer or _NO_KEY, len(known)) for employer in employer_ids], dtype=np.int64)
        jobs = tuple(self._stamped(view, list(job_ids)) for view in VIEWS if view.entity == "job")
        return (*jobs, *(self._stamped(view, known).take(rows) for view in VIEWS if view.entity == "employer"))

    def online_version(self) -> int:
        """Another number each time a run has told the store something."""
        return self._journal.version()

    def _stamped(self, view: ViewShape, ids: Sequence[str]) -> StampedColumns:
        read = [row for start in range(0, len(ids), _READ) for row in self._read(view, ids[start : start + _READ])]
        values = {name: [from_feast(row[name]) if name in row else None for _, row in read] for name in view.numbers}
        return stamped(view, [stamp for stamp, _ in read], values)

    def _online(
        self, views: Sequence[ViewShape], key: str, ids: Sequence[str], at: datetime
    ) -> dict[str, list[object]]:
        read: dict[str, list[object]] = {name: [] for view in views for name in view.columns}
        for start in range(0, len(ids), _READ):
            for view in views:
                for stamp, values in self._read(view, ids[start : start + _READ]):
                    fresh = values if _is_fresh(stamp, view, at) else {}
                    for name in view.columns:
                        read[name].append(from_feast(fresh[name]) if name in fresh else None)
        return read

    def _read(self, view: ViewShape, ids: Sequence[str]) -> Sequence[tuple[datetime | None, Mapping[str, Any]]]:
        entities = [entity_of(view, name) for name in ids]
        with self._feast.lock:
            store, table = self._feast.online(view.name)
            read = store.online_read(self._feast.memory.config, table, entities, list(view.columns))
        return [(stamp, values or {}) for stamp, values in read]


def _instead(rows: pl.DataFrame, said: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([rows.join(said, on=join_key(CONSENT_VIEW), how="anti"), said], how="vertical_relaxed")


def _is_news(given: Stamp, known: Stamp | None, *, any_order: bool) -> bool:
    """Whether a row must be written over what is known. At one instant the later word wins: it counts late rows too."""
    if known is None:
        return True
    return given != known and (any_order or given.event_us >= known.event_us)


def _is_fresh(stamp: datetime | None, view: ViewShape, at: datetime) -> bool:
    """Feast applies no ttl online; the same rule as offline is applied here."""
    if not stamp:
        return False
    return (stamp <= at or view is CONSENT_VIEW) and (not view.ttl or stamp >= at - view.ttl)
