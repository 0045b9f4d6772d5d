"""Stored features, and what was posted since, make one context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from rolecall.features.activity import candidate_history
from rolecall.features.candidates import microseconds
from rolecall.features.context import CandidateContext
from rolecall.features.views import VIEWS
from rolecall.platform.event_log import EventLog
from rolecall.platform.ledger import open_ledger
from rolecall.serving.models import Profile
from rolecall.serving.reader import CandidateReader
from rolecall.serving.replies import with_profile

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STORED = {
    "recent_job_ids": ["j1", "j2"],
    "applied_job_ids": ["j1"],
    "dismissed_job_ids": None,
    "recent_at_us": f"{microseconds(NOW - timedelta(days=3))} {microseconds(NOW - timedelta(days=1))}",
    "engagement_count": 2.0,
    "last_engaged_us": microseconds(NOW - timedelta(days=1)),
    "history_until_us": microseconds(NOW - timedelta(days=1)),
    "skills": ["sql"],
    "city": "Berlin",
}


class StoredRows:
    """Online features of one candidate, c1."""

    def online_candidates(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Mapping[str, object]]:
        return [STORED if name == "c1" else dict.fromkeys(STORED) for name in candidate_ids]


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))


@pytest.fixture
def reader(log: EventLog) -> CandidateReader:
    return CandidateReader(StoredRows(), log, history_length=3)


def post(log: EventLog, job_id: str, kind: str, at: datetime, candidate_id: str = "c1") -> None:
    event = {"event_id": f"{job_id}-{kind}-{at}", "candidate_id": candidate_id, "job_id": job_id, "kind": kind}
    log.append([{**event, "actor": "candidate", "occurred_at": at}])


def test_without_posted_events_the_stored_row_is_the_context(reader: CandidateReader) -> None:
    context = reader.read("c1", NOW)
    assert (context.known, context.history, context.applied) == (True, ("j1", "j2"), {"j1"})


def test_someone_never_seen_is_unknown(reader: CandidateReader) -> None:
    assert reader.read("stranger", NOW).known is False


def test_an_event_posted_a_moment_ago_is_part_of_the_history(reader: CandidateReader, log: EventLog) -> None:
    post(log, "j9", "click", NOW - timedelta(seconds=2))
    post(log, "j8", "apply", NOW - timedelta(seconds=1))
    post(log, "j7", "dismiss", NOW - timedelta(seconds=1))
    context = reader.read("c1", NOW)
    assert context.history == ("j2", "j9", "j8")
    assert context.applied == {"j1", "j8"}
    assert context.dismissed == {"j7"}


def test_a_first_event_makes_someone_known(reader: CandidateReader, log: EventLog) -> None:
    post(log, "j9", "view", NOW - timedelta(seconds=1), candidate_id="new")
    context = reader.read("new", NOW)
    assert (context.known, context.history) == (True, ("j9",))


def test_events_the_stored_row_already_counts_do_not_reorder_it(reader: CandidateReader, log: EventLog) -> None:
    post(log, "j1", "view", NOW - timedelta(days=2))
    assert reader.read("c1", NOW).history == ("j1", "j2")


def test_an_application_is_remembered_whatever_is_shown_afterwards(reader: CandidateReader, log: EventLog) -> None:
    post(log, "j9", "apply", NOW - timedelta(hours=2))
    for number in range(300):
        post(log, f"shown{number}", "impression", NOW - timedelta(hours=1))
    assert reader.read("c1", NOW).applied == {"j1", "j9"}


def test_what_is_posted_after_the_run_drained_the_log_counts_however_late(
    reader: CandidateReader, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(log, "j2", "view", NOW - timedelta(days=1))  # in the stored row
    counted = next(view.counted for view in VIEWS if view.name == "candidate_history")
    monkeypatch.setitem(STORED, str(counted), log.last_sequence())
    post(log, "j9", "apply", NOW - timedelta(days=2))
    post(log, "j7", "dismiss", NOW - timedelta(days=2))
    context = reader.read("c1", NOW)
    assert (context.applied, context.dismissed) == ({"j1", "j9"}, {"j7"})
    assert context.history == ("j1", "j9", "j2")
    assert context.activity["engagement_count"] == 3


def test_a_row_that_does_not_say_what_it_counts_counts_up_to_its_newest_event(
    reader: CandidateReader, log: EventLog
) -> None:
    post(log, "j9", "apply", NOW - timedelta(days=2))
    assert reader.read("c1", NOW).activity["engagement_count"] == 2


def test_windows_move_with_every_posted_event(reader: CandidateReader, log: EventLog) -> None:
    before = reader.read("new", NOW).activity
    post(log, "j9", "impression", NOW - timedelta(seconds=1), candidate_id="new")
    post(log, "j9", "apply", NOW - timedelta(seconds=1), candidate_id="new")
    after = reader.read("new", NOW)
    assert before == {}
    assert after.activity["candidate_applies_1d"] == after.activity["candidate_impressions_1d"] == 1
    assert after.sightings["j9"].shown == 1


def test_being_shown_something_makes_nobody_known(reader: CandidateReader, log: EventLog) -> None:
    post(log, "j9", "impression", NOW - timedelta(hours=1), candidate_id="new")
    assert reader.read("new", NOW).known is False


def test_events_posted_out_of_order_are_told_in_the_order_they_happened(reader: CandidateReader, log: EventLog) -> None:
    post(log, "j9", "view", NOW - timedelta(minutes=1))
    post(log, "j8", "view", NOW - timedelta(minutes=2))
    assert reader.read("c1", NOW).history == ("j2", "j8", "j9")


def test_events_of_one_instant_are_told_in_the_order_of_their_ids_as_rows_tell_them(
    reader: CandidateReader, log: EventLog
) -> None:
    for job_id in ("j9", "j7", "j8"):
        post(log, job_id, "view", NOW - timedelta(minutes=1))
    events = pl.DataFrame([{**one.event, "dwell_seconds": None} for one in log.read_after(0)])
    told = candidate_history(events, history_length=3)
    assert reader.read("c1", NOW).history == tuple(told["recent_job_ids"][0]) == ("j7", "j8", "j9")


def test_an_event_at_or_after_the_instant_is_not_known_yet(reader: CandidateReader, log: EventLog) -> None:
    post(log, "j9", "view", NOW)
    assert reader.read("c1", NOW).history == ("j1", "j2")


def test_others_events_change_nothing(reader: CandidateReader, log: EventLog) -> None:
    post(log, "j9", "view", NOW - timedelta(seconds=1), candidate_id="c2")
    assert reader.read("c1", NOW).history == ("j1", "j2")


def test_a_profile_replaces_what_it_names_and_keeps_the_rest(reader: CandidateReader) -> None:
    context = with_profile(reader.read("c1", NOW), Profile(city="Hamburg", desired_titles=("analyst",)))
    assert (context.city, context.skills, context.desired_titles) == ("Hamburg", ("sql",), ("analyst",))
    assert (context.known, context.history) == (True, ("j1", "j2"))


def test_a_profile_alone_is_unknown_and_keeps_its_history() -> None:

    context = with_profile(CandidateContext(), Profile(history=("j1",), lat=52.5, lon=13.4))
    assert (context.known, context.history, context.lat) == (False, ("j1",), 52.5)
