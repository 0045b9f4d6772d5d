"""Days executed under crashes, wrong clocks, double starts and several schedulers: each once, in order, none missing.

The small world runs in every test run; the year is slow. That these tests can fail is shown by the last ones, which
break one rule each and must be told so.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rolecall.platform.ledger import SCHEDULES
from rolecall.platform.schedule import policy, store
from rolecall.platform.schedule.calendar import exists
from rolecall.platform.schedule.definition import Schedule

from .conftest import nightly
from .simulation import Chaos, Stage

STORM = Chaos(crash=0.01, stall=0.01, clock=0.01)
PLACES = (
    ("UTC", date(2026, 1, 1), time(0, 0)),
    ("Europe/Berlin", date(2026, 3, 27), time(2, 30)),
    ("Europe/Berlin", date(2026, 10, 23), time(2, 30)),
    ("America/New_York", date(2026, 3, 6), time(2, 15)),
    ("America/New_York", date(2026, 10, 30), time(1, 30)),
    ("Australia/Lord_Howe", date(2026, 4, 3), time(1, 45)),
    ("Australia/Lord_Howe", date(2026, 10, 2), time(2, 15)),
    ("Pacific/Apia", date(2011, 12, 28), time(3, 0)),
)


def stretch(place: tuple[str, date, time], days: int) -> Schedule:
    zone, first, at = place
    return nightly(zone=zone, start=first, end=first + timedelta(days=days - 1), at=at, max_attempts=5, **born(first))


def born(first: date) -> dict[str, Any]:
    """Defined a day before its first date."""
    created = nightly(start=first).as_of(first) - timedelta(days=1)
    return {"created": created, "since": created}


@given(seed=st.integers(0, 2**32), place=st.sampled_from(PLACES), schedulers=st.integers(1, 3))
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_happens_each_date_runs_once_and_in_order(
    seed: int, place: tuple[str, date, time], schedulers: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stage = Stage(tmp_path_factory.mktemp("ledger"), stretch(place, 5), seed=seed, schedulers=schedulers, chaos=STORM)
    assert stage.play() == []


@pytest.mark.parametrize("schedulers", [1, 3])
def test_undisturbed_schedulers_submit_every_attempt_once(schedulers: int, tmp_path: Path) -> None:
    stage = Stage(tmp_path, stretch(PLACES[1], 4), seed=schedulers, schedulers=schedulers, failing=0.5)
    assert stage.play() == []
    assert stage.cluster.refused == 0


def test_a_crash_at_any_step_of_a_tick_is_made_good(tmp_path: Path) -> None:
    steps = steps_of_one_day(tmp_path)
    for step in range(1, steps + 1, 3):
        assert one_day(tmp_path, crashes=[step]).play() == [], f"crashed at step {step} of {steps}"


@pytest.mark.slow
def test_two_crashes_at_any_steps_are_made_good(tmp_path: Path) -> None:
    steps = steps_of_one_day(tmp_path)
    for first in range(1, steps + 1, 7):
        for second in range(first + 1, steps + 8, 5):
            assert one_day(tmp_path, crashes=[first, second]).play() == [], f"crashed at {first} and {second}"


@pytest.mark.parametrize("stride", [13, pytest.param(4, marks=pytest.mark.slow)])
def test_a_scheduler_that_comes_between_any_two_steps_of_another_is_harmless(tmp_path: Path, stride: int) -> None:
    steps = steps_of_one_day(tmp_path)
    for first in range(1, steps + 1, stride):
        for second in range(1, steps + 1, stride):
            stage = one_day(tmp_path, schedulers=2, script=[(0, first), (1, second), (0, 10_000)])
            assert stage.play() == [], f"{first} steps, then {second} of the other"


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("zone", "first", "at"),
    [
        ("Europe/Berlin", date(2026, 1, 1), time(2, 30)),
        ("America/New_York", date(2026, 1, 1), time(1, 30)),
        ("Australia/Lord_Howe", date(2026, 1, 1), time(1, 45)),
        ("Pacific/Apia", date(2011, 7, 1), time(23, 59)),
    ],
)
def test_a_year_of_days_runs_once_each_and_in_order(tmp_path: Path, zone: str, first: date, at: time) -> None:
    schedule = stretch((zone, first, at), 365)
    stage = Stage(tmp_path, schedule, seed=365, schedulers=2, chaos=STORM, tick_minutes=240, failing=0.1)
    assert stage.play() == []
    calendar = [first + timedelta(days=number) for number in range(365)]
    assert stage.dates == [day for day in calendar if exists(day, schedule.zone_info)]
    assert len(stage.dates) == (364 if zone == "Pacific/Apia" else 365)
    assert sum(process.lives for process in stage.processes) > 100


def test_the_simulation_notices_a_lease_that_keeps_nobody_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "lease_holds", lambda day, now: False)
    assert faults_of_seeds(tmp_path, Chaos())


def test_the_simulation_notices_a_submission_id_that_depends_on_the_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = policy.claimed

    def own(schedule: Schedule, day: policy.Day, **claim: Any) -> policy.Day:
        taken = plain(schedule, day, **claim)
        return policy.replace(taken, submission_id=f"{taken.submission_id}-{taken.owner}")

    monkeypatch.setattr(policy, "claimed", own)
    assert any("started" in fault for fault in faults_of_seeds(tmp_path, STORM))


def test_the_simulation_notices_days_entered_outside_the_one_writer_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(self: store.ScheduleStore, name: str, now: datetime) -> list[policy.Day]:
        with self.engine.connect() as connection:
            known, new = store._extension(connection, name, now)
        with store.write(self.engine, SCHEDULES) as connection:
            return store._put(connection, known, new)

    monkeypatch.setattr(store.ScheduleStore, "extend", careless)
    assert any("IntegrityError" in fault for fault in faults_of_seeds(tmp_path, Chaos()))


def test_the_simulation_notices_days_taken_out_of_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def last_open(connection: Any, name: str) -> policy.Day | None:
        opened = [day for day in store._days(connection, name).values() if day.state in policy.OPEN]
        running = [day for day in opened if day.state == "running"]
        return (running or opened or [None])[-1]

    monkeypatch.setattr(store, "_first_open", last_open)
    # Ticks so far apart that several days are due at once.
    assert any("after" in fault for fault in faults_of_seeds(tmp_path, STORM, tick_minutes=3 * 1440.0))


def one_day(tmp_path: Path, **options: Any) -> Stage:
    folder = tmp_path / uuid4().hex
    folder.mkdir()
    given: dict[str, Any] = {"schedulers": 1, "failing": 0.0, "tick_minutes": 45.0}
    return Stage(folder, stretch(PLACES[0], 1), **(given | options))


def steps_of_one_day(tmp_path: Path) -> int:
    """How many steps one scheduler needs from its first tick until the day's success is recorded."""
    stage = one_day(tmp_path)
    assert stage.play() == []
    return stage.steps


def faults_of_seeds(tmp_path: Path, chaos: Chaos, **options: Any) -> list[str]:
    found: list[str] = []
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = Stage(folder, stretch(PLACES[0], 5), seed=seed, schedulers=2, chaos=chaos, **options).play()
        if found:
            return found
    return found
