"""`rolecall schedule` and `rolecall backfill` as an operator types them: what they print, and their exit codes."""

from __future__ import annotations

import configparser
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from rolecall.pipelines import commands
from rolecall.pipelines.schedule_run import RayLauncher, cluster_address, owner_name
from rolecall.platform.errors import ConflictError, InputError, NotFoundError
from rolecall.platform.jobs import JobState
from rolecall.platform.ledger import open_ledger
from rolecall.platform.ray_head import START_SECONDS
from rolecall.platform.schedule.store import ScheduleStore
from rolecall.platform.settings import Settings, load_settings

Run = Callable[..., Result]
ROOT = Path(__file__).resolve().parents[2]
TODAY = datetime.now(UTC).date()
DAYS = [TODAY - timedelta(days=number) for number in (3, 2, 1)]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith(("ROLECALL_", "RAY_ADDRESS"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROLECALL_HOME", str(tmp_path / "home"))
    return load_settings()


@pytest.fixture
def run(settings: Settings) -> Run:
    app = typer.Typer()
    commands.register(app)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def store(settings: Settings) -> ScheduleStore:
    return ScheduleStore(open_ledger(settings.ledger_url))


def execute(store: ScheduleStore, *errors: str | None, now: datetime | None = None) -> None:
    """Enter what is due and let one attempt of the next open day end for every item: well, or with an error."""
    at = now or datetime.now(UTC)
    store.extend("nightly", at)
    for error in errors:
        day = store.claim("nightly", owner="test", now=at, lease=timedelta(minutes=1))
        assert day is not None
        store.conclude(day, error=error, now=at)


def add(run: Run, *options: object) -> Result:
    return run("schedule", "add", "nightly", "--at", "00:00", "--start", DAYS[0], "--end", DAYS[-1], *options)


def test_an_added_schedule_is_listed_and_adding_it_again_changes_nothing(run: Run, store: ScheduleStore) -> None:
    assert add(run).exit_code == 0
    first = store.get("nightly")
    assert add(run).exit_code == 0
    assert store.get("nightly") == first
    listed = json.loads(run("schedule", "list", "--json").stdout)
    assert [(one["name"], one["verdict"], len(one["waiting"])) for one in listed] == [("nightly", "late", 3)]
    assert isinstance(add(run, "--max-attempts", "7").exception, ConflictError)
    assert add(run, "--max-attempts", "7", "--replace").exit_code == 0
    assert store.get("nightly").max_attempts == 7


@pytest.mark.parametrize(
    "options",
    [
        ("--zone", "Europe/Atlantis"),
        ("--at", "25:00"),
        ("--pipeline", "weekly"),
        ("--reprocess", "all"),
        ("--start", "yesterday"),
        ("--backoff-minutes", "-1"),
        ("--grace-hours", "0"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_defined(run: Run, store: ScheduleStore, options: tuple[str, str]) -> None:
    assert isinstance(add(run, *options).exception, InputError)
    assert store.all() == []


def test_a_day_that_was_given_up_makes_list_fail_until_it_is_skipped(run: Run, store: ScheduleStore) -> None:
    add(run, "--max-attempts", "1")
    execute(store, None, "Traceback\nOSError: the disk is full", None)
    listed = run("schedule", "list")
    assert listed.exit_code == 1
    assert f"backfill nightly --from {DAYS[1]} --to {DAYS[1]} --reprocess failed" in listed.stdout
    assert "OSError: the disk is full" in run("schedule", "show", "nightly").stdout
    assert run("schedule", "skip", "nightly", DAYS[1]).exit_code == 0
    assert run("schedule", "list").exit_code == 0


def test_a_missed_day_makes_list_and_an_idle_tick_fail(run: Run, store: ScheduleStore) -> None:
    add(run)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE schedules SET since_us = since_us - 1000000 * 3600 * 24 * 9")
    listed = run("schedule", "list", "--json")
    assert listed.exit_code == 1
    assert json.loads(listed.stdout)[0]["missed"] == [str(day) for day in DAYS]
    assert run("schedule", "list", "--metrics").exit_code == 0
    assert 'missed_days{schedule="nightly"} 3.0' in run("schedule", "list", "--metrics").stdout


def test_a_tick_with_nothing_to_do_needs_no_ray_and_is_well(run: Run, store: ScheduleStore) -> None:
    add(run)
    execute(store, None, None, None)
    done = run("schedule", "tick", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert (told["ok"], told["events"], told["schedules"][0]["verdict"]) == (True, [], "ended")


def test_not_to_wait_needs_a_cluster_that_stays(run: Run) -> None:
    add(run)
    assert isinstance(run("schedule", "tick", "--no-wait", "--json").exception, InputError)


def test_a_cluster_that_does_not_answer_is_told_and_costs_no_attempt(run: Run, store: ScheduleStore) -> None:
    add(run)
    done = run("schedule", "tick", "--no-wait", "--json", "--address", "http://127.0.0.1:9")
    assert done.exit_code == 1
    assert [event["what"] for event in json.loads(done.stdout)["events"]][-1] == "unavailable"
    assert next(iter(store.days("nightly").values())).failures == 0


def test_an_unknown_name_is_bad_input_everywhere(run: Run) -> None:
    for command in (("tick", "gone"), ("show", "gone"), ("pause", "gone"), ("resume", "gone"), ("remove", "gone")):
        assert isinstance(run("schedule", *command).exception, NotFoundError), command


def test_pause_resume_and_remove(run: Run, store: ScheduleStore) -> None:
    add(run)
    run("schedule", "pause", "nightly")
    assert store.get("nightly").paused
    assert isinstance(run("backfill", "nightly", "--from", DAYS[0], "--to", DAYS[0]).exception, ConflictError)
    run("schedule", "resume", "nightly")
    assert not store.get("nightly").paused
    assert run("schedule", "remove", "nightly").exit_code == 0
    assert store.all() == []


def test_a_dry_backfill_tells_every_date_and_changes_nothing(run: Run, store: ScheduleStore) -> None:
    add(run, "--max-attempts", "1")
    execute(store, None, "boom")
    before = store.days("nightly")
    first, last = DAYS[0] - timedelta(days=1), TODAY + timedelta(days=1)
    done = run("backfill", "nightly", "--from", first, "--to", last, "--reprocess", "failed", "--dry-run", "--json")
    assert done.exit_code == 0
    assert [row[""] for row in json.loads(done.stdout)] == [
        "would run",
        "left alone: it succeeded",
        "would run again: it was given up",
        "is waiting already",
        "would run",  # after the schedule's end, and due
        "is not due yet",
    ]
    assert store.days("nightly") == before


@pytest.mark.parametrize(("first", "last"), [("2026-03-02", "2026-03-01"), ("2026-3-1", "2026-03-02")])
def test_a_range_that_is_none_is_refused(run: Run, first: str, last: str) -> None:
    add(run)
    assert isinstance(run("backfill", "nightly", "--from", first, "--to", last, "--dry-run").exception, InputError)


def test_the_cluster_is_the_option_the_setting_or_the_variable(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = settings.model_copy(update={"ray": settings.ray.model_copy(update={"address": "http://setting:1"})})
    assert cluster_address(settings, None) is None
    monkeypatch.setenv("RAY_ADDRESS", "http://variable:1")
    assert cluster_address(settings, None) == "http://variable:1"
    assert cluster_address(named, None) == "http://setting:1"
    assert cluster_address(named, "http://option:1") == "http://option:1"
    with pytest.raises(InputError, match="option:1"):
        cluster_address(named, "option:1")


def test_two_schedulers_never_share_a_name() -> None:
    assert owner_name() != owner_name()


def test_a_tick_whose_own_ray_starts_slowly_keeps_its_day(
    run: Run, store: ScheduleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tick, as late as that Ray may still come up, must not begin the same day on a Ray of its own."""
    add(run)
    taken = []

    def slow(launcher: RayLauncher, submission_id: str) -> JobState:
        late = datetime.now(UTC) + timedelta(seconds=START_SECONDS)
        taken.append(store.claim("nightly", owner="another tick", now=late, lease=timedelta(minutes=1)))
        return "succeeded"

    monkeypatch.setattr(RayLauncher, "state", slow)
    assert run("schedule", "tick").exit_code == 0
    assert taken == [None] * len(DAYS)


def test_the_units_call_commands_that_exist(run: Run) -> None:
    units = ROOT / "infra/systemd"
    service = configparser.ConfigParser(strict=False)
    service.optionxform = str  # type: ignore[assignment, method-assign]
    service.read(units / "rolecall-schedule.service")
    timer = configparser.ConfigParser(strict=False)
    timer.read(units / "rolecall-schedule.timer")
    assert timer["Timer"]["OnCalendar"] == "*:0/5"
    lines = [service["Service"]["ExecStart"], *(units / "crontab").read_text().splitlines()]
    called = [
        words for line in lines if not line.startswith("#") for words in re.findall(r"bin/rolecall ([^>&|]+)", line)
    ]
    assert len(called) == 3
    for words in called:
        help_text = run(*words.split(), "--help")
        assert help_text.exit_code == 0, words
