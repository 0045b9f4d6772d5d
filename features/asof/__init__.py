"""A point-in-time store for Feast that is right and fast, usable without the rest of this repository.

    # feature_store.yaml
    offline_store:
      type: rolecall.features.asof.AsofOfflineStore
      memory: 4GB          # optional: what the rows of a join may take before they are spilled to `scratch`

Feature rows lie in Parquet (`FileSource`: a file, a folder, a glob, an object store) or in a Delta table
(`DeltaSource`, pinned to a version where a training set must be reproducible).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rolecall.features.asof.delta_source import DeltaSource
    from rolecall.features.asof.offline_store import AsofOfflineStore, AsofOfflineStoreConfig

__all__ = ["AsofOfflineStore", "AsofOfflineStoreConfig", "DeltaSource"]

_HOMES = {
    "AsofOfflineStore": "rolecall.features.asof.offline_store",
    "AsofOfflineStoreConfig": "rolecall.features.asof.offline_store",
    "DeltaSource": "rolecall.features.asof.delta_source",
}


def __getattr__(name: str) -> Any:
    """Feast takes a second to import: the join alone does without it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
