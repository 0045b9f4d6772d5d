"""`rolecall forget`, `readmit`, `export` and `retention`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rolecall.platform.console import EXIT_FAILED, Json, console, emit, table
from rolecall.platform.errors import InputError
from rolecall.platform.settings import load_settings

if TYPE_CHECKING:
    from rolecall.pipelines.lifecycle.forget import ForgetReport

Candidate = Annotated[str, typer.Argument(metavar="CANDIDATE_ID", help="The id as the tables name it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing.")]


def register(app: typer.Typer) -> None:
    """Add the lifecycle commands."""
    for command in (forget, readmit, export, retention):
        app.command()(command)


def forget(
    candidate: Candidate,
    rebuild: Annotated[bool, typer.Option(help="Build and promote a release without them now.")] = True,
    ungated: Annotated[
        bool, typer.Option("--ungated", help="Serve the rebuilt release even where the gate refuses it; recorded.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Remove a person from tables and their history, features, vectors, logs, runs and releases.

    Exit code 1 while a release that learned from them is still served. Run it again to finish what was interrupted.
    """
    from rolecall.pipelines.lifecycle.forget import forget as erase
    from rolecall.pipelines.progress import progress_bars

    with progress_bars(quiet=json or dry_run or not rebuild) as observer:
        report = erase(
            load_settings(),
            candidate,
            at=datetime.now(UTC),
            rebuild=rebuild,
            ungated=ungated,
            dry_run=dry_run,
            observers=[observer],
        )
    emit(report.to_json(), json, lambda: _print(report))
    if report.serving_tainted and not dry_run:
        raise typer.Exit(EXIT_FAILED)


def readmit(candidate: Candidate, json: Json = False) -> None:
    """Lift a `forget`: rows of this id are taken in again. What was erased stays erased."""
    from rolecall.pipelines.lifecycle.forget import readmit as lift

    if not lift(load_settings(), candidate):
        raise InputError("this candidate was not forgotten", "an id that was", "check the spelling")
    emit({"readmitted": True}, json, lambda: console.print("rows of this id are taken in again from now on"))


def export(
    candidate: Candidate,
    out: Annotated[str, typer.Option("--out", help="A file, or - for the terminal.")] = "-",
) -> None:
    """Everything held about a person, as one JSON document (`pipelines/lifecycle/export.py` describes it)."""
    from rolecall.pipelines.lifecycle.export import export_person

    text = export_person(load_settings(), candidate, at=datetime.now(UTC)).to_json()
    if out == "-":
        console.print(text, markup=False, soft_wrap=True)
        return
    Path(out).write_text(text + "\n", encoding="utf-8")
    console.print(f"written to {out}", markup=False)


def retention(dry_run: DryRun = False, json: Json = False) -> None:
    """Remove what is older than the settings below `retention` allow."""
    from rolecall.pipelines.lifecycle.retention import apply_retention

    report = apply_retention(load_settings(), at=datetime.now(UTC), dry_run=dry_run)
    emit(report.to_json(), json, lambda: console.print(table("Retention", report.rows())))


def _print(report: ForgetReport) -> None:
    verb = "holds" if report.dry_run else "gave up"
    rows = [{"store": found.store, verb: found.entries} for found in report.stores]
    console.print(table("Would forget" if report.dry_run else f"Forgotten ({report.name})", rows))
    for text, names in (("learned from them", report.tainted), ("purged now", report.purged)):
        if names:
            console.print(f"releases {text}: {', '.join(names)}")
    if report.rebuilt:
        console.print(f"rebuilt without them: [bold]{report.rebuilt}[/]")
    if report.mentions:
        console.print(f"{report.mentions} rows of others quote the id in a text: they are not touched")
    if report.todo:
        console.print(f"[bold red]Not done[/], due {report.due_at:%Y-%m-%d}: {report.todo}", soft_wrap=True)
