"""Every request the server adapter sends is valid under Qdrant's own schemas.

A stub on a loopback port records the requests. Each body must parse under the model that Qdrant's
OpenAPI description gives for its path; those models refuse unknown fields.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from qdrant_client import QdrantClient, models

from rolecall.platform.errors import UnavailableError
from rolecall.platform.vectors.protocol import (
    DenseQuery,
    IndexConfig,
    IndexPoints,
    SearchFilter,
    SparseQuery,
    job_payload,
)
from rolecall.platform.vectors.server import ServerIndex

_DONE = {"operation_id": 0, "status": "completed"}
ROUTES: dict[tuple[str, str], tuple[Any, Any]] = {
    ("GET", r"/collections/c/exists"): (None, {"exists": True}),
    ("DELETE", r"/collections/c"): (None, True),
    ("PUT", r"/collections/c"): (models.CreateCollection, True),
    ("PUT", r"/collections/c/index"): (models.CreateFieldIndex, _DONE),
    ("PUT", r"/collections/c/points"): (models.PointInsertOperations, _DONE),
    ("POST", r"/collections/c/points/delete"): (models.PointsSelector, _DONE),
    ("POST", r"/collections/c/points/query/batch"): (models.QueryRequestBatch, [{"points": []}, {"points": []}]),
    ("POST", r"/collections/c/points/count"): (models.CountRequest, {"count": 7}),
}
FULL = SearchFilter(
    at=datetime(2026, 1, 1, tzinfo=UTC),
    countries=("DE",),
    regions=("BE",),
    cities=("Berlin",),
    employment_types=("full_time",),
    seniorities=("senior",),
    categories=("it",),
    remote=True,
    salary_at_least=1.5,
    radius_km=10.0,
    lat=52.5,
    lon=13.4,
    exclude_rows=(1, 2),
)
JOB = {
    "country": "DE",
    "category_path": ["it", "data"],
    "remote": False,
    "salary_max": 5.0,
    "lat": 52.0,
    "lon": 13.0,
    "posted_at": datetime(2025, 1, 1, tzinfo=UTC),
}


class _Stub(ThreadingHTTPServer):
    """Answers as Qdrant would and keeps (method, path, body)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self.fail = False
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Stub

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.split("?")[0]
        self.server.seen.append((self.command, path, body))
        results = [reply for (method, route), (_, reply) in ROUTES.items() if (method, route) == (self.command, path)]
        ok = bool(results) and not self.server.fail
        text = json.dumps({"result": results[0], "status": "ok", "time": 0.0} if ok else {"status": {"error": "no"}})
        self.send_response(200 if ok else 500)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[_Stub]:
    server = _Stub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _index(stub: _Stub) -> ServerIndex:
    client = QdrantClient(url=f"http://127.0.0.1:{stub.server_port}", check_compatibility=False)
    return ServerIndex.create(client, "c", IndexConfig(dimension=3, average_terms=2.0))


def _use_everything(index: ServerIndex) -> None:
    vector = np.array([0.0, 0.6, 0.8], np.float32)
    dense = np.stack([vector, vector])
    rows = np.array([0, 1], np.int32)
    index.upsert(IndexPoints(rows=rows, dense=dense, terms=[["a", "b", "a"], []], payloads=[job_payload(JOB), {}]))
    index.optimize()
    index.delete([1])
    for condition in (FULL, SearchFilter()):
        index.search([DenseQuery(vector=vector), SparseQuery(terms=["a"])], condition, limit=10)
        index.count(condition)
    index.count()
    index.drop()
    index.close()


def test_every_request_has_a_known_path_and_a_body_its_schema_accepts(stub: _Stub) -> None:
    _use_everything(_index(stub))
    asked = {(method, path) for method, path, _ in stub.seen}
    assert asked == set(ROUTES)
    for method, path, body in stub.seen:
        schema, _ = ROUTES[method, path]
        if schema is not None:
            TypeAdapter(schema).validate_json(body)


def test_the_filter_arrives_whole(stub: _Stub) -> None:
    _use_everything(_index(stub))
    bodies = [json.loads(body) for method, path, body in stub.seen if re.search("query/batch", path)]
    keys = {condition["key"] for condition in bodies[0]["searches"][0]["filter"]["must"]}
    assert keys == {
        *("country", "region", "city", "employment_type", "seniority", "category", "remote", "salary", "place")
    }
    assert "filter" not in bodies[1]["searches"][0]


def test_the_schemas_would_catch_a_wrong_field() -> None:
    with pytest.raises(ValidationError):
        models.QueryRequestBatch.model_validate({"searches": [{"querry": [0.0]}]})


def test_a_failing_server_is_named_with_the_collection(stub: _Stub) -> None:
    index = _index(stub)
    stub.fail = True
    with pytest.raises(UnavailableError, match="did not serve c"):
        index.count()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    client = QdrantClient(url="http://127.0.0.1:1", check_compatibility=False, timeout=1)
    with pytest.raises(UnavailableError, match=r"vectors\.url"):
        ServerIndex(client, "c", IndexConfig(dimension=3, average_terms=2.0)).count()
