"""The commands that work in batch: `rolecall ingest`, `run`, `demo`, `schedule` and `backfill`."""

from __future__ import annotations

from datetime import UTC, datetime, time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rolecall.pipelines import feature_commands, schedule_commands
from rolecall.pipelines.backfill import backfill
from rolecall.pipelines.evaluation.gate import commands as gate
from rolecall.pipelines.lab.commands import lab
from rolecall.pipelines.lifecycle import commands as lifecycle
from rolecall.platform.console import Json, console, emit, errors, table
from rolecall.platform.errors import InputError
from rolecall.platform.settings import load_settings

if TYPE_CHECKING:
    from rolecall.pipelines.daily import DailyResult

PIPELINES = ("daily",)
EARLIEST_YEAR, LATEST_YEAR = 1901, 2200
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", help="As if it were this instant: ISO 8601, UTC without a zone; default today, 00:00."),
]


def register(app: typer.Typer) -> None:
    """Add the batch commands."""
    app.command()(ingest)
    app.command()(run)
    app.command()(demo)
    app.add_typer(schedule_commands.app, name="schedule")
    app.command(epilog=schedule_commands.EXIT_CODES)(backfill)
    app.add_typer(lab(), name="lab")
    app.add_typer(feature_commands.app, name="features")
    lifecycle.register(app)
    gate.register(app)


def ingest(
    source: Annotated[Path, typer.Argument(help="A file, or a folder with the files a mapping names.")],
    mapping: Annotated[str, typer.Option("--mapping", help="sjr, careerbuilder, native, or a TOML file.")] = "native",
    json: Json = False,
) -> None:
    """Bring jobs, candidates, employers and events into the tables; refused rows are kept with their reasons."""
    from rolecall.features.mapping import load_mapping
    from rolecall.pipelines.ingest import ingest as bring_in
    from rolecall.pipelines.materialize import publish_consents
    from rolecall.platform.forgotten import ForgottenPeople
    from rolecall.platform.ledger import open_ledger
    from rolecall.platform.tables import TableStore

    settings = load_settings()
    store = TableStore(settings.tables_uri, settings.storage.options)
    with errors.status("reading") as status:
        report = bring_in(
            source,
            load_mapping(mapping),
            store,
            people=ForgottenPeople(open_ledger(settings.ledger_url)),
            progress=lambda name, rows: status.update(f"{name}: {rows:,} rows read"),
            publish=partial(publish_consents, settings),
        )
    emit(report.as_dict(), json, lambda: console.print("\n".join(report.lines()), markup=False, soft_wrap=True))


def run(
    pipeline: Annotated[str, typer.Argument(help="daily")],
    as_of: AsOf = None,
    submit: Annotated[str | None, typer.Option("--submit", help="Address of a Ray dashboard: run there.")] = None,
    promote: Annotated[bool, typer.Option(help="Promote the release if the gate passes it.")] = True,
    json: Json = False,
) -> None:
    """Run a pipeline: everything from the tables to a gated, registered, promoted release."""
    if pipeline not in PIPELINES:
        raise InputError(f"pipeline {pipeline!r}", ", ".join(PIPELINES))
    instant = parse_as_of(as_of)
    if submit:
        _submit(pipeline, instant, submit, promote)
        return
    from rolecall.pipelines.daily import run_daily
    from rolecall.pipelines.progress import progress_bars

    with progress_bars(quiet=json) as observer:
        result = run_daily(load_settings(), instant, promote=promote, observers=[observer])
    emit(result.to_json(), json, lambda: print_result(result))


def demo(
    jobs: Annotated[int, typer.Option(min=200, help="How many jobs the marketplace has.")] = 5000,
    candidates: Annotated[int, typer.Option(min=50, help="How many candidates.")] = 2000,
    serve: Annotated[bool, typer.Option(help="Ask the three recommendations over HTTP.")] = True,
) -> None:
    """The whole path on a made-up marketplace: ingest, train, evaluate, release, serve, recommend."""
    from rolecall.pipelines.demo import run_demo

    run_demo(load_settings(), jobs=jobs, candidates=candidates, serve=serve, as_of=parse_as_of(None))


def parse_as_of(text: str | None) -> datetime:
    """An instant in UTC; a date means its first moment, nothing means today's."""
    if text is None:
        return datetime.combine(datetime.now(UTC).date(), time(), UTC)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"--as-of {text!r} is no instant", "ISO 8601, for example 2026-11-22 or 2026-11-22T06:00:00Z"
        ) from error
    if not EARLIEST_YEAR <= instant.year < LATEST_YEAR:
        raise InputError(f"--as-of {text!r}", f"an instant in the years {EARLIEST_YEAR} to {LATEST_YEAR - 1}")
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)


def print_result(result: DailyResult) -> None:
    """The evaluation table, the gate's verdict and the release."""
    console.print(table("Evaluation", result.evaluation_rows()))
    for reason in result.reasons:
        console.print(f"  gate: {reason}", markup=False)
    promoted = "promoted to champion" if result.promoted else "passed the gate"
    verdict = promoted if result.passed else "refused"
    console.print(f"release [bold]{result.release_id}[/] {verdict}  (MLflow run {result.mlflow_run})")
    if result.refreshed_id:
        kept = "the champion's rankers over today's catalogue"
        console.print(f"release [bold]{result.refreshed_id}[/] ({kept}) {promoted}")


def _submit(pipeline: str, instant: datetime, address: str, promote: bool) -> None:
    from rolecall.pipelines.submit import submit_pipeline

    status = submit_pipeline(load_settings(), pipeline, instant, address, promote=promote, on_log=_raw)
    if status != "succeeded":
        raise typer.Exit(1)


def _raw(line: Any) -> None:
    console.print(line, end="", markup=False, soft_wrap=True)
