"""The commands of `rolecall schedule`, and how they end: 0 all is well, 1 a day failed or is missed, 2 bad input."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from rolecall.pipelines.schedule_view import (
    day_row,
    health_json,
    print_event,
    print_health,
    print_schedule,
    report_json,
)
from rolecall.platform.console import EXIT_FAILED, Json, console, emit, errors, table
from rolecall.platform.errors import InputError, RoleCallError
from rolecall.platform.settings import load_settings

if TYPE_CHECKING:
    from rolecall.platform.schedule.scheduler import Report
    from rolecall.platform.schedule.store import ScheduleStore

EXIT_CODES = "Exit codes: 0 all is well; 1 a day failed or is missed, or its cluster cannot be reached; 2 bad input."

app = typer.Typer(
    no_args_is_help=True,
    help="Run a pipeline every day: each date once, in order, however many schedulers tick and whenever they die.",
    epilog=EXIT_CODES,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A schedule's name.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these; default: every schedule.")]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="Dashboard of the Ray cluster to submit to, http://host:port. Default: setting ray.address, then "
        "RAY_ADDRESS; where none is set, a local Ray runs for as long as the tick.",
    ),
]
Wait = Annotated[
    bool,
    typer.Option(help="Watch the days until they end; --no-wait: submit and return, the next tick collects."),
]


@app.command(epilog=EXIT_CODES)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and hyphens.")],
    pipeline: Annotated[str, typer.Option(help="What runs: daily.")] = "daily",
    at: Annotated[str, typer.Option(metavar="HH:MM", help="Local time of day; a run is as of that instant.")] = "03:30",
    zone: Annotated[str, typer.Option(metavar="ZONE", help="IANA time zone, for example Europe/Berlin.")] = "UTC",
    start: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="First date; default: today, due if its time has passed."),
    ] = None,
    end: Annotated[str | None, typer.Option(metavar="DATE", help="Last date; default: none.")] = None,
    catch_up: Annotated[
        bool, typer.Option(help="Execute every date that was not executed in time; --no-catch-up: only the newest.")
    ] = True,
    reprocess: Annotated[
        str,
        typer.Option(
            metavar="none|failed|completed",
            help="What a backfill, or --replace, does with dates executed before: leave them alone, "
            "execute those again that were given up, or also those that succeeded.",
        ),
    ] = "none",
    max_attempts: Annotated[int, typer.Option(min=1, max=100, help="After so many failures a day is given up.")] = 3,
    backoff_minutes: Annotated[float, typer.Option(help="Wait after a day's first failure; doubles with each.")] = 5.0,
    backoff_cap_minutes: Annotated[float, typer.Option(help="The longest wait between two attempts.")] = 240.0,
    grace_hours: Annotated[float, typer.Option(help="A day unfinished so long after its time is missed.")] = 6.0,
    promote: Annotated[bool, typer.Option(help="Promote a release that the gate passes.")] = True,
    paused: Annotated[bool, typer.Option("--paused", help="Define it, and start nothing until it is resumed.")] = False,
    replace_: Annotated[bool, typer.Option("--replace", help="Another definition of this name gives way.")] = False,
    json: Json = False,
) -> None:
    """Define a schedule. Doing it again changes nothing; nothing runs before a tick.

    A logical date is executed as of its local time. Where the clock skips that time the run comes as much later, where
    it shows it twice the first counts: every date of the zone's calendar has exactly one run.
    """
    from rolecall.pipelines.commands import PIPELINES
    from rolecall.platform.schedule.calendar import zone_named
    from rolecall.platform.schedule.definition import Schedule, date_of, minutes, reprocess_mode, time_of_day

    store, now = open_store(), utc_now()
    if pipeline not in PIPELINES:
        raise InputError(f"pipeline {pipeline!r}", ", ".join(PIPELINES))
    old = {known.name: known for known in store.all()}.get(name)
    schedule = Schedule(
        name=name,
        pipeline=pipeline,
        at=time_of_day(at),
        zone=zone,
        start=date_of(start) if start else (old.start if old else now.astimezone(zone_named(zone)).date()),
        end=date_of(end) if end else None,
        catch_up=catch_up,
        reprocess=reprocess_mode(reprocess),
        max_attempts=max_attempts,
        backoff=minutes(backoff_minutes),
        backoff_cap=minutes(backoff_cap_minutes),
        grace=minutes(grace_hours * 60),
        promote=promote,
        paused=paused,
        created=now,
        since=now,
    )
    again = store.add(schedule, replacing=replace_, now=now)
    told = {"schedule": asdict(schedule), "entered_again": [day.logical_date for day in again]}
    emit(told, json, lambda: print_schedule(schedule, len(again), now))


@app.command("list", epilog=EXIT_CODES)
def list_schedules(
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Print Prometheus gauges, for a node-exporter textfile; exit code 0.")
    ] = False,
    json: Json = False,
) -> None:
    """Every schedule and how it stands; exit code 1 where a day is missed or was given up."""
    from rolecall.platform.schedule.health import health, schedule_metrics

    store, now = open_store(), utc_now()
    if metrics:
        sys.stdout.write(schedule_metrics(store.engine, now).decode())
        return
    all_health = [health(store, schedule, now) for schedule in store.all()]
    emit([health_json(one) for one in all_health], json, lambda: print_health(all_health))
    if not all(one.well for one in all_health):
        raise typer.Exit(EXIT_FAILED)


@app.command(epilog=EXIT_CODES)
def show(
    name: Name,
    last: Annotated[int, typer.Option("--last", min=1, help="How many days, the newest ones.")] = 14,
    json: Json = False,
) -> None:
    """A schedule's days: state, attempts, submission id (for `ray job logs`), and why one failed."""
    store = open_store()
    store.get(name)
    rows = [day_row(day) for day in list(store.days(name).values())[-last:]]
    emit(rows, json, lambda: console.print(table(f"Days of {name}", rows)))


@app.command(epilog=EXIT_CODES)
def tick(names: Names = None, wait: Wait = True, address: Address = None, json: Json = False) -> None:
    """Do what is due: enter it, submit it through Ray Jobs, watch it, record how it ended.

    Call it every few minutes from whatever keeps time: cron, a systemd timer, a Kubernetes CronJob, Airflow. Two ticks
    at once are harmless, one that dies is made good by the next: it attaches to the job that was submitted. A day that
    failed is tried again by the first tick after its back-off.
    """
    from rolecall.pipelines.schedule_run import exit_on_term, open_scheduler

    with (
        exit_on_term(),
        open_scheduler(load_settings(), address, wait=wait, on_event=None if json else print_event) as scheduler,
    ):
        report = scheduler.tick(names, wait=wait)
    finish(scheduler.store, report, names, json)


@app.command(epilog=EXIT_CODES)
def run(
    every: Annotated[float, typer.Option(min=1, help="Seconds between ticks.")] = 60.0,
    address: Address = None,
) -> None:
    """Tick until stopped (SIGTERM, Ctrl-C): a scheduler for a machine that has no other. Several may run."""
    from sqlalchemy.exc import SQLAlchemyError

    from rolecall.pipelines.schedule_run import cluster_address, exit_on_term, open_scheduler

    settings = load_settings()
    wait = cluster_address(settings, address) is None
    with contextlib.suppress(KeyboardInterrupt), exit_on_term():
        while True:
            try:
                with open_scheduler(settings, address, wait=wait, on_event=print_event) as scheduler:
                    scheduler.tick(wait=wait)
            except (RoleCallError, SQLAlchemyError) as error:
                errors.print(f"{utc_now():%Y-%m-%d %H:%M:%S} a tick failed: {error}", markup=False)
            time.sleep(every)


@app.command(epilog=EXIT_CODES)
def pause(name: Name) -> None:
    """Start nothing more until `resume`; a day that runs is watched to its end. Paused days do not count as missed."""
    open_store().pause(name)
    console.print(f"{name} is paused")


@app.command(epilog=EXIT_CODES)
def resume(name: Name) -> None:
    """End a pause: the next tick executes what fell due meanwhile (with --no-catch-up, the newest date)."""
    open_store().resume(name, utc_now())
    console.print(f"{name} is resumed")


@app.command(epilog=EXIT_CODES)
def skip(name: Name, day: Annotated[str, typer.Argument(metavar="DATE", help="YYYY-MM-DD")]) -> None:
    """Give up a date that waits or failed, for good: it is neither executed nor counted as missed or failed."""
    from rolecall.platform.schedule.definition import date_of

    skipped = open_store().skip(name, date_of(day), now=utc_now())
    console.print(f"{skipped.logical_date} of {name} is skipped; `rolecall backfill` can enter it again")


@app.command(epilog=EXIT_CODES)
def remove(name: Name) -> None:
    """Forget a schedule. Its days stay known: added again, it does not execute them twice."""
    open_store().remove(name)
    console.print(f"{name} is removed")


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def open_store() -> ScheduleStore:
    """The ledger of schedules that the settings name."""
    from rolecall.platform.ledger import open_ledger
    from rolecall.platform.schedule.store import ScheduleStore

    return ScheduleStore(open_ledger(load_settings().ledger_url))


def finish(store: ScheduleStore, report: Report, names: list[str] | None, as_json: bool) -> None:
    """Print what a tick did, and how the schedules stand; exit code 1 where anything is amiss."""
    from rolecall.platform.schedule.health import health

    now = utc_now()
    chosen = [schedule for schedule in store.all() if not names or schedule.name in names]
    standing = [health(store, schedule, now) for schedule in chosen]
    emit(report_json(report, standing), as_json, lambda: print_health(standing))
    if report.bad or not all(one.well for one in standing):
        raise typer.Exit(EXIT_FAILED)
