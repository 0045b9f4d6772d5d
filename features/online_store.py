"""The newest feature rows: written by the daily run, read while serving (SQLite or Redis), staleness enforced here.

A run tells the store what it does not know yet: rows that are new, and rows that arrived late or changed under the
instant they had. Feast's own materialisation reads the window by event time and writes all of it, and its Redis store
passes over a row whose instant is not newer, so writing is decided here (`online_journal`) and done by Feast's store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rolecall.features.candidates import microseconds
from rolecall.features.feast_repository import PROJECT, FeastRepository, quiet
from rolecall.features.online_journal import Journal, open_journal
from rolecall.features.online_rows import (
    COUNTED_VALUE,
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
from rolecall.features.views import CONSENT_VIEW, PROFILE_AT, VIEWS, ViewShape, service_views
from rolecall.platform.errors import InputError
from rolecall.platform.settings import FeatureSettings

Row = Mapping[str, object]

_READ = 5_000
_WRITE = 2_000
_NO_KEY = ""


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What a run is pinned to. `counted`: the event log's sequence number up to which events are in its tables;
    `versions`: of the tables; `held`: by view the keys that their tables hold (absent: all that have a row);
    `touched`: candidates of whom something was posted since the store was last told.
    """

    counted: int | None = None
    versions: Mapping[str, int | None] = field(default_factory=dict)
    held: Mapping[str, frozenset[str]] = field(default_factory=dict)
    touched: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Materialized:
    """What a run told the online store. `newest`: keys a view that have a row; `written`: those it did not know;
    `removed`: those whose tables have them no longer."""

    newest: Mapping[str, int]
    written: Mapping[str, int]
    removed: Mapping[str, int]


class OnlineStore:
    """The online half of `FeatureStore`. Safe to use from several threads."""

    def __init__(self, home: Path, settings: FeatureSettings, *, sources: Path | None = None) -> None:
        self._feast = FeastRepository(home, settings, sources)

    @cached_property
    def _journal(self) -> Journal:
        return open_journal(self._feast.online_file, self._feast.settings, PROJECT)

    def materialize(
        self, as_of: datetime, *, consents: pl.DataFrame | None = None, known: Knowledge | None = None
    ) -> Materialized | None:
        """Tell the online store every view's newest rows up to `as_of`, as far as it does not know them.

        Every row of the sources is looked at, so one that arrived late is not missed; a row older than the stored one
        is not written. A row whose key the sources, or the tables behind them, no longer hold is removed, unless it
        was told from later tables than `known` names. `consents`: rows of `candidate_consent` that hold in place of
        the sources'. None, and nothing is written, where the store already holds a later day, or the same day with
        more events: a backfill must not serve the past.
        """
        known = known or Knowledge()
        if self._knows_more(as_of, known):
            return None
        newest = {view: self._newest(view, as_of, known) for view in VIEWS}
        if consents is not None:
            newest[CONSENT_VIEW] = _instead(newest[CONSENT_VIEW], given_rows(consents, CONSENT_VIEW))
        written, removed = {}, {}
        for view, rows in newest.items():
            written[view.name] = self._tell(view, rows, known)
            removed[view.name] = self._remove_vanished(view, rows, as_of, known)
        self._journal.advance(as_of, counted=known.counted)
        sizes = {view.name: rows.height for view, rows in newest.items()}
        return Materialized(newest=sizes, written=written, removed=removed)

    def _knows_more(self, as_of: datetime, known: Knowledge) -> bool:
        """Whether what is stored was told by somebody who knew more."""
        through, counted = self._journal.through(), self._journal.counted()
        if through is None or through < as_of:
            return False
        return through > as_of or (known.counted is not None and counted is not None and known.counted < counted)

    def _newest(self, view: ViewShape, as_of: datetime, known: Knowledge) -> pl.DataFrame:
        rows = newest_rows(self._feast.source_path(view.name), view, as_of)
        held = known.held.get(view.name)
        return rows if held is None else rows.filter(pl.col(join_key(view)).is_in(list(held)))

    def _remove_vanished(self, view: ViewShape, rows: pl.DataFrame, as_of: datetime, known: Knowledge) -> int:
        """Remove rows up to `as_of` that the sources have no longer. Returns how many; none where the run cannot tell,
        because it names no table, or the rows come from a later version of it."""
        version = known.versions.get(view.source.table)
        if version is None:
            return 0
        there, last = {*entity_keys(view, rows[join_key(view)].to_list())}, microseconds(as_of)
        with self._journal.locked(view.name):
            if (self._journal.table(view.name) or 0) > version:
                return 0
            gone = [key for key, stamp in self._journal.written(view) if key not in there and stamp.event_us <= last]
            with self._feast.lock, quiet():
                self._feast.online(view.name)  # the view's table is there
            self._journal.remove(view, gone)
            self._journal.told_from(view.name, version)
        return len(gone)

    def publish(self, as_of: datetime) -> None:
        """Tell Feast's own tools, through the registry that outlives the process, what is online up to `as_of`."""
        with self._feast.lock, quiet():
            self._feast.publish(as_of)

    def materialized_through(self) -> datetime | None:
        """The day whose rows are online; None before the first run."""
        return self._journal.through()

    def counted_through(self) -> int | None:
        """Up to which event of the log the rows of the last whole day count what was posted; None where unknown."""
        return self._journal.counted()

    def write_consents(self, consents: pl.DataFrame) -> bool:
        """Put rows of `candidate_consent` online at once, whatever their instants: the newest word of each candidate.

        Returns False, and writes nothing, where nothing was materialised yet: then no release shows anybody.
        """
        if self._journal.through() is None:
            return False
        self._tell(CONSENT_VIEW, given_rows(consents, CONSENT_VIEW), Knowledge())
        return True

    def _tell(self, view: ViewShape, rows: pl.DataFrame, known: Knowledge) -> int:
        """Write the rows that the store does not know. Returns how many.

        Of consents the last word counts, not the latest instant: a profile may be corrected under an earlier time.
        Of candidates with posted events the row is written as it is, too: it counts them now.
        """
        names = rows[join_key(view)].to_list()
        keys, given = entity_keys(view, names), stamps(rows, view)
        any_order, touched = view is CONSENT_VIEW, known.touched if view.counted else frozenset()
        with self._journal.locked(view.name):
            told = self._journal.stamps(view.name, keys)
            wanted = [
                place
                for place, now in enumerate(given)
                if _is_news(now, told[place], any_order=any_order) or (names[place] in touched and now == told[place])
            ]
            for start in range(0, len(wanted), _WRITE):
                batch = wanted[start : start + _WRITE]
                self._write(view, rows[batch], known.counted)
                self._journal.remember(view.name, {keys[place]: given[place] for place in batch})
        return len(wanted)

    def _write(self, view: ViewShape, rows: pl.DataFrame, counted: int | None) -> None:
        with self._feast.lock, quiet():
            store, table = self._feast.online(view.name)
            told = list(to_feast(rows, view, counted=counted))
            store.online_write_batch(self._feast.memory.config, table, told, None)

    def online_candidates(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Row]:
        """Feature rows of the candidates, in order; a value past its view's ttl, or later than `at`, is None.

        Beside the columns each row tells under the names `ViewShape.counted` up to which event of the log it counts
        what was posted, and under `PROFILE_AT` which version of the profile it holds. Views are read in the opposite
        order of their writing: where a run is at work, a row without a history is one that had none when its activity
        was written.
        """
        views = tuple(view for view in service_views("ranker_full") if view.entity == "candidate")
        return self._online_rows(views[::-1], candidate_ids, at)

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
        read: dict[str, list[object]] = {}
        for view in views:
            named = {name: name for name in view.columns} | ({view.counted: COUNTED_VALUE} if view.counted else {})
            read |= {name: [] for name in named}
            for start in range(0, len(ids), _READ):
                for stamp, values in self._read(view, ids[start : start + _READ]):
                    fresh = values if _is_fresh(stamp, view, at) else {}
                    for name, stored in named.items():
                        read[name].append(from_feast(fresh[stored]) if stored in fresh else None)
                    if view.name == PROFILE_AT.partition(":")[0]:
                        since = microseconds(stamp) if stamp and any(map(_is_set, fresh.values())) else None
                        read.setdefault(PROFILE_AT, []).append(since)
        return read

    def _read(self, view: ViewShape, ids: Sequence[str]) -> Sequence[tuple[datetime | None, Mapping[str, Any]]]:
        entities = [entity_of(view, name) for name in ids]
        with self._feast.lock:
            store, table = self._feast.online(view.name)
            wanted = [*view.columns, COUNTED_VALUE] if view.counted else list(view.columns)
            read = store.online_read(self._feast.memory.config, table, entities, wanted)
        return [(stamp, values or {}) for stamp, values in read]


def _instead(rows: pl.DataFrame, said: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([rows.join(said, on=join_key(CONSENT_VIEW), how="anti"), said], how="vertical_relaxed")


def _is_news(given: Stamp, known: Stamp | None, *, any_order: bool) -> bool:
    """Whether a row must be written over what is known. At one instant the later word wins: it counts late rows too."""
    if known is None:
        return True
    return given != known and (any_order or given.event_us >= known.event_us)


def _is_set(value: Any) -> bool:
    return value.WhichOneof("val") is not None


def _is_fresh(stamp: datetime | None, view: ViewShape, at: datetime) -> bool:
    """Feast applies no ttl online; the same rule as offline is applied here."""
    if not stamp:
        return False
    return (stamp <= at or view is CONSENT_VIEW) and (not view.ttl or stamp >= at - view.ttl)
