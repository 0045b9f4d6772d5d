"""The HTTP interface over a plain in-memory backend, through the real application stack."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from rolecall.platform.errors import ConflictError, InputError, IntegrityError, NotFoundError, UnavailableError
from rolecall.platform.settings import ServeSettings
from rolecall.serving.api import create_api
from rolecall.serving.models import (
    EventBatch,
    EventReceipt,
    FoundJob,
    PeopleReply,
    PeopleRequest,
    Readiness,
    RecommendationReply,
    RecommendationRequest,
    RecommendedJob,
    RecommendedPerson,
    SearchReply,
    SearchRequest,
    Stage,
)

EVENT = {
    "event_id": "e1",
    "candidate_id": "c1",
    "job_id": "j1",
    "kind": "apply",
    "occurred_at": "2026-11-02T09:30:00Z",
}


LANGUAGE_MODEL = ("/v1/answers", "/v1/chat/completions", "/v1/completions", "/v1/tokenize")
"""Paths that are 503 here: no model is loaded."""


class MemoryBackend:
    """Two jobs, one known candidate, a dictionary of events."""

    def __init__(self) -> None:
        self.events: dict[str, object] = {}
        self.ready = True
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def recommend(self, request: RecommendationRequest, request_id: str) -> RecommendationReply:
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        jobs = [("j1", "Nurse", 0.4), ("j2", "Midwife", 0.3)][: request.limit]
        return RecommendationReply(
            request_id=request_id,
            release_id="r1",
            known=request.candidate_id == "c1",
            items=tuple(
                RecommendedJob(
                    job_id=job,
                    title=title,
                    employer=None,
                    place="Berlin",
                    score=score,
                    position=n,
                    propensity=1.0,
                    reasons=("matches your skills",),
                )
                for n, (job, title, score) in enumerate(jobs, 1)
            ),
            trace=(Stage(stage="recall", count_in=20, count_out=2, milliseconds=1.5),),
        )

    def people(self, job_id: str, request: PeopleRequest, request_id: str) -> PeopleReply:
        if self.error is not None:
            raise self.error
        if job_id != "j1" and request.job is None:
            raise NotFoundError(f"release r1 does not hold job {job_id}")
        found = RecommendedPerson(
            candidate_id="c7", score=0.4, position=1, propensity=1.0, reasons=("has 2 of 3 skills: triage, care",)
        )
        trace = (Stage(stage="recall", count_in=20, count_out=2, milliseconds=1.5),)
        return PeopleReply(
            request_id=request_id, release_id="r1", known=job_id == "j1", trained=True, items=(found,), trace=trace
        )

    def search(self, request: SearchRequest, request_id: str) -> SearchReply:
        hit = FoundJob(
            job_id="j1", title="Nurse", employer=None, place=None, score=1.0, position=1, snippet=request.text
        )
        return SearchReply(request_id=request_id, release_id="r1", items=(hit,), milliseconds=0.5)

    def accept(self, batch: EventBatch) -> EventReceipt:
        fresh = {event.event_id: event for event in batch.events if event.event_id not in self.events}
        self.events.update(fresh)
        return EventReceipt(accepted=len(fresh), duplicate=len(batch.events) - len(fresh))

    def readiness(self) -> Readiness:
        return Readiness(ready=self.ready, release_id="r1", checks={} if self.ready else {"release": "none promoted"})

    def gauges(self) -> bytes:
        return b"rolecall_schedule_missed_days 0.0\n"


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def client(backend: MemoryBackend) -> Iterator[TestClient]:
    with TestClient(create_api(backend, ServeSettings())) as client:
        yield client


def is_problem(response, status: int) -> bool:
    body = response.json()
    return (
        response.status_code == status
        and response.headers["content-type"] == "application/problem+json"
        and body["status"] == status
        and body["title"]
        and body["detail"]
    )


def test_a_recommendation_carries_items_trace_and_release(client: TestClient) -> None:
    reply = client.post("/v1/recommendations", json={"candidate_id": "c1", "limit": 1}).json()
    assert [item["job_id"] for item in reply["items"]] == ["j1"]
    assert reply["trace"][0] == {"stage": "recall", "count_in": 20, "count_out": 2, "milliseconds": 1.5}
    assert (reply["release_id"], reply["known"]) == ("r1", True)


def test_an_unknown_candidate_is_answered_and_told_so(client: TestClient) -> None:
    reply = client.post("/v1/recommendations", json={"candidate_id": "stranger"}).json()
    assert reply["known"] is False
    assert reply["items"]


def test_people_for_a_job_carry_reasons_and_trace(client: TestClient) -> None:
    reply = client.post("/v1/jobs/j1/candidates", json={"limit": 1}).json()
    assert [item["candidate_id"] for item in reply["items"]] == ["c7"]
    assert (reply["known"], reply["trained"], reply["trace"][0]["stage"]) == (True, True, "recall")


def test_a_job_nobody_knows_is_not_found_unless_it_is_described(client: TestClient) -> None:
    assert is_problem(client.post("/v1/jobs/j9/candidates", json={}), 404)
    reply = client.post("/v1/jobs/j9/candidates", json={"job": {"title": "Nurse"}}).json()
    assert (reply["known"], len(reply["items"])) == (False, 1)


def test_a_release_without_people_is_a_conflict(client: TestClient, backend: MemoryBackend) -> None:
    backend.error = ConflictError("release r1 recommends no people")
    assert is_problem(client.post("/v1/jobs/j1/candidates", json={}), 409)


def test_a_search_finds(client: TestClient) -> None:
    assert client.post("/v1/search", json={"text": "nurse"}).json()["items"][0]["snippet"] == "nurse"


def test_events_are_answered_202_and_counted_once(client: TestClient, backend: MemoryBackend) -> None:
    first = client.post("/v1/events", json={"events": [EVENT]})
    again = client.post("/v1/events", json={"events": [EVENT]})
    assert (first.status_code, first.json()) == (202, {"accepted": 1, "duplicate": 0, "dropped": 0})
    assert (again.status_code, again.json()) == (202, {"accepted": 0, "duplicate": 1, "dropped": 0})
    assert list(backend.events) == ["e1"]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/recommendations", {}, ""),
        ("/v1/recommendations", {"candidate_id": ""}, "/candidate_id"),
        ("/v1/recommendations", {"candidate_id": "a\x00b"}, "/candidate_id"),
        ("/v1/recommendations", {"candidate_id": "c1", "limit": 0}, "/limit"),
        ("/v1/recommendations", {"candidate_id": "c1", "limit": "ten"}, "/limit"),
        ("/v1/recommendations", {"candidate_id": "c1", "colour": 1}, "/colour"),
        ("/v1/recommendations", {"profile": {"lat": 91, "lon": 0}}, "/profile/lat"),
        ("/v1/recommendations", {"profile": {"lat": 1}}, "/profile"),
        ("/v1/recommendations", {"candidate_id": "c1", "filters": {"seniorities": ["boss"]}}, "/filters/seniorities/0"),
        ("/v1/jobs/j1/candidates", {"limit": 0}, "/limit"),
        ("/v1/jobs/j1/candidates", {"job": {"skills": ["sql"]}}, "/job/title"),
        ("/v1/jobs/j1/candidates", {"filters": {"remote": True}}, "/filters/remote"),
        ("/v1/jobs/j1/candidates", {"filters": {"active_since": "2026-03-01T00:00:00"}}, "/filters/active_since"),
        ("/v1/search", {"text": "  "}, "/text"),
        ("/v1/search", {"text": "x" * 1001}, "/text"),
        ("/v1/events", {"events": []}, "/events"),
        ("/v1/events", {"events": [{**EVENT, "occurred_at": "2026-11-02T09:30:00"}]}, "/events/0/occurred_at"),
        ("/v1/events", {"events": [{**EVENT, "kind": "wink"}]}, "/events/0/kind"),
        ("/v1/events", {"events": [{**EVENT, "propensity": 0}]}, "/events/0/propensity"),
        ("/v1/events", {"events": [EVENT] * 1001}, "/events"),
    ],
)
def test_wrong_input_is_422_and_points_at_the_field(client: TestClient, path: str, body: object, pointer: str) -> None:
    response = client.post(path, json=body)
    assert is_problem(response, 422)
    assert pointer in [error["pointer"] for error in response.json()["errors"]]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"candidate_id": "\xff"}', b'{"candidate_id": "\\ud800"}',
     b"[" * 100_000, b'{"candidate_id": "c1", "limit": ' + b"9" * 5000 + b"}",
     b'{"candidate_id": "c1", "limit": NaN}', b'{"profile": {"lat": Infinity, "lon": 0}}'],
)  # fmt: skip
def test_bytes_that_are_no_request_are_422(client: TestClient, body: bytes) -> None:
    response = client.post("/v1/recommendations", content=body, headers={"content-type": "application/json"})
    assert is_problem(response, 422)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["candidate_id", "profile", "filters", "limit", "skills", "near", "events"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["recommendations", "search", "events"]), body=json_values)
def test_no_json_at_all_makes_the_server_fail(client: TestClient, path: str, body: object) -> None:
    raw = json.dumps(body).encode("utf-8", "surrogatepass")
    response = client.post(f"/v1/{path}", content=raw, headers={"content-type": "application/json"})
    assert response.status_code in (200, 202) or is_problem(response, 422)


def test_a_limit_above_the_setting_is_422(client: TestClient) -> None:
    response = client.post("/v1/recommendations", json={"candidate_id": "c1", "limit": 101})
    assert is_problem(response, 422)
    assert "100" in response.json()["detail"]


def test_a_body_that_is_too_large_is_413(client: TestClient) -> None:
    response = client.post("/v1/search", content=b"x" * (4 * 1024 * 1024 + 1))
    assert is_problem(response, 413)


def test_a_body_of_undeclared_length_is_cut_off_at_the_limit(client: TestClient) -> None:
    chunks = (b"x" * 1024 * 1024 for _ in range(6))
    response = client.post("/v1/search", content=chunks, headers={"content-type": "application/json"})
    assert is_problem(response, 413)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/v1/search", 405), ("POST", "/healthz", 405)]
)
def test_unknown_paths_and_methods_are_problems(client: TestClient, method: str, path: str, status: int) -> None:
    assert is_problem(client.request(method, path), status)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("job x", "a job of the release"), 422),
        (NotFoundError("no release"), 404),
        (ConflictError("moved"), 409),
        (UnavailableError("no release is promoted", todo="rolecall run daily"), 503),
        (IntegrityError("sha256 differs"), 500),
        (ZeroDivisionError("secret"), 500),
    ],
)
def test_each_error_of_the_tree_has_its_status(
    client: TestClient, backend: MemoryBackend, error: Exception, status: int
) -> None:
    backend.error = error
    response = client.post("/v1/recommendations", json={"candidate_id": "c1"})
    assert is_problem(response, status)
    assert "secret" not in response.text
    assert ("retry-after" in response.headers) == (status == 503)


def test_readiness_is_503_with_the_missing_part_until_ready(client: TestClient, backend: MemoryBackend) -> None:
    assert client.get("/readyz").json()["release_id"] == "r1"
    backend.ready = False
    response = client.get("/readyz")
    assert is_problem(response, 503)
    assert response.json()["errors"] == [{"pointer": "release", "detail": "none promoted"}]
    assert client.get("/healthz").status_code == 200


def test_a_well_formed_request_id_is_kept_and_another_replaced(client: TestClient) -> None:
    kept = client.post("/v1/recommendations", json={"candidate_id": "c1"}, headers={"X-Request-ID": "r-1"})
    made = client.post("/v1/recommendations", json={"candidate_id": "c1"}, headers={"X-Request-ID": "a b<script>"})
    assert kept.headers["x-request-id"] == kept.json()["request_id"] == "r-1"
    assert len(made.json()["request_id"]) == 32


def test_a_problem_names_the_request(client: TestClient) -> None:
    assert client.post("/v1/search", json={}, headers={"X-Request-ID": "r-2"}).json()["request_id"] == "r-2"


def test_keys_guard_answers_and_not_operation(backend: MemoryBackend) -> None:
    with TestClient(create_api(backend, ServeSettings(api_keys=("one", "two")))) as client:
        body = {"text": "nurse"}
        assert is_problem(client.post("/v1/search", json=body), 401)
        assert is_problem(client.post("/v1/search", json=body, headers={"Authorization": "Bearer three"}), 401)
        assert client.post("/v1/search", json=body, headers={"Authorization": "Bearer two"}).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_metrics_count_answers_stages_and_events(client: TestClient) -> None:
    client.post("/v1/recommendations", json={"candidate_id": "c1"})
    client.post("/v1/recommendations", json={})
    client.post("/v1/events", json={"events": [EVENT]})
    client.post("/v1/events", json={"events": [EVENT]})
    text = client.get("/metrics").text
    assert 'rolecall_http_requests_total{route="/v1/recommendations",status="200"} 1.0' in text
    assert 'rolecall_http_requests_total{route="/v1/recommendations",status="422"} 1.0' in text
    assert 'rolecall_stage_seconds_count{stage="recall"} 1.0' in text
    assert 'rolecall_events_total{outcome="duplicate"} 1.0' in text
    assert 'rolecall_release{release_id="r1"} 1.0' in text
    assert "rolecall_schedule_missed_days 0.0" in text


def test_what_one_among_several_replicas_counts_names_it_in_every_sample(backend: MemoryBackend) -> None:
    with TestClient(create_api(backend, ServeSettings(), replica="r-1")) as client:
        client.post("/v1/recommendations", json={"candidate_id": "c1"})
        samples = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    own = [sample for sample in samples if not sample.startswith("rolecall_schedule_")]  # the ledger's, alike in all
    assert own
    assert all('replica="r-1"' in sample for sample in own)


def test_every_described_example_is_answered(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    tried = 0
    for path, item in schema["paths"].items():
        if "post" not in item:
            continue
        reference = item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for example in schema["components"]["schemas"][reference.rsplit("/", 1)[1]]["examples"]:
            expected = (503,) if path in LANGUAGE_MODEL else (200, 202)
            assert client.post(path.format(job_id="j1"), json=example).status_code in expected
            tried += 1
    assert tried >= 4


def test_the_description_names_problem_details_for_refusals(client: TestClient) -> None:
    post = client.get("/openapi.json").json()["paths"]["/v1/recommendations"]["post"]
    assert set(post["responses"]) == {"200", "413", "422", "503", "504"}
    assert "application/problem+json" in post["responses"]["422"]["content"]


def test_a_full_lane_refuses_with_retry_after(backend: MemoryBackend) -> None:
    small = ServeSettings(max_ongoing_requests=1, max_queued_requests=1)
    with TestClient(create_api(backend, small)) as client:
        backend.gate.clear()
        replies: list[int] = []

        def ask() -> None:
            replies.append(client.post("/v1/recommendations", json={"candidate_id": "c1"}).status_code)

        askers = [threading.Thread(target=ask) for _ in range(2)]
        for asker in askers:
            asker.start()
        lane = client.app.state.routes.ranking  # type: ignore[attr-defined]
        while lane.inside < 2:
            threading.Event().wait(0.001)
        refused = client.post("/v1/recommendations", json={"candidate_id": "c1"})
        assert is_problem(refused, 503)
        assert refused.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200
        backend.gate.set()
        for asker in askers:
            asker.join()
        assert replies == [200, 200]


def test_a_passed_deadline_is_504(backend: MemoryBackend) -> None:
    with TestClient(create_api(backend, ServeSettings(request_timeout_s=0.05))) as client:
        backend.gate.clear()
        response = client.post("/v1/recommendations", json={"candidate_id": "c1"})
        backend.gate.set()
        assert is_problem(response, 504)
