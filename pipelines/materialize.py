"""The feature step of the daily run: pinned tables in, the views' Parquet files and the online store out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from rolecall.features.activity import (
    TIMESTAMP,
    candidate_activity,
    candidate_consent,
    candidate_history,
    candidate_profile,
    employer_rating,
    job_activity,
    job_profile,
)
from rolecall.features.online_store import Knowledge
from rolecall.features.schema import CANDIDATES, EMPLOYERS, EVENTS, JOBS
from rolecall.features.store import FeatureStore
from rolecall.features.views import ALL_VIEWS, SNAPSHOT_TTL, VIEWS
from rolecall.pipelines.knowledge import Versions as Versions
from rolecall.pipelines.knowledge import Windows, consents_after, consents_since, profiles_as_of, read_as_of, read_ids
from rolecall.platform.event_log import EventLog
from rolecall.platform.ledger import open_ledger
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableSchema, TableStore


@dataclass(frozen=True, kw_only=True)
class MaterializeReport:
    """Rows a view, whether the newest went online (a backfill's do not), how many the store did not know, and how many
    left it because their tables hold them no longer."""

    rows: Mapping[str, int]
    online: bool
    told: Mapping[str, int]
    removed: Mapping[str, int]


def feature_sources(
    events: pl.DataFrame, candidates: pl.DataFrame, employers: pl.DataFrame, *, settings: Settings, as_of: datetime
) -> dict[str, pl.DataFrame]:
    """The rows of every view. Snapshots exist for the days that training, evaluation and serving will ask about."""
    start = Windows.of(as_of, settings.ranking).learning.start - SNAPSHOT_TTL
    return {
        "candidate_profile": candidate_profile(candidates),
        "candidate_consent": candidate_consent(candidates),
        "candidate_history": candidate_history(events, history_length=settings.features.history_length),
        "candidate_activity": candidate_activity(events, start=start),
        "job_activity": job_activity(events, start=start, end=as_of),
        "employer_rating": employer_rating(employers),
    }


def write_sources(sources: Mapping[str, pl.DataFrame], folder: Path) -> dict[str, int]:
    """Write the views' files, rows in order of key and instant. Returns rows a view."""
    folder.mkdir(parents=True, exist_ok=True)
    views = [view for view in ALL_VIEWS if view.name in sources]
    for view in views:
        sources[view.name].sort(f"{view.entity}_id", "event_timestamp").write_parquet(folder / f"{view.name}.parquet")
    return {view.name: sources[view.name].height for view in views}


def feature_store(settings: Settings, sources: Path | None = None) -> FeatureStore:
    """The store of this home; `sources`: the run's folder, for whoever reads history."""
    return FeatureStore(settings.home / "feast", settings.features, sources=sources)


def with_later(consents: pl.DataFrame, later: pl.DataFrame) -> pl.DataFrame:
    """Consents with those recorded after the instant, dated to it: whoever took theirs back is not shown from now on.

    No ranker reads the view, so nothing learns from what comes later.
    """
    key = ["candidate_id", "event_timestamp"]
    return pl.concat([consents.join(later.select(key), on=key, how="anti"), later.select(consents.columns)])


def materialize(
    tables: TableStore,
    versions: Versions,
    *,
    as_of: datetime,
    settings: Settings,
    folder: Path,
    drained: int | None = None,
) -> MaterializeReport:
    """Compute every view as of an instant into `folder`, and put the newest rows into the online store.

    `drained`: the event log's sequence number up to which events are in the pinned events table. Each row is written
    with it, so that no reader counts an event twice or not at all; None leaves it to the rows' instants.
    """
    sources = feature_sources(
        read_as_of(tables, EVENTS, versions, as_of),
        profiles_as_of(tables, versions, as_of),
        read_as_of(tables, EMPLOYERS, versions, as_of),
        settings=settings,
        as_of=as_of,
    )
    later = consents_after(tables, versions, as_of).with_columns(pl.lit(as_of).cast(TIMESTAMP).alias("updated_at"))
    sources["candidate_consent"] = with_later(sources["candidate_consent"], candidate_consent(later))
    sources["job_profile"] = job_profile(read_as_of(tables, JOBS, versions, as_of))
    rows = write_sources(sources, folder)
    since = candidate_consent(consents_since(tables, versions))  # online already: the pinned rows do not undo it
    store = feature_store(settings, folder)
    known = _knowledge(tables, versions, drained, EventLog(open_ledger(settings.ledger_url)), store)
    online = store.materialize(as_of, consents=since, known=known)
    if online is not None:
        store.publish(as_of)
        publish_consents(settings, CANDIDATES, consents_since(tables, versions))  # ingested while the rows were written
    return MaterializeReport(
        rows=rows,
        online=online is not None,
        told={} if online is None else online.written,
        removed={} if online is None else online.removed,
    )


def _knowledge(
    tables: TableStore, versions: Versions, drained: int | None, log: EventLog, store: FeatureStore
) -> Knowledge:
    """What the online store is told from. A profile or a job's counts outlive its row in the history of profiles and
    in the events: whoever is asked about today is not answered from them."""
    keys = {"candidate": CANDIDATES, "job": JOBS}
    held = {
        view.name: frozenset(read_ids(tables, keys[view.entity], versions))
        for view in VIEWS
        if view.entity in keys and not view.counted and versions.get(keys[view.entity].name) is not None
    }
    touched = frozenset[str]()
    if drained is not None:
        touched = frozenset(log.candidates_between(store.counted_through() or 0, drained))
    return Knowledge(counted=drained, versions=versions, held=held, touched=touched)


def publish_consents(settings: Settings, schema: TableSchema, rows: pl.DataFrame) -> None:
    """What candidates allow from now on, obeyed without waiting for the next daily run: `ingest`'s `publish`."""
    if schema.name == CANDIDATES.name and rows.height:
        feature_store(settings).write_consents(candidate_consent(rows))
