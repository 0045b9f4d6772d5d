"""What a server answers from is what the next daily run would learn from; where it is not, the run says so."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from rolecall.features.schema import CANDIDATES, EVENTS
from rolecall.pipelines.daily import run_daily
from rolecall.pipelines.daily_steps import VIEWS
from rolecall.pipelines.materialize import feature_store
from rolecall.pipelines.skew import REPORT, replay
from rolecall.platform.event_log import EventLog
from rolecall.platform.ledger import open_ledger
from rolecall.platform.registry import Registry
from rolecall.platform.served_log import ServedLog
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore
from rolecall.serving.models import Event, EventBatch, RecommendationRequest
from rolecall.serving.state import ServingState

from .conftest import AS_OF, World

DAY = timedelta(days=1)


def serve(settings: Settings, people: list[str], *, name: str) -> None:
    """Each of them asks, looks at what is first, applies to what is second, and asks again."""
    now = [AS_OF]

    def clock() -> object:
        now[0] += timedelta(milliseconds=1)
        return now[0]

    state = ServingState.open(settings, clock=clock)  # type: ignore[arg-type]
    for who in people:
        items = state.recommend(RecommendationRequest(candidate_id=who), f"{name}-{who}-1").items
        did = zip(("view", "apply"), items, strict=False)
        events = [
            Event(
                event_id=f"{name}-{who}-{kind}",
                candidate_id=who,
                job_id=item.job_id,
                kind=kind,
                occurred_at=clock(),
            )
            for kind, item in did
        ]
        state.accept(EventBatch(events=tuple(events)))
        state.recommend(RecommendationRequest(candidate_id=who), f"{name}-{who}-2")
    state.close()


@pytest.mark.slow
def test_what_a_server_answered_from_is_what_the_next_run_learns_from_and_a_planted_skew_is_found(
    world: World, tmp_path: Path
) -> None:
    settings = world.copy(tmp_path / "home")
    settings = settings.model_copy(update={"serve": settings.serve.model_copy(update={"served_share": 1.0})})
    registry = Registry.from_settings(settings)
    if registry.reconcile() is None:
        registry.promote(world.result.release_id, expected=None, why="test", gated=False)
    tables = TableStore(settings.tables_uri)
    active = sorted({*tables.read(EVENTS)["candidate_id"].to_pylist()})
    profiles = sorted({*tables.read(CANDIDATES)["candidate_id"].to_pylist()} - {*active[:12]})
    serve(settings, [*active[:8], *profiles[:2]], name="right")
    # a server set up otherwise than the pipeline
    forgetful = settings.features.model_copy(update={"history_length": 1})
    serve(settings.model_copy(update={"features": forgetful}), active[8:12], name="skewed")

    result = run_daily(settings, AS_OF + DAY)

    run = settings.runs_dir / result.run_id
    report = json.loads((run / "skew" / REPORT).read_text(encoding="utf-8"))
    assert report["requests"] == 28
    assert [name for name, share in report["columns"].items() if share < 1] == ["history"]
    assert result.metrics["skew.worst"] < 1
    log = EventLog(open_ledger(settings.ledger_url))
    served = ServedLog(log.engine).between(AS_OF, AS_OF + DAY, limit=100)
    right = [one for one in served if one.request_id.startswith("right")]
    again = replay(right, store=feature_store(settings, run / "features" / VIEWS), events=log)
    assert (again.requests, again.jobs > 100, again.equal_share) == (20, True, 1.0)
