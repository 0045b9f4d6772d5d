"""Which engine stands behind an index: the one place that knows both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rolecall.platform.errors import SettingsError
from rolecall.platform.settings import VectorSettings
from rolecall.platform.vectors.archive import read_head
from rolecall.platform.vectors.protocol import IndexConfig, VectorIndex

if TYPE_CHECKING:
    from qdrant_client import QdrantClient


def index_config(settings: VectorSettings, *, dimension: int, average_terms: float) -> IndexConfig:
    """The settings' way of building an index for vectors and texts such as these."""
    return IndexConfig(
        dimension=dimension,
        average_terms=average_terms,
        m=settings.m,
        ef_construct=settings.ef_construct,
        ef_search=settings.ef_search,
        exact_below=settings.exact_below,
    )


def create_index(settings: VectorSettings, config: IndexConfig, *, scratch: Path, name: str) -> VectorIndex:
    """A new, empty index. `scratch`: where Edge keeps its folder; `name`: the collection on a server."""
    if settings.backend == "server":
        from rolecall.platform.vectors.server import ServerIndex

        return ServerIndex.create(_client(settings), name, config)
    from rolecall.platform.vectors.edge import EdgeIndex

    return EdgeIndex.create(config, scratch)


def open_index(settings: VectorSettings, snapshot: Path, *, scratch: Path) -> VectorIndex:
    """Open what `VectorIndex.snapshot` wrote: an Edge shard as a private copy below `scratch`, or a collection."""
    backend, _, _ = read_head(snapshot)
    if backend == "server":
        from rolecall.platform.vectors.server import ServerIndex

        return ServerIndex.open(_client(settings), snapshot)
    from rolecall.platform.vectors.edge import EdgeIndex

    return EdgeIndex.open(snapshot, scratch)


def _client(settings: VectorSettings) -> QdrantClient:
    import qdrant_client

    if not settings.url:
        raise SettingsError("vectors.backend is server and vectors.url is empty", "http://host:6333", "set vectors.url")
    return qdrant_client.QdrantClient(url=settings.url, api_key=settings.api_key or None, timeout=30)
