"""Releases that hold a person or learned from them: which they are, and getting rid of them."""

from __future__ import annotations

import io
from datetime import datetime
from functools import cache

import polars as pl
import pyarrow.parquet as pq

from rolecall.pipelines.lifecycle.person import CANDIDATE, Person
from rolecall.pipelines.lifecycle.table_stores import personal_tables
from rolecall.pipelines.refresh import models_tables
from rolecall.platform.errors import NotFoundError
from rolecall.platform.file_tree import FileTree
from rolecall.platform.forgotten import ForgottenPeople
from rolecall.platform.registry import Registry
from rolecall.platform.table_erasure import scan_rows
from rolecall.platform.tables import TableStore

REASON = "holds or was trained on a person who asked to be forgotten ({name})"


class Releases:
    """Published releases with their copies in caches and MLflow. The champion is never erased: replace it first."""

    name = "releases"

    def __init__(self, registry: Registry, *, at: datetime) -> None:
        self._registry = registry
        self._at = at

    def holds(self, person: Person) -> int:
        tainted = {taint.release_id for taint in self._registry.taints.open()}
        return len(tainted | {name for name in self._registry.releases.ids() if self._names(name, person)})

    def erase(self, person: Person) -> int:
        return len(settle(self._registry, at=self._at))

    def _names(self, release_id: str, person: Person) -> bool:
        store = self._registry.releases
        tree = FileTree(store.uri, store.options)
        files = (file for file in tree.files(f"releases/{release_id}") if file.endswith(".parquet"))
        return any(parquet_names(tree.read(file), person.candidate_id) for file in files)


def learned_from(registry: Registry, store: TableStore, person: Person, *, marked: bool) -> list[str]:
    """Published releases built from a table version that has the person, or whose rankers learned from one.

    A version that is gone cannot be asked. It counts as having had them, unless this person's releases were
    `marked` before it went.
    """
    names = personal_tables(store)

    @cache
    def had(name: str, version: int) -> bool:
        try:
            rows = scan_rows(store, name, version)
        except NotFoundError:
            return not marked
        return not rows.filter(pl.col(CANDIDATE) == person.candidate_id).head(1).collect().is_empty()

    found = []
    for release_id in registry.releases.ids():
        manifest = registry.releases.manifest(release_id)
        read = (manifest.tables, models_tables(manifest))
        if any(had(name, tables[name]) for tables in read for name in names if name in tables):
            found.append(release_id)
    return found


def settle(registry: Registry, *, at: datetime) -> list[str]:
    """Purge every tainted release that is not served, and close the erasures that waited for it. Returns the purged.

    Called by `forget` and after each daily run; doing it again changes nothing.
    """
    champion = registry.reconcile()
    purged = [taint.release_id for taint in registry.taints.open() if taint.release_id != champion]
    for release_id in purged:
        registry.purge(release_id, at=at)
    if not registry.taints.open():
        ForgottenPeople(registry.promotions.engine).advance_all("erased", "done")
    return purged


def parquet_names(parquet: bytes, candidate_id: str) -> bool:
    """Whether a Parquet file has the person in a column `candidate_id`."""
    held = pq.ParquetFile(io.BytesIO(parquet))
    if CANDIDATE not in held.schema_arrow.names:
        return False
    return candidate_id in set(held.read(columns=[CANDIDATE], use_threads=False)[CANDIDATE].to_pylist())
