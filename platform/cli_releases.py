"""`rolecall releases`: what was built, what is served, and the way forward and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rolecall.platform.console import Json, console, emit, table
from rolecall.platform.settings import load_settings

if TYPE_CHECKING:
    from rolecall.platform.registry import Registry

app = typer.Typer(no_args_is_help=True, help="List, show, promote, roll back and compare releases.")

ReleaseId = Annotated[str, typer.Argument(metavar="RELEASE", help="16 hex digits, as `releases list` prints them.")]
Why = Annotated[str, typer.Option("--why", help="Kept beside the promotion.")]


@app.command("list")
def list_releases(json: Json = False) -> None:
    """Every release, newest first, with aliases and the gate's verdict."""
    rows = [
        {
            "release": info.release_id,
            "version": info.version,
            "aliases": ", ".join(info.aliases),
            "gate": info.gate or "not judged",
            "registered": f"{info.registered_at:%Y-%m-%d %H:%M}",
            "state": info.state,
        }
        for info in _registry().list()
    ]
    columns = ("release", "version", "aliases", "gate", "registered", "state")
    emit(rows, json, lambda: console.print(table("Releases", rows, columns)))


@app.command()
def show(release: ReleaseId, json: Json = False) -> None:
    """One release: verdict, reasons, table versions, parts and metrics."""
    registry = _registry()
    info, manifest = registry.get(release), registry.releases.manifest(release)
    document = {**asdict(info), "manifest": asdict(manifest)}

    def render() -> None:
        console.print(f"[bold]{release}[/] version {info.version}  {', '.join(info.aliases) or 'no alias'}")
        console.print(f"as of {manifest.as_of}, gate: {info.gate or 'not judged'}")
        for reason in info.reasons:
            console.print(f"  - {reason}", markup=False)
        parts = [{"part": p.name, "file": p.file, "bytes": p.bytes, "sha256": p.sha256[:16]} for p in manifest.parts]
        console.print(table("Parts", parts))
        console.print(table("Tables", [{"table": k, "version": v} for k, v in manifest.tables.items()]))
        console.print(table("Metrics", [{"metric": k, "value": v} for k, v in manifest.metrics.items()]))

    emit(document, json, render)


@app.command()
def promote(
    release: ReleaseId,
    why: Why = "by hand",
    ungated: Annotated[bool, typer.Option("--ungated", help="Without a passed gate; recorded as such.")] = False,
    json: Json = False,
) -> None:
    """Make a release the champion. Refused where the champion changed meanwhile, or the gate did not pass it."""
    registry = _registry()
    done = registry.promote(release, expected=registry.reconcile(), why=why, gated=not ungated)
    emit(asdict(done), json, lambda: console.print(f"champion is now [bold]{done.to_release}[/]"))


@app.command()
def rollback(why: Why = "by hand", json: Json = False) -> None:
    """Return to the champion before this one; automatic promotion waits until `releases resume`."""
    done = _registry().rollback(why)
    emit(asdict(done), json, lambda: console.print(f"champion is again [bold]{done.to_release}[/]; promotion is held"))


@app.command()
def resume(why: Why = "by hand", json: Json = False) -> None:
    """End the hold that a rollback set."""
    ended = _registry().resume(why)
    text = "automatic promotion goes on" if ended else "nothing was held"
    emit({"resumed": ended}, json, lambda: console.print(text))


@app.command()
def diff(before: ReleaseId, after: ReleaseId, json: Json = False) -> None:
    """What differs between two releases: code, tables, settings, parts, metrics."""
    rows = [asdict(change) for change in _registry().diff(before, after)]
    emit(rows, json, lambda: console.print(table(f"{before} -> {after}", rows, ("where", "before", "after"))))


@app.command()
def history(json: Json = False) -> None:
    """Every promotion and rollback: when, who, from, to, why, gated or not."""
    rows = [asdict(row) for row in _registry().promotions.history()]
    columns = ("at", "action", "from_release", "to_release", "who", "why", "gated")
    emit(rows, json, lambda: console.print(table("Promotions", rows, columns)))


def _registry() -> Registry:
    from rolecall.platform.registry import Registry

    return Registry.from_settings(load_settings())
