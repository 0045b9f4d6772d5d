"""A Qdrant server or cluster through `qdrant-client`: one collection an index.

The collection's name is given by whoever builds the release; a snapshot is a small file that names
it. Until a real server was seen in the tests, quantisation, sharding and aliases there are untested.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from rolecall.platform.errors import IntegrityError, NotFoundError, UnavailableError
from rolecall.platform.vectors import bm25
from rolecall.platform.vectors.archive import read_head, write_archive
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

_BATCH = 500
_INDEXED = {
    **dict.fromkeys(KEYWORD_KEYS, models.PayloadSchemaType.KEYWORD),
    **dict.fromkeys(TIME_KEYS, models.PayloadSchemaType.INTEGER),
    "remote": models.PayloadSchemaType.INTEGER,
    "salary": models.PayloadSchemaType.FLOAT,
    "place": models.PayloadSchemaType.GEO,
}


class ServerIndex:
    """A VectorIndex on one collection. `close` closes the connection; the collection stays."""

    def __init__(self, client: QdrantClient, name: str, config: IndexConfig) -> None:
        self.config = config
        self.name = name
        self._client = client

    @classmethod
    def create(cls, client: QdrantClient, name: str, config: IndexConfig) -> ServerIndex:
        """A new, empty collection; an older one of that name is dropped."""
        with _answered(name):
            if client.collection_exists(name):
                client.delete_collection(name)
            client.create_collection(name, **_collection(config))
            for key, kind in _INDEXED.items():
                client.create_payload_index(name, key, field_schema=kind, wait=True)
        return cls(client, name, config)

    @classmethod
    def open(cls, client: QdrantClient, snapshot: Path) -> ServerIndex:
        """The collection a snapshot names. Raises NotFoundError where the server does not have it."""
        backend, name, config = read_head(snapshot)
        if backend != "server":
            raise IntegrityError(f"{snapshot} was written by {backend!r}", "server", "open it with that back end")
        with _answered(name):
            exists = client.collection_exists(name)
        if not exists:
            raise NotFoundError(f"the Qdrant server has no collection {name}", todo="build the release's index anew")
        return cls(client, name, config)

    def upsert(self, points: IndexPoints) -> None:
        """See VectorIndex."""
        checked(points, self.config)
        for start in range(0, len(points.rows), _BATCH):
            batch = [self._point(points, i) for i in range(start, min(start + _BATCH, len(points.rows)))]
            with _answered(self.name):
                self._client.upsert(self.name, batch, wait=True)

    def delete(self, rows: Sequence[int]) -> None:
        """See VectorIndex."""
        if rows:
            with _answered(self.name):
                self._client.delete(self.name, models.PointIdsList(points=[int(row) for row in rows]), wait=True)

    def optimize(self) -> None:
        """The server builds by itself after each write; nothing to wait for, searches are right meanwhile."""

    def search(self, queries: Sequence[Query], filter: SearchFilter, limit: int) -> list[Hits]:
        """See VectorIndex."""
        condition = server_filter(filter)

        def ask(places: Sequence[int], wanted: int) -> list[Hits]:
            requests = [self._request(queries[place], condition, wanted) for place in places]
            with _answered(self.name):
                replies = self._client.query_batch_points(self.name, requests)
            return [_hits(reply.points) for reply in replies]

        return best(ask, len(queries), limit)

    def count(self, filter: SearchFilter | None = None) -> int:
        """See VectorIndex."""
        condition = None if filter is None else server_filter(filter)
        with _answered(self.name):
            return self._client.count(self.name, count_filter=condition, exact=True).count

    def snapshot(self, path: Path) -> None:
        """See VectorIndex."""
        write_archive(path, "server", self.config, name=self.name)

    def drop(self) -> None:
        """Delete the collection."""
        with _answered(self.name):
            self._client.delete_collection(self.name)

    def close(self) -> None:
        """See VectorIndex."""
        self._client.close()

    def _point(self, points: IndexPoints, i: int) -> models.PointStruct:
        terms = bm25.document(points.terms[i], self.config.average_terms)
        vectors: dict[str, Any] = {"dense": points.dense[i].tolist()}
        if terms.indices:
            vectors["bm25"] = models.SparseVector(indices=terms.indices, values=terms.values)
        return models.PointStruct(id=int(points.rows[i]), vector=vectors, payload=dict(points.payloads[i]))

    def _vector(self, query: Query) -> list[float] | models.SparseVector:
        if isinstance(query, DenseQuery):
            return unit(query.vector, self.config.dimension)
        terms = bm25.query(query.terms)
        return models.SparseVector(indices=terms.indices, values=terms.values)

    def _request(self, query: Query, condition: models.Filter | None, wanted: int) -> models.QueryRequest:
        dense = isinstance(query, DenseQuery)
        rescore = models.QuantizationSearchParams(rescore=True)
        return models.QueryRequest(
            query=self._vector(query),
            using="dense" if dense else "bm25",
            filter=condition,
            params=models.SearchParams(hnsw_ef=self.config.ef_search, quantization=rescore) if dense else None,
            limit=wanted,
            with_payload=False,
        )


def server_filter(filter: SearchFilter) -> models.Filter | None:
    """The server's own form of a filter; None where it lets everything pass."""
    must: list[Any] = [
        models.FieldCondition(key=key, match=models.MatchAny(any=list(words)))
        for key, words in filter.keywords().items()
    ]
    if filter.remote is not None:
        must.append(models.FieldCondition(key="remote", match=models.MatchValue(value=int(filter.remote))))
    if filter.salary_at_least is not None:
        must.append(models.FieldCondition(key="salary", range=models.Range(gte=float(filter.salary_at_least))))
    if filter.active_since is not None:
        since = models.Range(gte=float(epoch_us(filter.active_since) or 0))
        must.append(models.FieldCondition(key="active_us", range=since))
    if filter.radius_km is not None and filter.lat is not None and filter.lon is not None:
        center = models.GeoPoint(lat=filter.lat, lon=filter.lon)
        circle = models.GeoRadius(center=center, radius=filter.radius_km * 1000.0)
        must.append(models.FieldCondition(key="place", geo_radius=circle))
    must_not = list(_unwanted(filter))
    return models.Filter(must=must or None, must_not=must_not or None) if must or must_not else None


def _unwanted(filter: SearchFilter) -> Iterable[Any]:
    at = epoch_us(filter.at)
    if at is not None:
        yield models.FieldCondition(key="posted_us", range=models.Range(gt=float(at)))
        yield models.FieldCondition(key="expires_us", range=models.Range(lte=float(at)))
    if filter.exclude_rows:
        yield models.HasIdCondition(has_id=[int(row) for row in filter.exclude_rows])


def _collection(config: IndexConfig) -> dict[str, Any]:
    int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
    return {
        "vectors_config": {"dense": models.VectorParams(size=config.dimension, distance=models.Distance.COSINE)},
        "sparse_vectors_config": {"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        "hnsw_config": models.HnswConfigDiff(m=config.m, ef_construct=config.ef_construct),
        "quantization_config": models.ScalarQuantization(scalar=int8),
    }


@contextmanager
def _answered(name: str) -> Iterator[None]:
    """Turns the client's errors into UnavailableError, naming the collection."""
    try:
        yield
    except (ApiException, ResponseHandlingException) as error:
        raise UnavailableError(
            f"the Qdrant server did not serve {name}: {error}",
            "a running server",
            "check vectors.url and vectors.api_key",
        ) from error


def _hits(points: Sequence[models.ScoredPoint]) -> Hits:
    rows = np.fromiter((int(point.id) for point in points), np.int32, len(points))
    scores = np.fromiter((point.score for point in points), np.float32, len(points))
    return ordered(rows, scores)
