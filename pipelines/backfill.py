"""`rolecall backfill`: execute a range of past dates under a schedule, in order, once each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated

import typer

from rolecall.pipelines.schedule_commands import Address, Name, Wait, finish, open_store, utc_now
from rolecall.pipelines.schedule_view import print_event
from rolecall.platform.console import Json, console, emit, table
from rolecall.platform.errors import ConflictError, InputError
from rolecall.platform.schedule.definition import Reprocess, Schedule, date_of, reprocess_mode
from rolecall.platform.schedule.policy import Day, to_reprocess
from rolecall.platform.settings import load_settings


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a backfill does with one date. `state`: of its row before, or None where it has none."""

    logical_date: date
    as_of: datetime
    state: str | None
    executed: bool

    @property
    def why(self) -> str:
        """In words."""
        if self.executed:
            return "would run" if self.state is None else f"would run again: it {_was(self.state)}"
        if self.state in ("waiting", "running"):
            return f"is {self.state} already"
        return "is not due yet" if self.state is None else f"left alone: it {_was(self.state)}"


def plan(
    schedule: Schedule, known: Mapping[date, Day], days: Sequence[date], reprocess: Reprocess, now: datetime
) -> list[Planned]:
    """What would become of every date, in order; changes nothing."""
    entered = {day.logical_date for day in to_reprocess(schedule, known, days, reprocess, now)}
    return [
        Planned(
            logical_date=day,
            as_of=schedule.as_of(day),
            state=known[day].state if day in known else None,
            executed=day in entered,
        )
        for day in days
    ]


def backfill(
    name: Name,
    first: Annotated[str, typer.Option("--from", metavar="DATE", help="First logical date, YYYY-MM-DD.")],
    last: Annotated[str, typer.Option("--to", metavar="DATE", help="Last logical date, included.")],
    reprocess: Annotated[
        str | None,
        typer.Option(
            metavar="none|failed|completed",
            help="none: only dates never executed; failed: also those given up; completed: also those that succeeded. "
            "Default: the schedule's own.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, and change nothing.")] = False,
    wait: Wait = True,
    address: Address = None,
    json: Json = False,
) -> None:
    """Execute past dates of a schedule, in order, also ones before its start.

    The dates are entered in the schedule's ledger, so a scheduler that ticks meanwhile does the same work once. Each
    release is built and judged; one of an older day never replaces a newer champion.
    """
    store, now = open_store(), utc_now()
    schedule = store.get(name)
    mode = reprocess_mode(reprocess) if reprocess else schedule.reprocess
    days = schedule.days(date_of(first), date_of(last))
    if not days:
        raise InputError(f"{first} to {last} holds no date", "--from not after --to")
    planned = plan(schedule, store.days(name), days, mode, now)
    if dry_run:
        rows = [{"date": p.logical_date, "as of (UTC)": f"{p.as_of:%Y-%m-%d %H:%M}", "": p.why} for p in planned]
        emit(rows, json, lambda: console.print(table(f"Backfill of {name} (nothing is changed)", rows)))
        return
    if schedule.paused:
        raise ConflictError(f"{name} is paused", "a schedule that may start runs", f"rolecall schedule resume {name}")
    from rolecall.pipelines.schedule_run import exit_on_term, open_scheduler

    on_event = None if json else print_event
    with exit_on_term(), open_scheduler(load_settings(), address, wait=wait, on_event=on_event) as scheduler:
        entered = store.enter(name, days, mode, now)
        if not json:
            console.print(f"{len(entered)} of {len(days)} dates entered")
        report = scheduler.tick([name], wait=wait)
    finish(store, report, [name], json)


def _was(state: str) -> str:
    return {"failed": "was given up", "skipped": "was skipped"}.get(state, state)
