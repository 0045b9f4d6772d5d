"""The served release, asked over HTTP behind Ray Serve's HAProxy, as a job board would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from rolecall.features.schema import CANDIDATES, EVENTS
from rolecall.pipelines.demo import http_server
from rolecall.platform.registry import Registry
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore
from tests.releases import built_again, publish

from .conftest import AS_OF, World

FOLLOW_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Served:
    settings: Settings
    client: httpx.Client
    release_id: str


@pytest.fixture(scope="module")
def served(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = world.copy(tmp_path_factory.mktemp("served") / "home")
    registry = Registry.from_settings(settings)
    if registry.reconcile() is None:
        registry.promote(world.result.release_id, expected=None, why="test", gated=False)
    with http_server(settings) as url, httpx.Client(base_url=url, timeout=30.0) as client:
        yield Served(settings=settings, client=client, release_id=world.result.release_id)


def event(name: str, **over: object) -> dict[str, object]:
    return {
        "event_id": name,
        "candidate_id": "cand-000001",
        "job_id": "job-000001",
        "kind": "apply",
        "occurred_at": datetime.now(UTC).isoformat(),
    } | over


def test_an_employer_gets_people_who_agreed(served: Served) -> None:
    """Also for a job that is described in the request; nothing of a resume comes along."""
    tables = TableStore(served.settings.tables_uri)
    people = {row["candidate_id"]: row for row in tables.read(CANDIDATES).to_pylist()}
    body = {"job": {"title": "engineer", "employer_id": "nobody's"}, "limit": 50}
    for path in ("/v1/jobs/job-000001/candidates", "/v1/jobs/not-posted-yet/candidates"):
        reply = served.client.post(path, json=body)
        assert reply.status_code == 200, reply.text
        found = [people[item["candidate_id"]] for item in reply.json()["items"]]
        assert found
        assert all(person["consent"] and person["visibility"] in (None, "all", "applied") for person in found)
        assert not any(person["resume_text"][:40] in reply.text for person in found if person["resume_text"])
    assert served.client.post("/v1/jobs/not-posted-yet/candidates", json={}).status_code == 404


def test_a_known_candidate_gets_jobs_with_reasons_and_a_trace(served: Served) -> None:
    reply = served.client.post("/v1/recommendations", json={"candidate_id": "cand-000001", "limit": 5}).json()
    assert reply["known"]
    assert reply["release_id"] == served.release_id
    assert [item["position"] for item in reply["items"]] == [1, 2, 3, 4, 5]
    assert all(0 <= item["score"] <= 1 and item["reasons"] for item in reply["items"])
    assert {"recall", "coarse", "fine"} <= {stage["stage"] for stage in reply["trace"]}


def test_somebody_never_seen_is_answered_from_content_and_told_so(served: Served) -> None:
    profile = {"desired_titles": ["nurse"], "skills": ["patient care"]}
    for body in ({"candidate_id": "nobody"}, {"profile": profile}):
        reply = served.client.post("/v1/recommendations", json=body)
        assert reply.status_code == 200
        assert not reply.json()["known"]
        assert reply.json()["items"]


@pytest.mark.parametrize(
    "body",
    [{}, {"candidate_id": ""}, {"candidate_id": "c", "limit": 0}, {"candidate_id": "c", "colour": "red"}, [], "text"],
)
def test_wrong_input_is_answered_with_problem_details(served: Served, body: object) -> None:
    answer = served.client.post("/v1/recommendations", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= answer.json().keys()


def test_search_finds_by_words_and_meaning(served: Served) -> None:
    reply = served.client.post("/v1/search", json={"text": "engineer", "limit": 3}).json()
    assert len(reply["items"]) == 3
    assert served.client.post("/v1/search", json={"text": " "}).status_code == 422


def test_the_description_of_the_interface_has_examples(served: Served) -> None:
    document = served.client.get("/openapi.json").json()
    for path in ("/v1/recommendations", "/v1/search", "/v1/events", "/healthz", "/readyz", "/metrics"):
        assert path in document["paths"]
    assert "example" in json.dumps(document)


def test_metrics_are_readable_by_prometheus(served: Served) -> None:
    served.client.post("/v1/recommendations", json={"candidate_id": "cand-000001"})
    assert "rolecall_" in served.client.get("/metrics").text


def test_an_accepted_event_is_durable_idempotent_and_reaches_the_next_run(served: Served) -> None:
    early = event("posted-1", occurred_at=(AS_OF.replace(hour=0)).isoformat())
    first = served.client.post("/v1/events", json={"events": [early]})
    again = served.client.post("/v1/events", json={"events": [early]})
    assert first.status_code == again.status_code == 202
    assert (first.json()["accepted"], again.json()["accepted"], again.json()["duplicate"]) == (1, 0, 1)
    from rolecall.platform.event_log import EventLog, drain
    from rolecall.platform.ledger import open_ledger

    store = TableStore(served.settings.tables_uri)
    drain(EventLog(open_ledger(served.settings.ledger_url)), store, EVENTS)
    assert store.read(EVENTS, columns=["event_id"])["event_id"].to_pylist().count("posted-1") == 1


def test_a_clean_process_ranks_through_mlflow_as_http_does(served: Served, tmp_path: Path) -> None:
    profile = {"desired_titles": ["nurse"], "skills": ["patient care"]}
    program = f"""
import json, mlflow, pandas as pd
mlflow.set_tracking_uri({served.settings.tracking_uri!r})
model = mlflow.pyfunc.load_model("models:/rolecall@champion")
out = model.predict(pd.DataFrame([{{"profile": {json.dumps(profile)!r}, "limit": 5}}]))
print("JOBS", json.dumps(list(out["job_id"])))
"""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("ROLECALL_")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reply = served.client.post("/v1/recommendations", json={"profile": profile, "limit": 5}).json()
    assert json.loads(done.stdout.split("JOBS ")[1]) == [item["job_id"] for item in reply["items"]]


def test_a_moved_alias_is_followed_without_a_failed_request_and_recorded_as_ungated(
    served: Served, tmp_path: Path
) -> None:
    registry = Registry.from_settings(served.settings)
    second = publish(registry, built_again(registry.releases.fetch(served.release_id), tmp_path / "again"))
    assert second != served.release_id
    answers: list[httpx.Response] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=served.client.base_url, timeout=30.0) as client:
            while not stop.is_set():
                answers.append(client.post("/v1/recommendations", json={"candidate_id": "cand-000002"}))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        version = registry.get(second).version
        registry.client.set_registered_model_alias("rolecall", "champion", version)
        deadline = time.monotonic() + FOLLOW_SECONDS
        while time.monotonic() < deadline and not (answers and answers[-1].json()["release_id"] == second):
            stop.wait(0.2)
    finally:
        stop.set()
        asking.join()
    assert {answer.status_code for answer in answers} == {200}
    assert answers[-1].json()["release_id"] == second
    last = registry.promotions.history()[-1]
    assert (last.to_release, last.gated) == (second, False)
