"""Qdrant Edge: Qdrant's own engine inside this process, on a folder of its own.

One process only may open a shard, even to read, and opening rewrites its files: a release holds a
snapshot, and every process unpacks that into a fresh folder (`EdgeIndex.open`).
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from rolecall.platform.errors import IntegrityError
from rolecall.platform.vectors import bm25
from rolecall.platform.vectors.archive import read_head, unpack, write_archive
from rolecall.platform.vectors.protocol import (
    KEYWORD_KEYS,
    TIME_KEYS,
    DenseQuery,
    Hits,
    IndexConfig,
    IndexPoints,
    Query,
    SearchFilter,
    best,
    checked,
    epoch_us,
    ordered,
    unit,
)

_BATCH = 1000
_INDEXED = {
    **dict.fromkeys(KEYWORD_KEYS, edge.PayloadSchemaType.Keyword),
    **dict.fromkeys(TIME_KEYS, edge.PayloadSchemaType.Integer),
    "remote": edge.PayloadSchemaType.Integer,
    "salary": edge.PayloadSchemaType.Float,
    "place": edge.PayloadSchemaType.Geo,
}


class EdgeIndex:
    """A VectorIndex on a Qdrant Edge shard. `close` removes the shard's folder: what lasts is a snapshot."""

    def __init__(self, shard: edge.EdgeShard, folder: Path, config: IndexConfig) -> None:
        self.config = config
        self._shard = shard
        self._folder = folder
        self._open = True
        self._lock = threading.Lock()

    @classmethod
    def create(cls, config: IndexConfig, scratch: Path) -> EdgeIndex:
        """An empty index in a fresh folder below `scratch`."""
        folder = _fresh(scratch)
        (folder / "shard").mkdir()
        shard = edge.EdgeShard.create(str(folder / "shard"), _edge_config(config))
        for key, kind in _INDEXED.items():
            shard.update(edge.UpdateOperation.create_field_index(key, kind))
        return cls(shard, folder, config)

    @classmethod
    def open(cls, snapshot: Path, scratch: Path) -> EdgeIndex:
        """A private copy of a snapshot. Raises IntegrityError where the file is no snapshot of this engine."""
        backend, _, config = read_head(snapshot)
        if backend != "edge":
            raise IntegrityError(
                f"{snapshot} was written by back end {backend!r}", "edge", "open it with that back end"
            )
        folder = _fresh(scratch)
        try:
            shard = edge.EdgeShard.load(str(unpack(snapshot, folder)))
        except Exception as error:  # the engine raises no narrower type of its own
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, IntegrityError):
                raise
            raise IntegrityError(f"{snapshot} does not open: {error}", todo="build the release anew") from error
        return cls(shard, folder, config)

    def upsert(self, points: IndexPoints) -> None:
        """See VectorIndex."""
        checked(points, self.config)
        for start in range(0, len(points.rows), _BATCH):
            batch = [self._point(points, i) for i in range(start, min(start + _BATCH, len(points.rows)))]
            self._shard.update(edge.UpdateOperation.upsert_points(batch))

    def delete(self, rows: Sequence[int]) -> None:
        """See VectorIndex."""
        if rows:
            self._shard.update(edge.UpdateOperation.delete_points([int(row) for row in rows]))

    def optimize(self) -> None:
        """See VectorIndex."""
        self._shard.optimize()
        self._shard.flush()

    def search(self, queries: Sequence[Query], filter: SearchFilter, limit: int) -> list[Hits]:
        """See VectorIndex."""
        condition, params = edge_filter(filter), self._params()
        ready = [self._query(query) for query in queries]

        def ask(places: Sequence[int], wanted: int) -> list[Hits]:
            requests = [edge.QueryRequest(wanted, query=ready[i], filter=condition, params=params) for i in places]
            return [_hits(points) for points in self._shard.query_batch(edge.QueryBatchRequest(requests))]

        return best(ask, len(ready), limit)

    def count(self, filter: SearchFilter | None = None) -> int:
        """See VectorIndex."""
        condition = None if filter is None else edge_filter(filter)
        return int(self._shard.count(edge.CountRequest(exact=True, filter=condition)))

    def snapshot(self, path: Path) -> None:
        """See VectorIndex."""
        self._shard.flush()
        write_archive(path, "edge", self.config, folder=self._folder / "shard")

    def close(self) -> None:
        """See VectorIndex."""
        with self._lock:
            if self._open:
                self._open = False
                self._shard.close()
                shutil.rmtree(self._folder, ignore_errors=True)

    def _point(self, points: IndexPoints, i: int) -> edge.Point:
        terms = bm25.document(points.terms[i], self.config.average_terms)
        vectors: dict[str, Any] = {"dense": points.dense[i].tolist()}
        if terms.indices:
            vectors["bm25"] = edge.SparseVector(terms.indices, terms.values)
        return edge.Point(int(points.rows[i]), vectors, dict(points.payloads[i]))

    def _query(self, query: Query) -> edge.Query:
        if isinstance(query, DenseQuery):
            return edge.Query.Nearest(unit(query.vector, self.config.dimension), using="dense")
        terms = bm25.query(query.terms)
        return edge.Query.Nearest(edge.SparseVector(terms.indices, terms.values), using="bm25")

    def _params(self) -> edge.SearchParams:
        if self._shard.info().points_count <= self.config.exact_below:
            return edge.SearchParams(exact=True)
        rescore = edge.QuantizationSearchParams(rescore=True)
        return edge.SearchParams(hnsw_ef=self.config.ef_search, quantization=rescore)


def edge_filter(filter: SearchFilter) -> edge.Filter | None:
    """The engine's own form of a filter; None where it lets everything pass."""
    must: list[Any] = [
        edge.FieldCondition(key, match=edge.MatchAny(list(words))) for key, words in filter.keywords().items()
    ]
    if filter.remote is not None:
        must.append(edge.FieldCondition("remote", match=edge.MatchValue(int(filter.remote))))
    if filter.salary_at_least is not None:
        must.append(edge.FieldCondition("salary", range=edge.RangeFloat(gte=float(filter.salary_at_least))))
    if filter.active_since is not None:
        since = edge.RangeFloat(gte=float(epoch_us(filter.active_since) or 0))
        must.append(edge.FieldCondition("active_us", range=since))
    if filter.radius_km is not None and filter.lat is not None and filter.lon is not None:
        circle = edge.GeoRadius(edge.GeoPoint(filter.lon, filter.lat), filter.radius_km * 1000.0)
        must.append(edge.FieldCondition("place", geo_radius=circle))
    must_not = list(_unwanted(filter))
    return edge.Filter(must=must or None, must_not=must_not or None) if must or must_not else None


def _unwanted(filter: SearchFilter) -> Iterable[Any]:
    at = epoch_us(filter.at)
    if at is not None:
        yield edge.FieldCondition("posted_us", range=edge.RangeFloat(gt=float(at)))
        yield edge.FieldCondition("expires_us", range=edge.RangeFloat(lte=float(at)))
    if filter.exclude_rows:
        yield edge.HasIdCondition(set(map(int, filter.exclude_rows)))


def _edge_config(config: IndexConfig) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={"dense": edge.EdgeVectorParams(size=config.dimension, distance=edge.Distance.Cosine)},
        sparse_vectors={"bm25": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        hnsw_config=edge.HnswIndexConfig(m=config.m, ef_construct=config.ef_construct, full_scan_threshold=10_000),
        quantization_config=edge.ScalarQuantizationConfig(
            type=edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Pinned
        ),
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1000),
        wal_enabled=False,
    )


def _fresh(scratch: Path) -> Path:
    scratch.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="edge-", dir=scratch))


def _hits(points: Sequence[edge.ScoredPoint]) -> Hits:
    rows = np.fromiter((point.id for point in points), np.int32, len(points))
    scores = np.fromiter((point.score for point in points), np.float32, len(points))
    return ordered(rows, scores)
