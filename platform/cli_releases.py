"""`rolecall releases`: what was built, what is served, and the way forward and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rolecall.platform.console import Json, console, emit, table
from rolecall.platform.settings import load_settings

if TYPE_CHECKING:
    from rolecall.platform.registry import Registry

app = typer.Typer(no_args_is_help=True, help="List, show, promote, roll back and compare releases.")

ReleaseId = Annotated[str, typer.Argument(metavar="RELEASE", help="16 hex digits, as `releases list` prints them.")]
Why = Annotated[str, typer.Option("--why", help="Kept beside the promotion.")]
_OPPONENTS = ("refreshed champion", "champion")
"""What the gate compares with, by the names of its checks."""


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
        for info in open_registry().list()
    ]
    columns = ("release", "version", "aliases", "gate", "registered", "state")
    emit(rows, json, lambda: console.print(table("Releases", rows, columns)))


@app.command()
def show(release: ReleaseId, json: Json = False) -> None:
    """One release, refused ones too: the verdict with its evidence, table versions, parts and metrics."""
    registry = open_registry()
    info, manifest = registry.get(release), registry.releases.manifest(release)
    verdict = registry.releases.read_json(release, "verdict")
    document = {**asdict(info), "manifest": asdict(manifest), "verdict": verdict}

    def render() -> None:
        console.print(f"[bold]{release}[/] version {info.version}  {', '.join(info.aliases) or 'no alias'}")
        console.print(f"as of {manifest.as_of}, gate: {info.gate or 'not judged'}  {info.state}")
        for reason in info.reasons:
            console.print(f"  - {reason}", markup=False)
        if verdict is not None:
            print_verdict(release, verdict)
            if info.gate != ("passed" if verdict.get("passed") else "refused"):
                console.print("judged anew since: the gate's word above is the newest, this evidence the first night's")
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
    registry = open_registry()
    done = registry.promote(release, expected=registry.reconcile(), why=why, gated=not ungated)
    emit(asdict(done), json, lambda: console.print(f"champion is now [bold]{done.to_release}[/]"))


@app.command()
def rollback(why: Why = "by hand", json: Json = False) -> None:
    """Return to the champion before this one; automatic promotion waits until `releases resume`."""
    done = open_registry().rollback(why)
    emit(asdict(done), json, lambda: console.print(f"champion is again [bold]{done.to_release}[/]; promotion is held"))


@app.command()
def resume(why: Why = "by hand", json: Json = False) -> None:
    """End the hold that a rollback set."""
    ended = open_registry().resume(why)
    text = "automatic promotion goes on" if ended else "nothing was held"
    emit({"resumed": ended}, json, lambda: console.print(text))


@app.command()
def diff(before: ReleaseId, after: ReleaseId, json: Json = False) -> None:
    """What differs between two releases: code, tables, settings, parts, metrics, and every slice's quality.

    Where the second was judged against the first, differences of slices are paired, with their 95% intervals; else
    each slice is measured on its own night's targets."""
    registry = open_registry()
    registry.get(before)
    registry.get(after)
    rows = [_with_difference(asdict(change)) for change in registry.diff(before, after)]
    rows += slice_rows(*(registry.releases.read_json(one, "evaluation") for one in (before, after)))
    rows = with_pairs(rows, registry.releases.read_json(after, "verdict"), before)
    columns = ("where", "before", "after", "difference", "paired [95%]")
    emit(rows, json, lambda: console.print(table(f"{before} -> {after}", rows, columns)))


@app.command()
def history(json: Json = False) -> None:
    """Every promotion and rollback: when, who, from, to, why, gated or not."""
    rows = [asdict(row) for row in open_registry().promotions.history()]
    columns = ("at", "action", "from_release", "to_release", "who", "why", "gated")
    emit(rows, json, lambda: console.print(table("Promotions", rows, columns)))


def print_verdict(release: str, verdict: dict[str, Any]) -> None:
    """The outcome and every check of a `verdict.json`."""
    champion, compared = verdict.get("champion"), verdict.get("against") or verdict.get("champion")
    against = f" against {compared}" if compared else ""
    if champion and compared != champion:
        against += f", the rankers of the champion {champion} over the same catalogue"
    console.print(f"verdict on [bold]{release}[/]: [bold]{verdict.get('outcome', 'not stated')}[/]{against}")
    rows = [{"check": c["name"], "": "ok" if c["ok"] else "NO", "evidence": c["detail"]} for c in verdict["checks"]]
    console.print(table("Checks", rows))


def slice_rows(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A line a slice of two `evaluation.json`: means, and what the second has more."""
    one, two = ((document or {}).get("slices", {}) for document in (before, after))
    return [
        _with_difference(
            {
                "where": f"slices.{name}",
                "before": one.get(name, {}).get("mean"),
                "after": two.get(name, {}).get("mean"),
            }
        )
        for name in sorted({*one, *two})
    ]


def _with_difference(row: dict[str, Any]) -> dict[str, Any]:
    numbers = [value for value in (row["before"], row["after"]) if isinstance(value, float)]
    return row | {"difference": numbers[1] - numbers[0] if len(numbers) == 2 else None}


def with_pairs(rows: list[dict[str, Any]], verdict: dict[str, Any] | None, champion: str) -> list[dict[str, Any]]:
    """The rows with the paired difference of each slice, and of all targets, where the verdict was against it, or
    against its rankers over the same catalogue."""
    told = verdict or {}
    judged = told.get("checks", []) if champion in (told.get("champion"), told.get("against")) else []
    gaps = {check["name"].removeprefix("slice "): check.get("evidence", {}) for check in judged}
    opponent = next((one for one in _OPPONENTS if f"against {one}" in gaps), "champion")
    whole = gaps.get(f"against {opponent}", {})
    if whole.get("difference") is not None and whole.get("champion") is not None:
        where = "paired targets" if opponent == "champion" else f"paired targets ({opponent})"
        told = {"where": where, "before": whole["champion"]}
        told |= {"after": whole["champion"] + whole["difference"], "difference": whole["difference"]}
        rows = [*rows, told | {"paired [95%]": _gap(whole | {"mean": whole["difference"]})}]
    return [{"paired [95%]": _gap(gaps.get(str(row["where"]).removeprefix("slices."), {}))} | row for row in rows]


def _gap(gap: dict[str, Any]) -> str | None:
    if any(gap.get(name) is None for name in ("mean", "low", "high")):
        return None
    return f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]"


def open_registry() -> Registry:
    """The registry of the settings in force."""
    from rolecall.platform.registry import Registry

    return Registry.from_settings(load_settings())
