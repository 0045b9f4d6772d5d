"""The feature store: Feast with everything pinned by explicit paths, and staleness enforced online.

    store = FeatureStore(home / "feast", settings.features, sources=run / "features")
    store.historical(entities, "ranker_full")       # point-in-time rows for training, from Parquet (DuckDB)
    store.materialize(as_of)                        # newest rows into the online store
    store.online_candidates(["c1"], at=now)         # what serving reads (SQLite or Redis)

Retrieval uses a registry in memory built from code at every start, so no pickled blob is ever read and a
backfill cannot move another run's sources. `materialize` also writes the definitions to the durable
registry, for Feast's own tools.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sqlite3
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import polars as pl

from rolecall.features.activity import TIMESTAMP
from rolecall.features.views import CONSENT_VIEW, VIEWS, ViewShape, service_views
from rolecall.platform.errors import ConflictError, InputError, SettingsError
from rolecall.platform.settings import FeatureSettings

Row = Mapping[str, object]
PROJECT = "rolecall"
ENTITIES = ("candidate", "job", "employer")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHUNK = 5_000
_ORDER = "__row_number"
_NO_KEY = ""


class FeatureStore:
    """Point-in-time rows offline, newest rows online. Safe to use from several threads.

    `home`: folder of the online store and the registry. `sources`: absolute folder of the views' Parquet files;
    only `historical` and `materialize` read it.
    """

    def __init__(self, home: Path, settings: FeatureSettings, *, sources: Path | None = None) -> None:
        self._home = home.absolute()
        self._settings = settings
        self._sources = (sources or self._home / "sources").absolute()
        self._lock = threading.Lock()

    def historical(self, entities: pl.DataFrame, service: str, *, of: Sequence[str] = ENTITIES) -> pl.DataFrame:
        """The service's features for each row of `entities`, in the same order, as known at its `event_timestamp`.

        `entities`: event_timestamp and, for each entity in `of`, its id (candidate_id, job_id, employer_id; null:
        nothing is known); other columns pass through. An event is known strictly after it happened; a feature
        nothing is known of is null.
        """
        views = [view for view in service_views(service) if view.entity in of]
        numbered = entities.with_row_index(_ORDER)
        with self._lock, _quiet(), _own_duckdb():
            job = self._memory.get_historical_features(
                entity_df=numbered.to_pandas(),
                features=[f"{view.name}:{name}" for view in views for name in view.columns],
            )
            rows = pl.DataFrame(job.to_arrow())
        if rows.height != entities.height:
            raise ConflictError(f"Feast gave {rows.height} rows", f"{entities.height}, one an entity row")
        columns = [name for view in views for name in view.columns]
        return rows.sort(_ORDER).select(*entities.columns, *columns)

    def historical_candidates(
        self, candidate_ids: Sequence[str], instants: Sequence[datetime], service: str
    ) -> list[Row]:
        """Feature rows of candidates, each as known at its instant: what `online_candidates` gives for now."""
        asked = pl.DataFrame(
            {"candidate_id": list(candidate_ids), "event_timestamp": list(instants)},
            schema={"candidate_id": pl.String, "event_timestamp": TIMESTAMP},
        )
        rows = self.historical(asked, service, of=("candidate",)).drop(asked.columns)
        return list(rows.iter_rows(named=True))

    def historical_jobs(
        self,
        job_ids: Sequence[str],
        employer_ids: Sequence[str | None],
        instants: Sequence[datetime],
        service: str,
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Numeric columns of jobs and their employers, each as known at its instant; NaN where unknown or stale."""
        asked = pl.DataFrame(
            {"job_id": list(job_ids), "employer_id": list(employer_ids), "event_timestamp": list(instants)},
            schema={"job_id": pl.String, "employer_id": pl.String, "event_timestamp": TIMESTAMP},
        )
        rows = self.historical(asked, service, of=("job", "employer")).drop(asked.columns)
        return {name: rows[name].cast(pl.Float32).fill_null(float("nan")).to_numpy() for name in rows.columns}

    def materialize(self, as_of: datetime) -> bool:
        """Write every view's newest rows up to `as_of` into the online store.

        The whole window is read again each time, so rows that arrived late are not missed. Returns False, and
        writes nothing, where the online store already holds a later day: a backfill must not serve the past.
        """
        with self._lock, _quiet(), _own_duckdb():
            durable = self._durable()
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
        with self._lock, _quiet(), _own_duckdb():
            durable = self._durable()
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
            with self._lock:
                reply = self._memory.get_online_features(features=refs, entity_rows=[{key: name} for name in chunk])
            table = reply.to_dict(include_event_timestamps=True)
            for view in views:
                for name in view.columns:
                    fresh = [_is_fresh(stamp, view, at) for stamp in table[f"{name}__ts"]]
                    read[name] += [v if ok else None for v, ok in zip(table[name], fresh, strict=True)]
        return read

    @cached_property
    def _definitions(self) -> Any:
        from rolecall.features.feast.definitions import build_definitions

        return build_definitions(self._sources)

    @cached_property
    def _memory(self) -> Any:
        return self._open({"registry_type": "sql", "path": "sqlite://", "cache_ttl_seconds": 0})

    def _durable(self) -> Any:
        url = self._settings.registry_url or f"sqlite:///{self._home / 'registry.db'}"
        return self._open({"registry_type": "sql", "path": url, "cache_ttl_seconds": 0})

    def _open(self, registry: Mapping[str, object]) -> Any:
        from feast import FeatureStore as Feast
        from feast import RepoConfig

        self._home.mkdir(parents=True, exist_ok=True)
        config = RepoConfig(
            project=PROJECT,
            provider="local",
            registry=dict(registry),
            offline_store={"type": "duckdb"},
            online_store=self._online_config(),
            materialization={"pull_latest_features": True},
            entity_key_serialization_version=3,
            repo_path=self._home,
        )
        with _quiet():
            store = Feast(repo_path=str(self._home), config=config)
            store.apply(self._definitions.all())
        return store

    @property
    def _online_file(self) -> Path:
        return self._home / "online.db"

    def _online_config(self) -> dict[str, str]:
        if self._settings.online_store == "redis":
            return {"type": "redis", "connection_string": redis_address(self._settings.redis_url)}
        return {"type": "sqlite", "path": str(self._online_file)}

    def _wal(self) -> None:
        """Readers then go on while a run writes."""
        if self._settings.online_store == "sqlite":
            with contextlib.closing(sqlite3.connect(self._online_file)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")

    def _materialized_through(self, durable: Any) -> datetime | None:
        ends = [durable.get_feature_view(view.name).most_recent_end_time for view in VIEWS]
        return max((end for end in ends if end is not None), default=None)


def redis_address(url: str) -> str:
    """A Redis URL as Feast writes it: `host:port,db=0,username=u,password=p,ssl=true`.

    Raises SettingsError for what is no redis:// or rediss:// URL, and for a password that Feast would cut at a comma.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise SettingsError("features.redis_url names no Redis server", "redis://HOST:PORT/DB", "correct the URL")
    words = [f"{parts.hostname}:{parts.port or 6379}", f"db={parts.path.strip('/') or 0}"]
    for name, text in (("username", parts.username), ("password", parts.password)):
        plain = unquote(text or "")
        if "," in plain:
            raise SettingsError(f"the {name} in features.redis_url holds a comma", f"a {name} without one")
        words += [f"{name}={plain}"] if plain else []
    return ",".join([*words, "ssl=true"] if parts.scheme == "rediss" else words)


def _is_fresh(stamp: int | float | datetime | None, view: ViewShape, at: datetime) -> bool:
    """Feast applies no ttl online; the same rule as offline is applied here."""
    if not stamp:
        return False
    known = stamp if isinstance(stamp, datetime) else datetime.fromtimestamp(stamp, UTC)
    return known <= at and (not view.ttl or known >= at - view.ttl)


def _floats(values: Sequence[object]) -> npt.NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Feast's prints, progress bars and deprecation warnings off the caller's terminal."""
    level = logging.getLogger("feast").level
    logging.getLogger("feast").setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("feast").setLevel(level)


@contextlib.contextmanager
def _own_duckdb() -> Iterator[None]:
    """Feast's DuckDB store works on ibis' process-wide connection: give it one of ours and close it after."""
    import ibis  # ships no types

    before = ibis.options.default_backend
    connection = ibis.duckdb.connect()
    ibis.set_backend(connection)
    try:
        yield
    finally:
        connection.disconnect()
        ibis.options.default_backend = before
