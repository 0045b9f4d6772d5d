"""`rolecall lab generate` and `rolecall lab simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rolecall.platform.console import Json, console, emit, errors, table
from rolecall.platform.errors import InputError
from rolecall.platform.settings import load_settings

if TYPE_CHECKING:
    from rolecall.pipelines.lab.config import LabConfig
    from rolecall.pipelines.lab.outcome import Outcome

Jobs = Annotated[int | None, typer.Option("--jobs", min=50, help="Postings (default: the configuration's).")]
Candidates = Annotated[int | None, typer.Option("--candidates", min=10, help="People (default: the same).")]
Name = Annotated[str, typer.Option("--config", help="A named marketplace: small, demo, board, biased, ...")]


def lab() -> typer.Typer:
    """The commands of the marketplace laboratory."""
    app = typer.Typer(no_args_is_help=True, help="A marketplace whose truth is known: make one, or live in it.")
    app.command("generate")(generate)
    app.command("simulate")(simulate)
    return app


def generate(
    out: Annotated[Path, typer.Option("--out", help="A new folder for the tables' Parquet files.")],
    jobs: Jobs = None,
    candidates: Candidates = None,
    seed: Annotated[int, typer.Option(min=0, help="Everything is drawn from it.")] = 7,
    config: Name = "demo",
    days: Annotated[int | None, typer.Option(min=2, max=365, help="Days of events.")] = None,
    truth: Annotated[Path | None, typer.Option("--truth", help="A folder elsewhere for what no table says.")] = None,
    json: Json = False,
) -> None:
    """Make up a marketplace as files: read them with `rolecall ingest OUT --mapping native`.

    Written in blocks: ten million postings need no more memory for texts and events than ten thousand.
    """
    from rolecall.pipelines.market.write import write_market

    market = _market(config, jobs, candidates, seed=seed, days=days)
    with errors.status("making it up") as status:
        written = write_market(
            market, out, truth=truth, progress=lambda name, rows: status.update(f"{name}: {rows:,} rows written")
        )
    document = {"folder": str(out), "rows": written.rows, "truth": str(truth) if truth else None}
    emit(document, json, lambda: _print_written(document))


def simulate(
    days: Annotated[int, typer.Option(min=1, max=365, help="Days to live through.")] = 14,
    seeds: Annotated[str, typer.Option(help="Seeds of the worlds, separated by commas.")] = "7,8",
    arms: Annotated[str, typer.Option(help="Arms, separated by commas.")] = (
        "retrained,frozen,frozen_models,tfidf,popularity"
    ),
    jobs: Jobs = None,
    candidates: Candidates = None,
    config: Name = "small",
    exploration: Annotated[float, typer.Option(min=0.0, max=0.5, help="Share of slots drawn at random.")] = 0.02,
    parallel: Annotated[int, typer.Option(min=1, help="Seeds at a time, each in a process of its own.")] = 1,
    json: Json = False,
) -> None:
    """Let candidates respond to what releases recommend, day after day with retraining, beside other policies.

    A run that was killed goes on where it stopped: finished days are kept below the home.
    """
    from rolecall.pipelines.lab.config import LabConfig, arm_names
    from rolecall.pipelines.lab.simulate import simulate as live

    lab_config = LabConfig(
        market=_market(config, jobs, candidates),
        days=days,
        seeds=_seeds(seeds),
        arms=arm_names(arms),
        exploration=exploration,
    )
    outcomes = live(
        lab_config,
        load_settings(),
        parallel=parallel,
        say=lambda line: errors.print(line, markup=False, soft_wrap=True),
    )
    emit(report(lab_config, outcomes), json, lambda: print_outcomes(lab_config, outcomes))


def report(config: LabConfig, outcomes: list[list[Outcome]]) -> dict[str, Any]:
    """Everything a simulation came to, as JSON values."""
    from rolecall.pipelines.lab.outcome import compare, table_rows

    ours = config.arms[0]
    return {
        "config": config.model_dump(mode="json"),
        "arms": table_rows(outcomes),
        "daily": {one.arm: [int(n) for n in one.daily] for one in outcomes[0]},
        "ours": ours,
        "applications_x": {arm: gap.to_dict() for arm, gap in compare(outcomes, ours=ours).items()},
    }


def print_outcomes(config: LabConfig, outcomes: list[list[Outcome]]) -> None:
    """The table of the arms, then the first arm against each of the others."""
    from rolecall.pipelines.lab.outcome import compare, table_rows, told

    world = f"{config.days} days, seeds {', '.join(map(str, config.seeds))}"
    console.print(table(f"Applications of those who came: {world}", table_rows(outcomes)))
    for arm, gap in compare(outcomes, ours=config.arms[0]).items():
        console.print(f"{config.arms[0]} over {arm:<14} x {told(gap)}  (ratio of applications, 95%)", markup=False)


def _print_written(document: dict[str, Any]) -> None:
    for name, rows in document["rows"].items():
        console.print(f"{name:<11} {rows:>12,} rows")
    console.print(f"next: rolecall ingest {document['folder']} --mapping native", markup=False, soft_wrap=True)


def _market(name: str, jobs: int | None, candidates: int | None, **more: Any) -> Any:
    from rolecall.pipelines.market.config import named

    sizes = {"jobs": jobs, "candidates": candidates, **more}
    return named(name, **{key: value for key, value in sizes.items() if value is not None})


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds {text!r}", "different whole numbers from 0, separated by commas")
    return seeds
