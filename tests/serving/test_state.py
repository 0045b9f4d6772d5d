"""What one serving process answers, over a small real release and a real event log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rolecall.features.embedder import Embedder
from rolecall.features.stamped_columns import StampedColumns, stamped
from rolecall.features.views import VIEWS
from rolecall.platform.errors import InputError, UnavailableError
from rolecall.platform.event_log import EventLog
from rolecall.platform.ledger import open_ledger
from rolecall.platform.release import Manifest
from rolecall.platform.settings import EmbedderSettings, load_settings
from rolecall.serving.follow import Follower, ReleaseSlot
from rolecall.serving.funnel import JobFeatureSource
from rolecall.serving.job_features import JobFeatureRefresher, use_online_job_features
from rolecall.serving.loader import LoadedRelease
from rolecall.serving.models import Event, EventBatch, Filters, Profile, RecommendationRequest, SearchRequest
from rolecall.serving.pyfunc_model import ReleaseModel
from rolecall.serving.reader import CandidateReader
from rolecall.serving.state import ServingState

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NURSE = Profile(desired_titles=("night nurse",), skills=("triage",), city="Berlin", country="DE")


class NothingStored:
    """An online store without a row."""

    def online_candidates(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Mapping[str, object]]:
        return [{"recent_job_ids": None, "last_engaged_us": None} for _ in candidate_ids]


ROWS = np.arange(3, dtype=np.int32)
RATING = next(view for view in VIEWS if view.name == "employer_rating")


class StoredRatings:
    """An online store that knows `value` of every job since `NOON`, or nothing; `ttl`: of what it knows."""

    def __init__(self, value: float, *, ttl: timedelta = timedelta(0)) -> None:
        self.value, self.ttl = value, ttl
        self.version = 0
        self.reads = 0

    def online_version(self) -> int:
        return self.version

    def materialized_through(self) -> datetime:
        return NOON

    def counted_through(self) -> int:
        return 0

    def online_job_columns(
        self, job_ids: Sequence[str], employer_ids: Sequence[str | None]
    ) -> tuple[StampedColumns, ...]:
        self.reads += 1
        values = {name: [self.value] * len(job_ids) for name in RATING.numbers}
        return (replace(stamped(RATING, [NOON] * len(job_ids), values), ttl=self.ttl),)


@pytest.fixture
def release(board) -> LoadedRelease:
    manifest = Manifest(id="small", as_of=NOON, code_version="test", tables={}, settings={}, parts=())
    embedder = Embedder(EmbedderSettings())
    index = board.funnel.recall.index
    return LoadedRelease(manifest=manifest, funnel=board.funnel, search=board.search, embedder=embedder, index=index)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))


@pytest.fixture
def reader(log: EventLog) -> CandidateReader:
    return CandidateReader(NothingStored(), log, history_length=20)


@pytest.fixture
def state(release: LoadedRelease, reader: CandidateReader, log: EventLog) -> ServingState:
    slot: ReleaseSlot[LoadedRelease] = ReleaseSlot()
    follower = Follower(champion=lambda: "small", load=lambda _: release, slot=slot, interval_s=1.0)
    follower.step()
    return ServingState(slot=slot, follower=follower, reader=reader, events=log, clock=lambda: NOON)


def event(name: str, **over: Any) -> Event:
    fields = {"event_id": name, "candidate_id": "c1", "job_id": "job002", "kind": "apply"}
    return Event.model_validate({**fields, "occurred_at": NOON - timedelta(minutes=1), **over})


def test_a_profile_is_answered_from_content_with_a_trace_of_every_stage(state: ServingState) -> None:
    reply = state.recommend(RecommendationRequest(profile=NURSE, limit=5), "r1")
    assert (reply.request_id, reply.release_id, reply.known) == ("r1", "small", False)
    assert all("nurse" in item.title for item in reply.items)
    assert [item.position for item in reply.items] == [1, 2, 3, 4, 5]
    assert [stage.stage for stage in reply.trace] == ["context", "features", "recall", "coarse", "fine", "rerank"]


def test_an_id_nobody_knows_is_answered_all_the_same(state: ServingState) -> None:
    reply = state.recommend(RecommendationRequest(candidate_id="stranger", limit=3), "r1")
    assert (reply.known, len(reply.items)) == (False, 3)


def test_filters_hold_for_every_job_of_the_answer(state: ServingState, board) -> None:
    filters = Filters(cities=("Munich",), remote=True)
    reply = state.recommend(RecommendationRequest(profile=NURSE, filters=filters, limit=3), "r1")
    rows = [board.catalogue.row_of(item.job_id) for item in reply.items]
    chosen = board.table.take(rows).to_pylist()
    assert chosen
    assert {(job["city"], job["remote"]) for job in chosen} == {("Munich", True)}


def test_a_job_applied_to_a_moment_ago_is_not_shown_again(state: ServingState) -> None:
    request = RecommendationRequest(candidate_id="c1", profile=NURSE, limit=5)
    first = state.recommend(request, "r1").items[0].job_id
    state.accept(EventBatch(events=(event("e1", job_id=first),)))
    reply = state.recommend(request, "r1")
    assert reply.known
    assert first not in [item.job_id for item in reply.items]


def test_a_search_carries_snippets(state: ServingState) -> None:
    reply = state.search(SearchRequest(text="night nurse", limit=3), "r1")
    assert (reply.request_id, reply.release_id, len(reply.items)) == ("r1", "small", 3)
    assert all("nurse" in item.snippet for item in reply.items)


def test_every_event_is_accepted_or_duplicate_and_is_in_the_log(state: ServingState, log: EventLog) -> None:
    first = state.accept(EventBatch(events=(event("e1"), event("e2"), event("e1"))))
    again = state.accept(EventBatch(events=(event("e2"), event("e3"))))
    assert (first.accepted, first.duplicate) == (2, 1)
    assert (again.accepted, again.duplicate) == (1, 1)
    assert sorted(logged.event["event_id"] for logged in log.read_after(0)) == ["e1", "e2", "e3"]


def test_one_event_that_breaks_a_rule_refuses_the_batch(state: ServingState, log: EventLog) -> None:
    with pytest.raises(InputError, match="/events/1"):
        state.accept(EventBatch(events=(event("e1"), event("e2", actor="employer", kind="apply"))))
    assert log.read_after(0) == []


def test_readiness_names_the_release(state: ServingState) -> None:
    readiness = state.readiness()
    assert (readiness.ready, readiness.release_id, readiness.checks) == (True, "small", {"release": "ok"})


def test_a_new_home_opens_and_is_not_ready(tmp_path: Path) -> None:
    state = ServingState.open(load_settings(environ={"ROLECALL_HOME": str(tmp_path / "home")}))
    try:
        assert not state.readiness().ready
        with pytest.raises(UnavailableError, match="rolecall run daily"):
            state.recommend(RecommendationRequest(candidate_id="c1"), "r1")
    finally:
        state.close()


@pytest.fixture
def built(release: LoadedRelease) -> Iterator[JobFeatureSource]:
    """The job features of the release as it was built, which come back after the test."""
    before = release.funnel.job_features
    yield before
    release.funnel.job_features = before


def ratings(release: LoadedRelease, at: datetime) -> list[float]:
    return [float(value) for value in release.funnel.job_features.read(ROWS, at=at)["employer_rating"]]


def test_online_job_features_replace_the_built_ones_only_where_there_are_any(
    release: LoadedRelease, built: JobFeatureSource
) -> None:
    use_online_job_features(release, StoredRatings(float("nan")))
    assert release.funnel.job_features is built
    use_online_job_features(release, StoredRatings(4.0))
    assert ratings(release, NOON) == [4.0, 4.0, 4.0]


def test_a_job_feature_past_its_ttl_is_missing_although_it_is_held(
    release: LoadedRelease, built: JobFeatureSource
) -> None:
    use_online_job_features(release, StoredRatings(4.0, ttl=timedelta(days=2)))
    assert ratings(release, NOON + timedelta(days=2)) == [4.0, 4.0, 4.0]
    assert np.isnan(ratings(release, NOON + timedelta(days=2, microseconds=1))).all()
    assert np.isnan(ratings(release, NOON - timedelta(microseconds=1))).all()


def test_what_a_run_told_the_store_is_served_after_one_step_and_read_once(
    release: LoadedRelease, built: JobFeatureSource
) -> None:
    slot: ReleaseSlot[LoadedRelease] = ReleaseSlot()
    store = StoredRatings(4.0)
    refresher = JobFeatureRefresher(slot, store, interval_s=1.0)
    assert not refresher.step(), "no release is loaded"
    slot.swap("small", release)
    assert refresher.step()
    assert not refresher.step()
    store.value = 5.0
    assert not refresher.step(), "nothing was said to have changed"
    store.version += 1
    assert refresher.step()
    assert ratings(release, NOON) == [5.0, 5.0, 5.0]
    assert store.reads == 2


def test_a_store_that_cannot_be_read_leaves_the_old_columns(release: LoadedRelease, built: JobFeatureSource) -> None:
    slot: ReleaseSlot[LoadedRelease] = ReleaseSlot()
    slot.swap("small", release)
    store = StoredRatings(4.0)
    refresher = JobFeatureRefresher(slot, store, interval_s=1.0)
    assert refresher.step()
    store.version, store.value = 1, "broken"  # type: ignore[assignment]
    assert not refresher.step()
    assert ratings(release, NOON) == [4.0, 4.0, 4.0]
    store.value = 3.0
    assert refresher.step()
    assert ratings(release, NOON) == [3.0, 3.0, 3.0]


@pytest.fixture
def model(release: LoadedRelease, reader: CandidateReader) -> ReleaseModel:
    model = ReleaseModel()
    model._release, model._reader = release, reader
    return model


def test_the_mlflow_model_ranks_as_http_does(model: ReleaseModel, state: ServingState) -> None:
    asked = pd.DataFrame({"candidate_id": ["c1", None], "profile": [None, NURSE.model_dump_json()]})
    answer = model.predict(None, asked, {"limit": 4, "at": NOON.isoformat()})
    for row, request in enumerate(
        (RecommendationRequest(candidate_id="c1", limit=4), RecommendationRequest(profile=NURSE, limit=4))
    ):
        reply = state.recommend(request, f"row-{row}")
        lines = answer[answer["row"] == row]
        assert lines["job_id"].tolist() == [item.job_id for item in reply.items]
        assert lines["score"].tolist() == [item.score for item in reply.items]


def test_the_mlflow_model_takes_a_limit_a_row(model: ReleaseModel) -> None:
    asked = pd.DataFrame({"profile": [NURSE.model_dump_json()] * 2, "limit": [1, 2]})
    assert model.predict(None, asked, {"at": NOON.isoformat()})["row"].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("row", "params"),
    [
        ({"candidate_id": None}, None),
        ({"profile": "{"}, None),
        ({"profile": '{"age": 7}'}, None),
        ({"candidate_id": "c1"}, {"colour": "red"}),
        ({"candidate_id": "c1"}, {"at": "2026-03-01T12:00:00"}),
        ({"candidate_id": "c1"}, {"limit": 0}),
    ],
)
def test_the_mlflow_model_refuses_what_is_no_request(
    model: ReleaseModel, row: dict[str, object], params: dict[str, object] | None
) -> None:
    with pytest.raises(InputError):
        model.predict(None, pd.DataFrame([row]), params)
