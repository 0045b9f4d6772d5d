"""The event log: durable, idempotent, ordered; a drain that a kill can interrupt anywhere."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from rolecall.features.schema import EVENTS
from rolecall.platform.errors import InputError
from rolecall.platform.event_log import AppendResult, EventLog, drain, watermark_name
from rolecall.platform.ledger import open_ledger
from rolecall.platform.tables import TableStore

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
APPEND_FOREVER = """
import sys
from datetime import UTC, datetime
from rolecall.platform.event_log import EventLog
from rolecall.platform.ledger import open_ledger
log = EventLog(open_ledger(sys.argv[1]))
for number in range(10_000):
    log.append([{"event_id": f"e{number}", "candidate_id": "c", "job_id": "j", "kind": "view",
                 "occurred_at": datetime(2026, 3, 1, tzinfo=UTC)}])
    print(number, flush=True)
"""


def event(number: int, **over: Any) -> dict[str, Any]:
    base = {"event_id": f"e{number}", "candidate_id": f"c{number % 3}", "job_id": "j1", "kind": "view"}
    return {**base, "actor": "candidate", "occurred_at": NOON + timedelta(seconds=number), **over}


@pytest.fixture
def log(ledger: Engine) -> EventLog:
    return EventLog(ledger)


def ids(log: EventLog) -> list[str]:
    return [logged.event["event_id"] for logged in log.read_after(0)]


def test_appending_again_changes_nothing(log: EventLog) -> None:
    batch = [event(n) for n in range(5)]
    assert log.append(batch) == AppendResult(accepted=5, duplicate=0)
    before = log.read_after(0)
    assert log.append([*batch, event(9), event(9)]) == AppendResult(accepted=1, duplicate=6)
    assert log.read_after(0)[:5] == before


def test_the_first_event_of_an_id_stays(log: EventLog) -> None:
    log.append([event(1, kind="view"), event(1, kind="apply")])
    log.append([event(1, kind="save")])
    assert [logged.event["kind"] for logged in log.read_after(0)] == ["view"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=5))
def test_accepted_and_duplicate_add_up_and_order_is_first_arrival(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]]
) -> None:
    log = EventLog(open_ledger(f"sqlite:///{tmp_path_factory.mktemp('log') / 'ledger.db'}"))
    seen: list[str] = []
    for batch in batches:
        result = log.append([event(n) for n in batch])
        fresh = [f"e{n}" for n in dict.fromkeys(batch) if f"e{n}" not in seen]
        seen += fresh
        assert (result.accepted, result.duplicate) == (len(fresh), len(batch) - len(fresh))
    assert ids(log) == seen


def test_an_event_comes_back_as_it_was_appended(log: EventLog) -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    given = event(1, occurred_at=NOON.astimezone(zone), position=3, propensity=0.25, extra={"a": [1, "ü"]}, none=None)
    log.append([given])
    logged = log.read_after(0)[0]
    assert logged.event == given
    assert logged.event["occurred_at"].tzinfo is UTC


@pytest.mark.parametrize(
    "bad",
    [
        {"event_id": ""},
        {"event_id": None},
        {"kind": 7},
        {"job_id": "x" * 1001},
        {"candidate_id": "a\x00b"},
        {"candidate_id": "\ud800"},
        {"occurred_at": datetime(2026, 3, 1)},  # noqa: DTZ001 - a time without a zone is the point
        {"occurred_at": "2026-03-01T00:00:00Z"},
        {"extra": object()},
        {"extra": "\ud800"},
    ],
)
def test_one_bad_event_refuses_the_whole_append(log: EventLog, bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        log.append([event(1), event(2, **bad)])
    assert log.read_after(0) == []


def test_pages_show_every_event_once_in_order(log: EventLog) -> None:
    log.append([event(n) for n in range(25)])
    pages, at = [], 0
    while page := log.read_after(at, limit=7):
        pages.append(page)
        at = page[-1].sequence
    assert [len(page) for page in pages] == [7, 7, 7, 4]
    assert [e.event["event_id"] for page in pages for e in page] == [f"e{n}" for n in range(25)]
    assert at == log.last_sequence()


def test_a_reader_beside_concurrent_writers_misses_nothing(log: EventLog) -> None:
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(log.append, [event(100 * w + n) for n in range(3)]) for w in range(40)]
        seen, at = [], 0
        while len(seen) < 120:
            for logged in log.read_after(at, limit=5):
                seen.append(logged.event["event_id"])
                at = logged.sequence
            if all(writer.done() for writer in writers) and at == log.last_sequence():
                break
    assert sorted(seen) == sorted(ids(log))
    assert len(seen) == 120


def test_a_candidates_newest_events_above_a_watermark(log: EventLog) -> None:
    log.append([event(n) for n in range(12)])
    mine = [e.event["event_id"] for e in log.of_candidate("c0", after=3, limit=2)]
    assert mine == ["e6", "e9"]
    assert log.of_candidate("nobody") == []


def test_a_watermark_never_goes_back(log: EventLog) -> None:
    assert log.watermark("w") == 0
    assert [log.advance("w", 5), log.advance("w", 3), log.advance("w", 8)] == [5, 5, 8]
    assert log.watermark("w") == 8
    assert log.watermark("other") == 0


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    child = subprocess.Popen([sys.executable, "-c", APPEND_FOREVER, url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    while int(child.stdout.readline()) < 20:
        pass
    child.send_signal(signal.SIGKILL)
    acknowledged = 21 + len(child.stdout.readlines())
    child.wait()
    stored = ids(EventLog(open_ledger(url)))
    assert stored == [f"e{n}" for n in range(len(stored))]
    assert len(stored) >= acknowledged


def test_a_drain_moves_everything_once(log: EventLog, tmp_path: Path) -> None:
    store = TableStore(str(tmp_path / "tables"))
    assert drain(log, store, EVENTS).version is None
    log.append([event(n, unknown="kept in the log only") for n in range(10)])
    first = drain(log, store, EVENTS, batch=4)
    assert (first.read, first.inserted, first.refused, first.sequence) == (10, 10, (), log.last_sequence())
    again = drain(log, store, EVENTS)
    assert (again.read, again.inserted, again.version) == (0, 0, first.version)
    log.append([event(10)])
    assert drain(log, store, EVENTS).inserted == 1
    rows = store.read(EVENTS).sort_by("occurred_at")
    assert rows["event_id"].to_pylist() == [f"e{n}" for n in range(11)]
    assert rows["occurred_at"].to_pylist() == [NOON + timedelta(seconds=n) for n in range(11)]


class KilledBeforeAdvance(EventLog):
    """Dies where a kill hurts most: the table has the batch, the watermark does not know."""

    def advance(self, name: str, sequence: int) -> int:
        raise KeyboardInterrupt


def test_a_drain_killed_between_commit_and_watermark_repeats_without_effect(log: EventLog, tmp_path: Path) -> None:
    store = TableStore(str(tmp_path / "tables"))
    log.append([event(n) for n in range(10)])
    with pytest.raises(KeyboardInterrupt):
        drain(KilledBeforeAdvance(log.engine), store, EVENTS)
    assert log.watermark(watermark_name(EVENTS)) == 0
    version = store.version(EVENTS.name)
    result = drain(log, store, EVENTS)
    assert (result.read, result.inserted, result.version) == (10, 0, version)
    assert store.read(EVENTS).num_rows == 10


class FailingStore(TableStore):
    """An object store that is away when the drain commits."""

    def upsert(self, *_: Any, **__: Any) -> Any:
        raise ConnectionError


def test_a_drain_whose_commit_fails_leaves_the_watermark(log: EventLog, tmp_path: Path) -> None:
    log.append([event(1)])
    with pytest.raises(ConnectionError):
        drain(log, FailingStore(str(tmp_path / "tables")), EVENTS)
    assert drain(log, TableStore(str(tmp_path / "tables")), EVENTS).inserted == 1


def test_a_posted_event_never_rewrites_one_the_table_knows_from_elsewhere(log: EventLog, tmp_path: Path) -> None:
    store = TableStore(str(tmp_path / "tables"))
    columns = EVENTS.columns.names
    ingested = dict.fromkeys(columns) | {name: value for name, value in event(1).items() if name in columns}
    version = store.upsert(EVENTS, pa.Table.from_pylist([ingested], schema=EVENTS.columns)).version
    log.append([event(1, candidate_id="another", kind="dismiss")])
    result = drain(log, store, EVENTS)
    assert (result.read, result.inserted, result.version) == (1, 0, version)
    assert store.read(EVENTS)["kind"].to_pylist() == [ingested["kind"]]


def test_an_event_the_table_cannot_take_does_not_stop_the_others(log: EventLog, tmp_path: Path) -> None:
    store = TableStore(str(tmp_path / "tables"))
    log.append([event(1), event(2, position="third"), event(3, actor=None), event(4)])
    result = drain(log, store, EVENTS)
    assert [(refused.event_id, refused.sequence) for refused in result.refused] == [("e2", 2), ("e3", 3)]
    assert result.sequence == 4
    assert sorted(store.read(EVENTS)["event_id"].to_pylist()) == ["e1", "e4"]
