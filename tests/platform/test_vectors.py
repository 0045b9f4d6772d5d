"""One suite for every vector index: Qdrant Edge, qdrant-client in memory, and a server where one is named.

`ROLECALL_TEST_QDRANT_URL` names the server.
"""

from __future__ import annotations

import math
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from rolecall.platform.errors import InputError
from rolecall.platform.vectors import bm25
from rolecall.platform.vectors.edge import EdgeIndex
from rolecall.platform.vectors.protocol import (
    DenseQuery,
    IndexConfig,
    IndexPoints,
    SearchFilter,
    SparseQuery,
    VectorIndex,
    job_payload,
)
from rolecall.platform.vectors.server import ServerIndex

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
WIDTH = 16
COUNT = 240
WORDS = ("nurse", "night", "welder", "senior", "berlin", "paris", "python", "sql", "remote", "care", "pipe", "lead")
URL = os.environ.get("ROLECALL_TEST_QDRANT_URL", "")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """How to make an empty index, and open a snapshot again."""

    create: Callable[[IndexConfig], VectorIndex]
    open: Callable[[Path], VectorIndex]


def _edge(scratch: Path) -> Backend:
    return Backend(
        create=lambda config: EdgeIndex.create(config, scratch), open=lambda path: EdgeIndex.open(path, scratch)
    )


def _client(client: QdrantClient) -> Backend:
    return Backend(
        create=lambda config: ServerIndex.create(client, f"rolecall-{uuid.uuid4().hex[:8]}", config),
        open=lambda path: ServerIndex.open(client, path),
    )


_SERVER = pytest.param("server", marks=pytest.mark.skipif(not URL, reason="ROLECALL_TEST_QDRANT_URL names no server"))


@pytest.fixture(scope="module", params=["edge", "memory", _SERVER])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    if request.param == "edge":
        return _edge(tmp_path_factory.mktemp("edge"))
    return _client(QdrantClient(":memory:") if request.param == "memory" else QdrantClient(url=URL))


def _job(i: int, rng: np.random.Generator) -> dict[str, Any]:
    """A job with values missing here and there."""

    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.2 else value

    return {
        "country": maybe(("DE", "FR")[i % 2]),
        "region": maybe(f"r{i % 5}"),
        "city": maybe(f"c{i % 9}"),
        "employment_type": maybe(("full_time", "contract")[i % 2]),
        "seniority": maybe(("junior", "senior", "lead")[i % 3]),
        "category_path": maybe(["it", ("data", "ops")[i % 2]]) or [],
        "remote": maybe(bool(i % 4 == 0)),
        "salary_min": maybe(float(20_000 + 100 * i)),
        "salary_max": maybe(float(30_000 + 100 * i)),
        "lat": maybe(48.0 + 5 * rng.random()),
        "lon": 9.0 + 5 * rng.random(),
        "posted_at": maybe(NOW + (i % 7 - 3) * SECOND),
        "expires_at": maybe(NOW + (i % 5 - 2) * SECOND),
    }


_RNG = np.random.default_rng(5)
JOBS = [_job(i, _RNG) for i in range(COUNT)]
DENSE = _RNG.standard_normal((COUNT, WIDTH)).astype(np.float32)
DENSE /= np.linalg.norm(DENSE, axis=1, keepdims=True)
TERMS = [list(_RNG.choice(WORDS, size=_RNG.integers(0, 7))) for _ in range(COUNT)]
CONFIG = IndexConfig(dimension=WIDTH, average_terms=sum(map(len, TERMS)) / COUNT)


def _points(rows: Sequence[int]) -> IndexPoints:
    return IndexPoints(
        rows=np.asarray(rows, np.int32),
        dense=DENSE[list(rows)],
        terms=[TERMS[row] for row in rows],
        payloads=[job_payload(JOBS[row]) for row in rows],
    )


def _filled(backend: Backend) -> VectorIndex:
    index = backend.create(CONFIG)
    index.upsert(_points(range(COUNT)))
    index.optimize()
    return index


@pytest.fixture(scope="module")
def index(backend: Backend) -> Iterator[VectorIndex]:
    index = _filled(backend)
    yield index
    if isinstance(index, EdgeIndex):
        index.close()


EVERYTHING = SearchFilter()


def test_dense_hits_are_the_nearest_by_cosine(index: VectorIndex) -> None:
    query = DENSE[:3] + 0.1
    found = index.search([DenseQuery(vector=vector) for vector in query], EVERYTHING, limit=25)
    for hits, vector in zip(found, query, strict=True):
        cosines = DENSE @ vector / np.linalg.norm(vector)
        assert hits.rows.tolist() == np.argsort(-cosines, kind="stable")[:25].tolist()
        assert hits.scores == pytest.approx(np.sort(cosines)[::-1][:25], abs=1e-5)
        assert (hits.rows.dtype, hits.scores.dtype) == (np.int32, np.float32)


def _reference_bm25(terms: Sequence[str]) -> dict[int, float]:
    documents = [Counter(words) for words in TERMS]
    texts = sum(map(bool, TERMS))
    scores: dict[int, float] = {}
    for row, counts in enumerate(documents):
        norm = 1.2 * (1 - 0.75 + 0.75 * counts.total() / CONFIG.average_terms)
        for term in set(terms) & set(counts):
            having = sum(term in other for other in documents)
            idf = math.log(1 + (texts - having + 0.5) / (having + 0.5))
            scores[row] = scores.get(row, 0.0) + idf * counts[term] * 2.2 / (counts[term] + norm)
    return scores


def test_sparse_hits_are_scored_by_bm25(index: VectorIndex) -> None:
    terms = ["nurse", "berlin", "berlin", "unheard"]
    (hits,) = index.search([SparseQuery(terms=terms)], EVERYTHING, limit=COUNT)
    reference = _reference_bm25(terms)
    assert sorted(hits.rows.tolist()) == sorted(reference)
    assert hits.scores == pytest.approx([reference[row] for row in hits.rows.tolist()], rel=1e-4)
    assert (np.diff(hits.scores) <= 0).all()


def test_equal_scores_are_ordered_by_row(index: VectorIndex) -> None:
    (hits,) = index.search([SparseQuery(terms=["nurse"])], EVERYTHING, limit=COUNT)
    for score in np.unique(hits.scores):
        assert (np.diff(hits.rows[hits.scores == score]) > 0).all()


def test_a_batch_answers_as_its_queries_alone_do(index: VectorIndex) -> None:
    queries = [DenseQuery(vector=DENSE[7]), SparseQuery(terms=["sql", "care"]), DenseQuery(vector=DENSE[9])]
    together = index.search(queries, SearchFilter(at=NOW), limit=40)
    for query, hits in zip(queries, together, strict=True):
        (alone,) = index.search([query], SearchFilter(at=NOW), limit=40)
        assert alone.rows.tolist() == hits.rows.tolist()
        assert alone.scores == pytest.approx(hits.scores, abs=1e-6)


def test_nothing_asked_and_no_term_known_find_nothing(index: VectorIndex) -> None:
    assert index.search([], EVERYTHING, limit=5) == []
    empty, unheard = index.search([SparseQuery(terms=[]), SparseQuery(terms=["unheard"])], EVERYTHING, limit=5)
    assert len(empty.rows) == len(unheard.rows) == 0


def _near(job: Mapping[str, Any], km: float, lat: float, lon: float) -> bool:
    if job["lat"] is None:
        return False
    a, b = math.radians(job["lat"]), math.radians(lat)
    h = math.sin((a - b) / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(math.radians(job["lon"] - lon) / 2) ** 2
    return 2 * 6371.0 * math.asin(math.sqrt(h)) <= km


def _salary(job: Mapping[str, Any]) -> float:
    salary = job["salary_max"] if job["salary_max"] is not None else job["salary_min"]
    return -1.0 if salary is None else salary


FILTERS: dict[str, tuple[SearchFilter, Callable[[int, Mapping[str, Any]], bool]]] = {
    "live": (
        SearchFilter(at=NOW),
        lambda _, j: (
            (j["posted_at"] is None or j["posted_at"] <= NOW) and (j["expires_at"] is None or j["expires_at"] > NOW)
        ),
    ),
    "country": (SearchFilter(countries=("DE",)), lambda _, j: j["country"] == "DE"),
    "region": (SearchFilter(regions=("r1", "r2")), lambda _, j: j["region"] in ("r1", "r2")),
    "city": (SearchFilter(cities=("c3",)), lambda _, j: j["city"] == "c3"),
    "city, whatever its case": (SearchFilter(cities=(" C3",)), lambda _, j: j["city"] == "c3"),
    "type": (SearchFilter(employment_types=("contract",)), lambda _, j: j["employment_type"] == "contract"),
    "seniority": (SearchFilter(seniorities=("lead",)), lambda _, j: j["seniority"] == "lead"),
    "upper category": (SearchFilter(categories=("it",)), lambda _, j: "it" in j["category_path"]),
    "leaf category": (SearchFilter(categories=("ops",)), lambda _, j: "ops" in j["category_path"]),
    "remote": (SearchFilter(remote=True), lambda _, j: j["remote"] is True),
    "on site": (SearchFilter(remote=False), lambda _, j: j["remote"] is False),
    "salary": (SearchFilter(salary_at_least=41_300.0), lambda _, j: _salary(j) >= 41_300.0),
    "radius": (SearchFilter(radius_km=150, lat=50.0, lon=11.0), lambda _, j: _near(j, 150, 50.0, 11.0)),
    "excluded": (SearchFilter(exclude_rows=(0, 7, 11)), lambda i, _: i not in (0, 7, 11)),
    "several": (
        SearchFilter(at=NOW, countries=("DE",), seniorities=("junior", "senior"), exclude_rows=(2,)),
        lambda i, j: (
            i != 2 and FILTERS["live"][1](i, j) and j["country"] == "DE" and j["seniority"] in ("junior", "senior")
        ),
    ),
    "nobody": (SearchFilter(cities=("atlantis",)), lambda _, j: False),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_lets_exactly_the_right_jobs_through(index: VectorIndex, name: str) -> None:
    condition, passes = FILTERS[name]
    expected = [row for row, job in enumerate(JOBS) if passes(row, job)]
    dense, sparse = index.search([DenseQuery(vector=DENSE[0]), SparseQuery(terms=WORDS)], condition, limit=COUNT)
    assert sorted(dense.rows.tolist()) == expected
    assert sorted(sparse.rows.tolist()) == [row for row in expected if TERMS[row]]
    assert index.count(condition) == len(expected)


def test_a_time_filter_is_exact_to_the_microsecond(backend: Backend) -> None:
    index = backend.create(CONFIG)
    tick = timedelta(microseconds=1)
    payloads = [job_payload({"posted_at": NOW, "expires_at": NOW + tick})]
    index.upsert(IndexPoints(rows=np.zeros(1, np.int32), dense=DENSE[:1], terms=[["nurse"]], payloads=payloads))
    assert [index.count(SearchFilter(at=at)) for at in (NOW - tick, NOW, NOW + tick)] == [0, 1, 0]


def test_writing_a_row_again_replaces_all_of_it(backend: Backend) -> None:
    index = backend.create(CONFIG)
    index.upsert(_points(range(20)))
    new = IndexPoints(
        rows=np.array([4], np.int32), dense=-DENSE[4:5], terms=[["astronaut"]], payloads=[{"city": "moon"}]
    )
    index.upsert(new)
    index.upsert(new)
    dense, sparse = index.search(
        [DenseQuery(vector=-DENSE[4]), SparseQuery(terms=["astronaut"])], SearchFilter(cities=("moon",)), limit=5
    )
    assert (index.count(), dense.rows.tolist(), sparse.rows.tolist()) == (20, [4], [4])
    assert dense.scores[0] == pytest.approx(1.0, abs=1e-5)


def test_deleted_rows_are_gone_and_unknown_ones_ignored(backend: Backend) -> None:
    index = backend.create(CONFIG)
    index.upsert(_points(range(20)))
    index.delete([3, 5, 999])
    index.delete([])
    (hits,) = index.search([DenseQuery(vector=DENSE[3])], EVERYTHING, limit=50)
    assert sorted(hits.rows.tolist()) == [row for row in range(20) if row not in (3, 5)]


def test_a_snapshot_opens_as_the_same_index(backend: Backend, index: VectorIndex, tmp_path: Path) -> None:
    index.snapshot(tmp_path / "index.tar")
    copy = backend.open(tmp_path / "index.tar")
    queries = [DenseQuery(vector=DENSE[1]), SparseQuery(terms=["nurse", "lead"])]
    for one, other in zip(
        index.search(queries, SearchFilter(at=NOW), 50), copy.search(queries, SearchFilter(at=NOW), 50), strict=True
    ):
        assert one.rows.tolist() == other.rows.tolist()
        assert one.scores == pytest.approx(other.scores, abs=1e-6)
    assert copy.config == index.config
    if isinstance(copy, EdgeIndex):
        copy.close()


def test_two_builds_from_the_same_points_answer_alike_even_where_scores_tie(backend: Backend) -> None:
    first, second = _filled(backend), _filled(backend)
    for limit in (1, 7, 30):
        queries = [SparseQuery(terms=["nurse"]), DenseQuery(vector=DENSE[2])]
        for one, other in zip(
            first.search(queries, EVERYTHING, limit), second.search(queries, EVERYTHING, limit), strict=True
        ):
            assert one.rows.tolist() == other.rows.tolist()


def test_threads_may_search_at_once(index: VectorIndex) -> None:
    def ask(row: int) -> list[int]:
        (hits,) = index.search([DenseQuery(vector=DENSE[row])], EVERYTHING, limit=10)
        return list(hits.rows.tolist())

    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(ask, range(40)))
    assert at_once == [ask(row) for row in range(40)]


@pytest.mark.parametrize("vector", [np.zeros(3, np.float32), np.full(WIDTH, np.nan, np.float32)], ids=["short", "nan"])
def test_vectors_that_do_not_fit_are_refused(index: VectorIndex, vector: np.ndarray) -> None:
    with pytest.raises(InputError, match=str(WIDTH)):
        index.search([DenseQuery(vector=vector)], EVERYTHING, limit=1)
    points = IndexPoints(rows=np.zeros(1, np.int32), dense=vector[None], terms=[[]], payloads=[{}])
    with pytest.raises(InputError, match=str(WIDTH)):
        index.upsert(points)


def test_parts_of_unequal_length_are_refused() -> None:
    with pytest.raises(InputError):
        IndexPoints(rows=np.zeros(2, np.int32), dense=DENSE[:1], terms=[[]], payloads=[{}])


def test_filters_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(InputError, match="zone"):
        SearchFilter(at=datetime(2026, 1, 1))  # noqa: DTZ001
    for wrong in ({"radius_km": 5.0}, {"radius_km": 0.0, "lat": 1.0, "lon": 1.0}):
        with pytest.raises(InputError, match="radius"):
            SearchFilter(**wrong)


def test_term_dimensions_are_the_same_everywhere_and_fit_32_bits() -> None:
    assert bm25.dimension("nurse") == 3531500867
    assert all(0 <= bm25.dimension(word) < 2**32 for word in WORDS)
