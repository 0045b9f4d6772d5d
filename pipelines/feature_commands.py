"""`rolecall features`: what every feature means, what it looked like, and what changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rolecall.features.pages import PAGES_FILE, Documented, documented, page
from rolecall.platform.console import EXIT_FAILED, Json, console, emit, table
from rolecall.platform.errors import InputError, NotFoundError
from rolecall.platform.settings import load_settings

if TYPE_CHECKING:
    from rolecall.pipelines.drift.measure import DriftReport
    from rolecall.pipelines.drift.statistics import FeatureStatistics
    from rolecall.platform.registry import Registry

app = typer.Typer(no_args_is_help=True, help="List and show features, what changed in them, and their pages.")
Release = Annotated[str | None, typer.Option("--release", help="Of this release; default the newest that has any.")]
_COLUMNS = ("name", "group", "kind", "unit", "window", "meaning")
_SHIFTS = ("alarm", "feature", "source", "over threshold", "moved", "psi", "missing", "mean")


@app.command("list")
def list_features(
    group: Annotated[str | None, typer.Option("--group", help="Of one view, `pair` or `people`.")] = None,
    json: Json = False,
) -> None:
    """Every feature with its meaning, unit, window, source and owner."""
    everything = documented()
    groups = tuple(dict.fromkeys(one.group for one in everything))
    if group is not None and group not in groups:
        raise InputError(f"no features of {group!r}", ", ".join(groups), "leave --group out to see all")
    rows = [one.to_dict() for one in everything if group in (None, one.group)]
    emit(rows, json, lambda: console.print(table("Features", rows, _COLUMNS)))


@app.command()
def show(name: str, release: Release = None, json: Json = False) -> None:
    """One feature: what it is, and its newest day's statistics wherever it was counted."""
    found = [one for one in documented() if one.feature.name == name]
    if not found:
        near = [one.feature.name for one in documented() if name in one.feature.name]
        allowed = ", ".join(dict.fromkeys(near)) or "a name of `rolecall features list`"
        raise NotFoundError(f"no feature {name!r}", allowed, "correct the name")
    counted = _counted(found, release)

    def render() -> None:
        for one in found:
            told = [{"": key, "what": value} for key, value in one.to_dict().items()]
            console.print(table(f"{name} ({one.group})", told))
        if counted:
            console.print(table("Its newest day", counted))

    emit({"features": [one.to_dict() for one in found], "statistics": counted}, json, render)


@app.command()
def drift(
    release: Release = None,
    everything: Annotated[bool, typer.Option("--all", help="Every column, not only the ten largest changes.")] = False,
    json: Json = False,
) -> None:
    """What changed on the newest day of a daily run, against the days before and the champion's training days."""
    from rolecall.pipelines.drift.measure import DriftReport

    told = _read(release, "drift")
    report = DriftReport.from_dict(told)
    emit(told, json, lambda: _print_drift(report, everything))


@app.command()
def pages(
    to: Annotated[Path, typer.Option("--to", help="The Markdown file to write.")] = PAGES_FILE,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 where it is out of date.")] = False,
    json: Json = False,
) -> None:
    """Write the feature pages from the definitions."""
    text = page()
    current = to.read_text(encoding="utf-8") if to.is_file() else None
    changed = current != text
    if changed and not check:
        if not to.parent.is_dir():
            raise InputError(f"{to.parent} is no folder", "a file in a folder that exists", "create it")
        to.write_text(text, encoding="utf-8")
    words = ("out of date" if check else "written") if changed else "up to date"
    emit({"file": str(to), "changed": changed}, json, lambda: console.print(f"{to} {words}"))
    if check and changed:
        raise typer.Exit(EXIT_FAILED)


def _print_drift(report: DriftReport, everything: bool) -> None:
    console.print(f"{report.day}, against {report.days} days before")
    if not report.days or report.threshold == float("inf"):
        console.print("too few days are known yet: nothing is judged")
    for title, shifts in (("Against the days before", report.shifts), ("Against the champion's days", report.training)):
        rows = [
            {
                "alarm": "DRIFT" if one.alarm else "",
                "feature": one.column,
                "source": one.source,
                "over threshold": one.figure / report.threshold if title.endswith("before") else None,
                "moved": f"{one.effect:.1%}",
                "psi": one.psi,
                "missing": f"{one.missing_before:.1%} > {one.missing_now:.1%}",
                "mean": f"{one.mean_before:.4g} > {one.mean_now:.4g}",
            }
            for one in (shifts if everything else shifts[:10])
        ]
        if rows:
            console.print(table(title, rows, _SHIFTS))
    for one in report.lost:
        console.print(f"{one.source} {one.words()}")


def _counted(found: list[Documented], release: str | None) -> list[dict[str, Any]]:
    """The newest day of each source that counted the feature; nothing where no run has been."""
    if release is None and not load_settings().home.is_dir():
        return []
    statistics = _statistics(release)
    names = {one.feature.name for one in found}
    names |= {f"{prefix}.{name}" for name in names for prefix in ("job", "candidate")}
    rows = []
    for source in statistics.sources() if statistics else ():
        newest = statistics.of(source)[-1] if statistics else None
        for name, one in (newest.columns if newest else {}).items():
            if name in names and newest:
                rows.append(
                    {
                        "source": source,
                        "day": str(newest.day),
                        "rows": one.rows,
                        "missing": f"{one.missing_share:.1%}",
                        "mean": one.mean,
                        "spread": one.spread,
                        "5, 25, 50, 75, 95%": " ".join(f"{value:.4g}" for value in one.quantiles),
                        "frequent": _frequent(statistics, (source, name), one.counts) if statistics else "",
                    }
                )
    return rows


def _frequent(statistics: FeatureStatistics, key: tuple[str, str], counts: tuple[int, ...]) -> str:
    values = statistics.definitions[key].sketch.values
    ranked = sorted(zip(values, counts, strict=False), key=lambda one: -one[1])
    return ", ".join(f"{value} {count:,}" for value, count in ranked[:5])


def _statistics(release: str | None) -> FeatureStatistics | None:
    from rolecall.pipelines.drift.statistics import STATISTICS_PART, FeatureStatistics

    registry = _registry()
    chosen = release or _newest(registry, STATISTICS_PART)
    return FeatureStatistics.from_bytes(registry.releases.read_part(chosen, STATISTICS_PART)) if chosen else None


def _read(release: str | None, part: str) -> dict[str, Any]:
    registry = _registry()
    chosen = release or _newest(registry, part)
    told = registry.releases.read_json(chosen, part) if chosen else None
    if told is None:
        raise NotFoundError(f"no release with {part}", "a release of a daily run", "run `rolecall run daily`")
    return told


def _newest(registry: Registry, part: str) -> str | None:
    """The release of the newest run that holds a part."""
    for info in registry.list():
        if info.taint is None or info.taint.purged_at is None:
            manifest = registry.releases.manifest(info.release_id)
            if any(one.name == part for one in manifest.parts):
                return info.release_id
    return None


def _registry() -> Registry:
    from rolecall.platform.registry import Registry

    return Registry.from_settings(load_settings())
