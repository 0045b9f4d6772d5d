"""The served application as a client meets it: Ray Serve, HAProxy, one replica, real stores."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from rolecall.platform.event_log import EventLog
from rolecall.platform.ledger import open_ledger
from rolecall.platform.settings import Settings, load_settings
from rolecall.serving.app import Server, run_server

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    ports = {
        "ROLECALL_SERVE__PORT": str(free_port()),
        "ROLECALL_RAY__HAPROXY_METRICS_PORT": str(free_port()),
        "ROLECALL_RAY__HAPROXY_STATS_PORT": str(free_port()),
    }
    return load_settings(environ={"ROLECALL_HOME": str(tmp_path_factory.mktemp("serve") / "home"), **ports})


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Server]:
    with run_server(settings, blocking=False) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def event(name: str) -> dict[str, str]:
    at = datetime(2026, 11, 2, 9, 30, tzinfo=UTC).isoformat()
    return {"event_id": name, "candidate_id": "c1", "job_id": "j1", "kind": "view", "occurred_at": at}


def logged(settings: Settings) -> set[str]:
    events = EventLog(open_ledger(settings.ledger_url)).read_after(0)
    return {logged.event["event_id"] for logged in events}


def test_without_a_release_the_server_is_alive_and_says_what_is_missing(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "rolecall run daily" in ready.json()["errors"][0]["detail"]
    answer = client.post("/v1/recommendations", json={"candidate_id": "c1"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_an_answer_carries_one_request_id(client: httpx.Client) -> None:
    reply = client.get("/healthz", headers={"X-Request-ID": "r-1"})
    assert reply.headers.get_list("x-request-id") == ["r-1"]


def test_wrong_input_is_problem_details_through_the_proxy(client: httpx.Client) -> None:
    reply = client.post("/v1/search", json={})
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/problem+json")


def test_events_answered_202_are_in_the_log(client: httpx.Client, settings: Settings) -> None:
    assert client.post("/v1/events", json={"events": [event("e1"), event("e2")]}).status_code == 202
    assert client.post("/v1/events", json={"events": [event("e2")]}).json() == {
        "accepted": 0,
        "duplicate": 1,
        "dropped": 0,
    }
    assert {"e1", "e2"} <= logged(settings)


def test_the_language_model_streams_through_the_proxy_in_openais_shape(client: httpx.Client) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    body = {"model": model["id"], "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = "".join(reply.iter_text()).split("\n\n")
    assert events[-2] == "data: [DONE]"
    assert len(events) > 3
    refused = client.post("/v1/chat/completions", json=body | {"tools": [{}]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools")


def test_a_question_needs_a_release(client: httpx.Client) -> None:
    answer = client.post("/v1/answers", json={"question": "Which jobs need welding?"})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")


def test_a_killed_replica_loses_no_accepted_event_and_answers_again(server: Server, settings: Settings) -> None:
    accepted: set[str] = set()

    def post(n: int) -> None:
        name = f"kill-{n}"
        if n == 100:
            os.kill(replica_pid(), signal.SIGKILL)
        with contextlib.suppress(httpx.TransportError), httpx.Client(base_url=server.url, timeout=60) as client:
            if client.post("/v1/events", json={"events": [event(name)]}).status_code == 202:
                accepted.add(name)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(post, range(200)))
    assert len(accepted) >= 100
    assert accepted <= logged(settings)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.post("/v1/events", json={"events": [event("after")]}).status_code == 202


def replica_pid() -> int:
    """The replica started below this process, among whatever else runs on the machine."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            named = (entry / "cmdline").read_bytes().startswith(b"ray::ServeReplica:rolecall:api")
            if named and os.getpid() in ancestors(entry):
                return int(entry.name)
    raise LookupError("no replica runs below this process")


def ancestors(process: Path) -> list[int]:
    found = [int(process.name)]
    while found[-1] > 1:
        found.append(int((process.with_name(str(found[-1])) / "stat").read_text().rsplit(")", 1)[1].split()[1]))
    return found
