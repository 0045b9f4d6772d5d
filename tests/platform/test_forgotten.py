"""The list of forgotten people: it knows whom it has met, and nobody can read them from it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy
from sqlalchemy import Engine, select

from rolecall.platform.database_erasure import count_candidate, erase_candidate
from rolecall.platform.event_log import EventLog
from rolecall.platform.forgotten import ForgottenPeople
from rolecall.platform.ledger import FORGOTTEN, LEDGER_KEYS, open_ledger
from rolecall.platform.served_log import ServedLog, ServedRequest
from rolecall.platform.taints import Taints

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DUE = NOW + timedelta(days=30)


def forgotten(people: ForgottenPeople, *ids: str | None) -> list[bool]:
    return [bool(known) for known in people.contains(ids)]


def test_a_forgotten_id_is_known_in_every_process_and_no_other(ledger: Engine) -> None:
    people, elsewhere = ForgottenPeople(ledger, poll_s=0), ForgottenPeople(ledger, poll_s=0)
    assert forgotten(elsewhere, "c-1", None) == [False, False]
    people.add("c-1", at=NOW, due_at=DUE)
    for one in (people, elsewhere):
        assert forgotten(one, "c-1", "c-11", "C-1", "", None) == [True, False, False, False, False]


def test_another_process_sees_a_change_after_its_poll_or_at_once_where_it_asks_so(ledger: Engine) -> None:
    now = [0.0]
    elsewhere = ForgottenPeople(ledger, poll_s=2.0, clock=lambda: now[0])
    assert forgotten(elsewhere, "c-1") == [False]
    ForgottenPeople(ledger).add("c-1", at=NOW, due_at=DUE)
    assert forgotten(elsewhere, "c-1") == [False]
    now[0] = 2.0
    assert forgotten(elsewhere, "c-1") == [True]
    ForgottenPeople(ledger).remove("c-1")
    assert elsewhere.contains(["c-1"], fresh=True).tolist() == [False]


def test_nothing_in_the_ledger_is_the_id_or_the_same_in_another_ledger(ledger: Engine) -> None:
    people = ForgottenPeople(ledger)
    people.add("c-1", at=NOW, due_at=DUE)
    with ledger.connect() as connection:
        rows = [row for table in (FORGOTTEN, LEDGER_KEYS) for row in connection.execute(select(table))]
    stored = [str(value) for row in rows for value in row]
    assert all("c-1" not in value for value in stored)
    assert max(len(value) for value in stored) == 64


def test_asking_twice_keeps_the_first_deadline_and_stages_never_go_back(ledger: Engine) -> None:
    people = ForgottenPeople(ledger)
    first = people.add("c-1", at=NOW, due_at=DUE)
    assert people.add("c-1", at=DUE, due_at=DUE + timedelta(days=30)) == first
    people.advance("c-1", "erased")
    people.advance("c-1", "marked")
    assert [one.stage for one in people.open()] == ["erased"]
    assert people.advance_all("erased", "done") == 1
    assert people.open() == []


def test_a_readmitted_id_is_known_no_more(ledger: Engine) -> None:
    people = ForgottenPeople(ledger, poll_s=0)
    people.add("c-1", at=NOW, due_at=DUE)
    assert people.remove("c-1")
    assert not people.remove("c-1")
    assert forgotten(people, "c-1") == [False]


def test_a_taint_stays_after_the_purge_and_is_marked_once(ledger: Engine) -> None:
    taints = Taints(ledger)
    assert taints.mark("a" * 16, "why", at=NOW, due_at=DUE)
    assert not taints.mark("a" * 16, "another", at=DUE, due_at=DUE)
    taints.purged("a" * 16, at=DUE)
    (taint,) = taints.all()
    assert (taint.reason, taint.at, taint.purged_at) == ("why", NOW, DUE)
    assert taints.open() == []
    assert Taints(ledger, "another model").all() == []


def served(candidate_id: str) -> ServedRequest:
    return ServedRequest(
        request_id="r", candidate_id=candidate_id, at=NOW, release_id="r", events=0, counted=0, jobs_through=NOW
    )


def posted(candidate_id: str) -> dict[str, object]:
    event = {"event_id": "e", "candidate_id": candidate_id, "job_id": "j", "kind": "view", "occurred_at": NOW}
    return {**event, "actor": "candidate"}


@pytest.mark.parametrize("moment", ["before it is begun", "while it is open"])
@pytest.mark.parametrize("what", ["a served request", "an event"])
def test_whoever_is_forgotten_while_a_row_of_theirs_is_written_leaves_none(
    ledger: Engine, what: str, moment: str
) -> None:
    """The erasure comes at the worst moments: after the writer looked nowhere yet, and with its transaction open."""
    url = ledger.url.render_as_string(hide_password=False)
    engine, elsewhere = open_ledger(url), open_ledger(url)
    people = ForgottenPeople(engine)

    def erase() -> None:
        ForgottenPeople(elsewhere).add("c", at=NOW, due_at=NOW)
        erase_candidate(elsewhere, "c")

    eraser = threading.Thread(target=erase)

    def strike(*_: object) -> None:
        if eraser.ident is None:
            eraser.start()
            if moment == "before it is begun":
                eraser.join()

    name = "engine_connect" if moment == "before it is begun" else "after_cursor_execute"
    sqlalchemy.event.listen(engine, name, strike)
    if what == "an event":
        EventLog(engine).append([posted("c")], forgotten=people)
    else:
        ServedLog(engine, people).append(served("c"))
    eraser.join()
    assert count_candidate(elsewhere, "c") == 0
    for used in (engine, elsewhere):
        used.dispose()
