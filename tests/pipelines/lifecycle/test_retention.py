"""Retention removes what is older than was said, and nothing else; a rule that is 0 keeps everything."""

from __future__ import annotations

import os
from datetime import timedelta

from rolecall.features.schema import CANDIDATES, EVENTS, QUARANTINE
from rolecall.pipelines.lifecycle.retention import apply_retention
from rolecall.platform.doctor import check_duties
from rolecall.platform.event_log import EventLog, drain
from rolecall.platform.file_tree import FileTree
from rolecall.platform.forgotten import ForgottenPeople
from rolecall.platform.ledger import open_ledger
from rolecall.platform.settings import RetentionSettings, Settings
from rolecall.platform.tables import TableStore
from tests.traces import by_store, traces

from .conftest import CANARY, DAY, OTHER


def with_rules(settings: Settings, **rules: int) -> Settings:
    return settings.model_copy(update={"retention": RetentionSettings(**({"served_days": 0} | rules))})


def removed(settings: Settings, *, days: float, dry_run: bool = False) -> dict[str, int]:
    report = apply_retention(settings, at=DAY + timedelta(days=days), dry_run=dry_run)
    return {one.rule: one.removed for one in report.expired}


def test_without_rules_nothing_goes(settings: Settings) -> None:
    assert removed(with_rules(settings), days=10_000) == {}


def test_unless_told_otherwise_what_requests_were_answered_from_goes_after_a_month(settings: Settings) -> None:
    assert removed(settings, days=29) == {"served_days": 0}
    assert removed(settings, days=31) == {"served_days": 2}


def test_events_go_by_when_they_occurred_from_table_log_and_history(settings: Settings) -> None:
    ruled, store = with_rules(settings, events_days=10), TableStore(settings.tables_uri)
    log = EventLog(open_ledger(settings.ledger_url))
    drain(log, store, EVENTS)
    after_two_hours = 10 + 2.5 / 24
    assert removed(ruled, days=after_two_hours, dry_run=True) == {"events_days": 4}
    assert removed(ruled, days=after_two_hours) == {"events_days": 4}
    assert store.read(EVENTS)["event_id"].to_pylist() == [f"e-{name}-3" for name in (CANARY, OTHER)]
    assert traces(FileTree(f"{settings.tables_uri}/events"), [f"e-{CANARY}-1"]) == {}
    assert removed(ruled, days=11) == {"events_days": 4}
    assert (store.read(EVENTS).num_rows, log.read_after(0), store.read(CANDIDATES).num_rows) == (0, [], 2)


def test_a_posted_event_that_no_run_has_taken_yet_stays(settings: Settings) -> None:
    removed(with_rules(settings, events_days=10), days=20)
    assert len(EventLog(open_ledger(settings.ledger_url)).read_after(0)) == 2


def test_what_requests_were_answered_from_goes_by_age_and_leaves_the_file(settings: Settings) -> None:
    ruled = with_rules(settings, served_days=10)
    assert removed(ruled, days=9) == {"served_days": 0}
    assert removed(ruled, days=11, dry_run=True) == {"served_days": 2}
    assert removed(ruled, days=11) == {"served_days": 2}
    assert "ledger.db" not in by_store(traces(FileTree(str(settings.home)), [f"asked-by-{CANARY}"]))


def test_quarantine_logs_and_runs_go_by_age_and_number(settings: Settings) -> None:
    log = settings.home / "ray" / "session_1" / "logs" / "worker.out"
    for age, path in ((5, log), (9, settings.runs_dir / "r1"), (5, settings.runs_dir / "r2")):
        os.utime(path, ((DAY - timedelta(days=age)).timestamp(),) * 2)
    ruled = with_rules(settings, quarantine_days=3, logs_days=3, runs_keep=1)
    assert removed(ruled, days=2) == {"quarantine_days": 0, "logs_days": 1, "runs_keep": 1}
    assert removed(ruled, days=4) == {"quarantine_days": 2, "logs_days": 0, "runs_keep": 0}
    assert [run.name for run in settings.runs_dir.iterdir()] == ["r2"]
    assert TableStore(settings.tables_uri).read(QUARANTINE).num_rows == 0


def test_doctor_notes_an_unfinished_erasure_and_fails_once_it_is_due(settings: Settings) -> None:
    assert list(check_duties(settings, DAY)) == []
    ForgottenPeople(open_ledger(settings.ledger_url)).add(CANARY, at=DAY, due_at=DAY + timedelta(days=30))
    for days, required in ((29, False), (31, True)):
        (check,) = check_duties(settings, DAY + timedelta(days=days))
        assert (check.ok, check.required, CANARY in check.detail) == (False, required, False)
