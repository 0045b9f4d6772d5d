"""Whatever is asked, and however it fails: no log record and no metric names the person who asked."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
import structlog
from starlette.testclient import TestClient

from rolecall.platform.settings import ServeSettings
from rolecall.platform.telemetry import configure_logging
from rolecall.serving.api import create_api

from .test_api import EVENT, MemoryBackend

CANARY = "cänary-7'x\"y 猫"
TEXT = "Zwölf Jahre Glockengießer"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("debug", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_neither_answers_nor_failures_name_the_person_in_logs_or_metrics(log: io.StringIO) -> None:
    backend = MemoryBackend()
    profile = {"resume_text": TEXT, "skills": [TEXT]}
    asked = {"candidate_id": CANARY, "profile": profile}
    with TestClient(create_api(backend, ServeSettings()), raise_server_exceptions=False) as client:
        assert client.post("/v1/recommendations", json=asked).status_code == 200
        assert client.post("/v1/recommendations", json=asked | {"limit": CANARY}).status_code == 422
        assert client.post("/v1/events", json={"events": [EVENT | {"candidate_id": CANARY}]}).status_code == 202
        assert client.get(f"/v1/candidates/{CANARY}").status_code == 404
        backend.error = RuntimeError(f"cannot rank {CANARY} who wrote {TEXT!r}", asked)
        failed = client.post("/v1/recommendations", json=asked)
        assert (failed.status_code, CANARY in failed.text) == (500, False)
        metrics = client.get("/metrics").text
    written = log.getvalue()
    assert "cannot rank" in written
    for trace in (CANARY, "nary-7", "猫", "\\u732b", TEXT, "Glockengie"):
        assert trace not in written
        assert trace not in metrics
