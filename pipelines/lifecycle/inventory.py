"""Every place that keeps personal data, in the order in which an erasure goes through them.

Texts are needed to recognise a person in logs and quarantine, so the tables that hold them come after; vectors come
after the tables, because what no row explains any more goes. Something new that keeps people is one entry here.
"""

from __future__ import annotations

from pathlib import Path

from rolecall.features.online_erasure import OnlineRows
from rolecall.features.vector_cache import VectorCache
from rolecall.pipelines.lifecycle.home_stores import (
    CachedVectors,
    Ledger,
    Logs,
    OnlineFeatures,
    Runs,
    Scratch,
    UnfinishedReleases,
)
from rolecall.pipelines.lifecycle.person import Person, person_of
from rolecall.pipelines.lifecycle.personal_store import PersonalStore
from rolecall.pipelines.lifecycle.table_stores import Quarantine, Tables, stored_rows
from rolecall.platform.file_tree import FileTree
from rolecall.platform.ledger import open_ledger
from rolecall.platform.object_store import is_object_store
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore


def personal_stores(settings: Settings) -> list[PersonalStore]:
    """All of them but the releases, which a person leaves by being rebuilt without (`releases`)."""
    tables = table_store(settings)
    kept = FileTree(f"{settings.artifacts_uri}/runs", settings.storage.options)
    archives = [Runs(kept, tables, locks=None, name="kept steps")] if is_object_store(settings.artifacts_uri) else []
    fetched = UnfinishedReleases(FileTree(str(settings.cache_dir / "releases")), name="unfinished downloads")
    downloads = [fetched] if is_object_store(settings.artifacts_uri) else []
    return [
        Logs(settings.home),
        Quarantine(tables),
        Ledger(open_ledger(settings.ledger_url)),
        Tables(tables),
        OnlineFeatures(OnlineRows(settings.home / "feast", settings.features)),
        Runs(FileTree(str(settings.runs_dir)), tables, locks=settings.runs_dir),
        *archives,
        UnfinishedReleases(FileTree(f"{settings.artifacts_uri}/releases", settings.storage.options)),
        *downloads,
        CachedVectors(VectorCache(vectors_file(settings)), tables),
        Scratch(settings.scratch_dir),
    ]


def find_person(settings: Settings, candidate_id: str) -> Person:
    """The person with what is stored of their texts."""
    rows = stored_rows(table_store(settings), candidate_id)
    return person_of(candidate_id, [row for table in rows.values() for row in table])


def table_store(settings: Settings) -> TableStore:
    """The tables of these settings."""
    return TableStore(settings.tables_uri, settings.storage.options)


def vectors_file(settings: Settings) -> Path:
    """Where vectors are cached."""
    return settings.cache_dir / "vectors.db"
