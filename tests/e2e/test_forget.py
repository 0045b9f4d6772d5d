"""After `forget` nothing that a whole daily run and a server left behind names the person: every file, decoded."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from rolecall.features.quarantine import keep, unread_rows
from rolecall.features.schema import CANDIDATES, EVENTS
from rolecall.pipelines.daily import run_daily
from rolecall.pipelines.lifecycle.forget import forget
from rolecall.platform.file_tree import FileTree
from rolecall.platform.registry import Registry
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore
from rolecall.serving.models import EventBatch, RecommendationRequest
from rolecall.serving.state import ServingState
from tests.traces import by_store, traces

from .conftest import AS_OF, World

pytestmark = pytest.mark.slow

CANARY = "cänary-7'x\"y 猫"
TEXT = "Zwölf Jahre Erfahrung als Glockengießer in Nürnberg"
WANTED = (CANARY, TEXT)


def become_the_canary(settings: Settings) -> None:
    """The most active candidate gets the canary's name and text in every table."""
    store = TableStore(settings.tables_uri)
    events = store.read(EVENTS)
    names = events["candidate_id"].to_pylist()
    chosen = max(sorted(set(names)), key=names.count)
    renamed = [CANARY if name == chosen else name for name in names]
    at = events.column_names.index("candidate_id")
    store.replace(EVENTS, events.set_column(at, "candidate_id", pa.array(renamed)))
    profiles = [
        row | {"candidate_id": CANARY, "resume_text": TEXT} if row["candidate_id"] == chosen else row
        for row in store.read(CANDIDATES).to_pylist()
    ]
    store.replace(CANDIDATES, pa.Table.from_pylist(profiles, schema=CANDIDATES.columns))
    refused = unread_rows("a.csv", "events", [(1, "ragged_row", "5 fields", f"x;{CANARY};y")])
    keep(store, [("a.csv", "events")], refused, at=AS_OF)


def posted(state: ServingState, number: int) -> int:
    event = {
        "event_id": f"posted-{number}",
        "candidate_id": CANARY,
        "job_id": "job-000001",
        "kind": "view",
        "occurred_at": (AS_OF + timedelta(hours=1)).isoformat(),
    }
    return state.accept(EventBatch.model_validate({"events": [event]})).dropped


@pytest.mark.timeout(1200)
def test_after_forget_no_file_names_the_person_and_the_server_has_followed(world: World, tmp_path: Path) -> None:
    settings = world.copy(tmp_path / "home")
    become_the_canary(settings)
    first = run_daily(settings, AS_OF + timedelta(minutes=1))
    registry, home = Registry.from_settings(settings), FileTree(str(settings.home))
    if not first.promoted:
        registry.promote(first.release_id, expected=registry.reconcile(), why="the test needs it", gated=False)
    request = RecommendationRequest(candidate_id=CANARY, limit=5)
    state = ServingState.open(settings, clock=lambda: AS_OF + timedelta(hours=2))
    try:
        assert posted(state, 1) == 0
        assert state.recommend(request, "r-1").known
        (settings.home / "serve.log").write_text(f"asked for {CANARY}\n", encoding="utf-8")
        before = traces(home, WANTED)
        stores = by_store(before)
        assert {"tables", "ledger.db", "feast", "runs", "serve.log"} <= stores

        report = forget(settings, CANARY, at=AS_OF + timedelta(days=1), ungated=True)

        assert (report.stage, report.serving_tainted) == ("done", False)
        assert first.release_id in report.purged
        assert state._follower.step()
        assert not state.recommend(request, "r-2").known
        assert posted(state, 2) == 1
        assert state._slot.open_releases == 1
        assert traces(home, WANTED) == {}
        assert registry.champion() == report.rebuilt == state.readiness().release_id
    finally:
        state.close()
    assert not (home.files(f"artifacts/releases/{first.release_id}/release"))
    kept = {info.release_id: info.taint for info in registry.list()}
    assert kept[first.release_id] is not None
    assert kept[str(report.rebuilt)] is None
