"""The newest feature rows: written by the daily run, read while serving (SQLite or Redis), staleness enforced here."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rolecall.features.feast_repository import FeastRepository, own_duckdb, quiet
from rolecall.features.views import CONSENT_VIEW, VIEWS, ViewShape, service_views
from rolecall.platform.errors import InputError
from rolecall.platform.settings import FeatureSettings

Row = Mapping[str, object]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHUNK = 5_000
_NO_KEY = ""


class OnlineStore:
    """The online half of `FeatureStore`. Safe to use from several threads."""

    def __init__(self, home: Path, settings: FeatureSettings, *, sources: Path | None = None) -> None:
        self._feast = FeastRepository(home, settings, sources)

    def materialize(self, as_of: datetime) -> bool:
        """Write every view's newest rows up to `as_of` into the online store.

        The whole window is read again each time, so rows that arrived late are not missed. Returns False, and
        writes nothing, where the online store already holds a later day: a backfill must not serve the past.
        """
        with self._feast.lock, quiet(), own_duckdb():
            durable = self._feast.durable()
            newest = self._materialized_through(durable)
            if newest is not None and newest > as_of:
                return False
            self._wal()
            for view in VIEWS:
                start = as_of - view.ttl if view.ttl else EPOCH
                durable.materialize(start, as_of, feature_views=[view.name])
        return True

    def write_consents(self, consents: pl.DataFrame) -> bool:
        """Put rows of `candidate_consent` online at once, whatever their instants: the newest word of each candidate.

        Returns False, and writes nothing, where nothing was materialised yet: then no release shows anybody.
        """
        with self._feast.lock, quiet(), own_duckdb():
            durable = self._feast.durable()
            if self._materialized_through(durable) is None:
                return False
            durable.write_to_online_store(CONSENT_VIEW.name, consents.to_pandas())
        return True

    def online_candidates(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Row]:
        """Feature rows of the candidates, in order; a value past its view's ttl, or later than `at`, is None."""
        views = tuple(view for view in service_views("ranker_full") if view.entity == "candidate")
        return self._online_rows(views, candidate_ids, at)

    def online_consent(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Row]:
        """What the candidates allow, in order: `consent`, `visibility`, `hidden_from`, each None where unknown."""
        return self._online_rows((CONSENT_VIEW,), candidate_ids, at)

    def _online_rows(self, views: Sequence[ViewShape], candidate_ids: Sequence[str], at: datetime) -> list[Row]:
        read = self._online(views, "candidate_id", list(candidate_ids), at)
        return [dict(zip(read, values, strict=True)) for values in zip(*read.values(), strict=True)]

    def online_jobs(
        self, job_ids: Sequence[str], employer_ids: Sequence[str | None], *, at: datetime
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Numeric columns of jobs and their employers, each aligned with `job_ids`; NaN where missing or stale."""
        if len(job_ids) != len(employer_ids):
            raise InputError(f"{len(job_ids)} jobs, {len(employer_ids)} employers", "one employer (or None) a job")
        jobs = self._online(tuple(v for v in VIEWS if v.entity == "job"), "job_id", list(job_ids), at)
        known = sorted({employer for employer in employer_ids if employer is not None})
        rated = self._online(tuple(v for v in VIEWS if v.entity == "employer"), "employer_id", known, at)
        place = {employer: row for row, employer in enumerate(known)}
        rows = np.array([place.get(employer or _NO_KEY, len(known)) for employer in employer_ids], dtype=np.int64)
        columns = {name: _floats(values) for name, values in jobs.items()}
        for name, values in rated.items():
            columns[name] = _floats([*values, None])[rows]
        return columns

    def _online(
        self, views: Sequence[ViewShape], key: str, ids: Sequence[str], at: datetime
    ) -> dict[str, list[object]]:
        read: dict[str, list[object]] = {name: [] for view in views for name in view.columns}
        refs = [f"{view.name}:{name}" for view in views for name in view.columns]
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            with self._feast.lock:
                reply = self._feast.memory.get_online_features(
                    features=refs, entity_rows=[{key: name} for name in chunk]
                )
            table = reply.to_dict(include_event_timestamps=True)
            for view in views:
                for name in view.columns:
                    fresh = [_is_fresh(stamp, view, at) for stamp in table[f"{name}__ts"]]
                    read[name] += [v if ok else None for v, ok in zip(table[name], fresh, strict=True)]
        return read

    def _wal(self) -> None:
        """Readers then go on while a run writes."""
        if self._feast.settings.online_store == "sqlite":
            with contextlib.closing(sqlite3.connect(self._feast.online_file)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")

    def _materialized_through(self, durable: Any) -> datetime | None:
        ends = [durable.get_feature_view(view.name).most_recent_end_time for view in VIEWS]
        return max((end for end in ends if end is not None), default=None)


def _is_fresh(stamp: int | float | datetime | None, view: ViewShape, at: datetime) -> bool:
    """Feast applies no ttl online; the same rule as offline is applied here."""
    if not stamp:
        return False
    known = stamp if isinstance(stamp, datetime) else datetime.fromtimestamp(stamp, UTC)
    return known <= at and (not view.ttl or known >= at - view.ttl)


def _floats(values: Sequence[object]) -> npt.NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)
