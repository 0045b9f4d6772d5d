"""Posted events through the real stores: the log, its drain, the online rows and the reader give one context."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from rolecall.features.candidates import candidate_context
from rolecall.features.context import CandidateContext
from rolecall.features.online_store import OnlineStore
from rolecall.features.schema import EVENTS, TABLES
from rolecall.features.views import ViewShape
from rolecall.pipelines.materialize import feature_store, materialize
from rolecall.platform.event_log import EventLog, drain
from rolecall.platform.ledger import open_ledger
from rolecall.platform.settings import FeatureSettings, Settings
from rolecall.platform.tables import TableStore
from rolecall.serving.reader import CandidateReader

MIDNIGHT = datetime(2026, 3, 10, tzinfo=UTC)
NOW = MIDNIGHT + timedelta(hours=12)
HOUR = timedelta(hours=1)
FIRST = [("j1", "impression", -50), ("j2", "impression", -50), ("j1", "click", -49), ("j2", "apply", -30)]
LATE = [("j3", "save", -40), ("j1", "impression", -60), ("j4", "dismiss", -45), ("j9", "view", -24 * 29)]
TODAY = [("j5", "impression", 9), ("j5", "view", 10), ("j5", "apply", 11)]
Told = Sequence[tuple[str, str, int]]


class Board:
    """A home with real stores."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings.model_validate({"home": home})
        self.tables = TableStore(self.settings.tables_uri)
        self.log = EventLog(open_ledger(self.settings.ledger_url))

    def post(self, told: Told) -> None:
        """Events of candidate c, each so many hours from midnight."""
        rows: list[dict[str, Any]] = [
            {"event_id": f"{job}{kind}{hours}", "actor": "candidate", "candidate_id": "c", "job_id": job, "kind": kind}
            | {"occurred_at": MIDNIGHT + hours * HOUR, "dwell_seconds": 1.5}
            for job, kind, hours in told
        ]
        self.log.append(rows)

    def run(self, folder: Path, as_of: datetime = MIDNIGHT) -> bool:
        moved = drain(self.log, self.tables, EVENTS)
        versions = {name: self.tables.version(name) for name in TABLES}
        done = materialize(
            self.tables, versions, as_of=as_of, settings=self.settings, folder=folder, drained=moved.sequence
        )
        return done.online

    def die(self, folder: Path, as_of: datetime, monkeypatch: pytest.MonkeyPatch, *, before: str) -> None:
        """A run that ends in the middle, before it writes the first row of a view."""
        write = OnlineStore._write

        def dies(store: OnlineStore, view: ViewShape, rows: pl.DataFrame, counted: int | None) -> None:
            if view.name == before:
                raise KeyboardInterrupt
            write(store, view, rows, counted)

        with monkeypatch.context() as patched:
            patched.setattr(OnlineStore, "_write", dies)
            with pytest.raises(KeyboardInterrupt):
                self.run(folder, as_of)

    def served(self, at: datetime = NOW) -> CandidateContext:
        store = feature_store(self.settings)
        length = self.settings.features.history_length
        return CandidateReader(store, self.log, history_length=length).read("c", at)

    def learned(self, folder: Path, at: datetime = NOW) -> CandidateContext:
        store = feature_store(self.settings, folder)
        return candidate_context("c", store.historical_candidates(["c"], [at], "ranker_full")[0], at=at)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "home")


def test_what_is_served_at_any_time_is_what_is_learned_later(board: Board, tmp_path: Path) -> None:
    """Before any run, after one, after late posts, after today's: each time the same as once all is drained."""
    board.post(FIRST)
    before_any_run = board.served(MIDNIGHT)
    assert board.run(tmp_path / "first")
    assert board.served(MIDNIGHT) == before_any_run == board.learned(tmp_path / "first", MIDNIGHT)
    board.post(LATE)
    board.post(LATE)  # a phone that asks twice
    board.post(TODAY)
    served = board.served()
    assert served.activity["candidate_applies_1d"] == 1
    assert served.activity["candidate_views_30d"] == 2
    assert served.history[-1] == "j5"
    assert board.run(tmp_path / "next", NOW)
    assert board.learned(tmp_path / "next") == served == board.served()


def test_a_run_of_a_past_day_changes_nothing_of_what_is_served(board: Board, tmp_path: Path) -> None:
    board.post(FIRST)
    assert board.run(tmp_path / "first")
    board.post(LATE)
    served = board.served()
    assert not board.run(tmp_path / "past", MIDNIGHT - timedelta(days=3))
    assert board.served() == served


@pytest.mark.parametrize("before", ["candidate_history", "candidate_activity"])
def test_a_run_that_dies_while_it_writes_counts_nothing_twice_and_misses_nothing(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    board.post(FIRST)
    board.run(tmp_path / "first")
    board.post([*LATE, *TODAY])
    expected = board.served()
    board.die(tmp_path / "dies", NOW, monkeypatch, before=before)
    assert board.served() == expected
    board.post([("j6", "view", -20), ("j6", "apply", 11)])  # one of them late
    then = board.served()
    assert then.activity["candidate_applies_total"] == expected.activity["candidate_applies_total"] + 1
    assert board.run(tmp_path / "again", NOW)
    assert board.served() == then == board.learned(tmp_path / "again")


def test_after_a_first_run_on_an_empty_log_a_late_event_counts(board: Board, tmp_path: Path) -> None:
    file = [
        {"event_id": f"f{kind}", "actor": "candidate", "candidate_id": "c", "job_id": "j1", "kind": kind}
        | {"occurred_at": MIDNIGHT - 5 * HOUR}
        for kind in ("view", "click")
    ]
    board.tables.upsert(EVENTS, pa.Table.from_pylist(file, schema=EVENTS.columns))
    assert board.run(tmp_path / "first")
    board.post(LATE)
    served = board.served()
    assert served.activity["candidate_saves_30d"] == 1
    assert board.run(tmp_path / "next", NOW)
    assert board.learned(tmp_path / "next") == served


def test_a_run_of_the_same_day_that_drained_less_does_not_take_back_what_another_told(
    board: Board, tmp_path: Path
) -> None:
    board.post(FIRST)
    drained = drain(board.log, board.tables, EVENTS).sequence
    versions = {name: board.tables.version(name) for name in TABLES}
    board.post(LATE)
    assert board.run(tmp_path / "second")
    told = board.served()
    shorter = board.settings.model_copy(update={"features": FeatureSettings(history_length=5)})
    earlier = materialize(
        board.tables, versions, as_of=MIDNIGHT, settings=shorter, folder=tmp_path / "first", drained=drained
    )
    assert not earlier.online
    assert board.served() == told == board.learned(tmp_path / "second")


def test_an_event_that_came_by_file_and_by_post_counts_once(board: Board, tmp_path: Path) -> None:
    board.post(FIRST)
    assert board.run(tmp_path / "first")
    told = board.served(MIDNIGHT)
    by_file = {"event_id": "twice", "actor": "candidate", "candidate_id": "c", "job_id": "j1", "kind": "view"}
    by_file |= {"occurred_at": MIDNIGHT - 20 * HOUR, "dwell_seconds": 1.5}
    board.tables.upsert(EVENTS, pa.Table.from_pylist([by_file], schema=EVENTS.columns))
    assert board.run(tmp_path / "second")
    board.log.append([by_file])
    assert board.run(tmp_path / "third")
    again = board.served(MIDNIGHT)
    assert again == board.learned(tmp_path / "third", MIDNIGHT)
    assert again.activity["candidate_views_30d"] == told.activity["candidate_views_30d"] + 1
