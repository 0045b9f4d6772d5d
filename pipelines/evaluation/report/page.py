"""The page: one HTML file with its style inside, no script, and nothing fetched from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from rolecall.pipelines.evaluation.report import charts, sections, tables, wording
from rolecall.pipelines.evaluation.report.figures import Report
from rolecall.pipelines.evaluation.report.weaknesses import unmeasured, weaknesses

_TEMPLATES = Path(__file__).parent / "templates"
_HEADLINES = {
    "first": "the first release, nothing was served before it",
    "better": "better than the champion, beyond noise",
    "equal": "as good as the champion, and cheaper or newer",
    "newer": "newer than the champion, and the log too small to tell them apart",
    "passed": "every rule of the gate holds",
}
_MARKED = ("p50", "p99")


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One of the figures on top: what it is, its value and what to know beside it."""

    name: str
    value: str
    note: str


def render(report: Report) -> str:
    """The report as HTML. Every text of the data is escaped."""
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            headline=headline(report),
            tiles=tiles(report),
            weaknesses=weaknesses(report),
            unmeasured=unmeasured(report),
            calibration=charts.calibration_plot(report.probability.bins) if report.probability else None,
            durations=_durations(report),
            total_bytes=sum(part.bytes for part in report.manifest.parts),
        )
    )


def headline(report: Report) -> str:
    """What the gate said, in half a sentence."""
    ruling = report.ruling
    if ruling.passed:
        return _HEADLINES.get(ruling.outcome, wording.plain(ruling.outcome))
    names = [wording.plain(check.name) for check in ruling.failed]
    if not names:
        return "no rule lets it replace the champion"
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def tiles(report: Report) -> tuple[Tile, ...]:
    """At most four figures that a reader looks for first."""
    jobs, metric = report.jobs, report.main_metric
    found = []
    if (main := jobs.release.get(metric)) is not None and main.known:
        note = f"{wording.number(main.low)} to {wording.number(main.high)}, {main.count:,} targets"
        found.append(Tile(name=wording.metric(metric).label, value=wording.number(main.mean), note=note))
    for one in jobs.against("champion"):
        gap = one.difference
        value = wording.signed(gap.mean) if one.relative is None else f"{wording.signed(one.relative * 100, 1)}%"
        note = f"{wording.signed(gap.mean)} [{wording.signed(gap.low)}, {wording.signed(gap.high)}]"
        found.append(Tile(name=f"Against the {wording.system(jobs.opponent).lower()}", value=value, note=note))
    if (hit := jobs.release.get("hr@10")) is not None and hit.known:
        note = "of targets: at least one of what they went for in the first ten"
        found.append(Tile(name=wording.metric("hr@10").label, value=wording.percent(hit.mean), note=note))
    if report.latency is not None:
        p50, p99 = report.latency.percentiles["p50"], report.latency.percentiles["p99"]
        found.append(Tile(name="Slowest hundredth", value=f"{p99:,.0f} ms", note=f"median {p50:,.1f} ms, in process"))
    return tuple(found)


def _durations(report: Report) -> charts.Plot | None:
    if report.latency is None:
        return None
    marks = [(name, report.latency.percentiles[name]) for name in _MARKED]
    return charts.histogram_plot(report.latency.histogram, marks)


@cache
def _environment() -> Environment:
    """Autoescape is on for every template; a name that does not exist is an error and not nothing."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"tables": tables, "sections": sections, "wording": wording}
    return environment
