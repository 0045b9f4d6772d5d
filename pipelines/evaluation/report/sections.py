"""The tables of each section of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import groupby

from markupsafe import Markup

from rolecall.pipelines.evaluation.gate.evidence import CHAMPION, REFRESHED
from rolecall.pipelines.evaluation.gate.power import Power
from rolecall.pipelines.evaluation.report import charts, wording
from rolecall.pipelines.evaluation.report.figures import (
    Comparison,
    Direction,
    Estimate,
    Fairness,
    Kind,
    Latency,
    LogFigure,
    LogFigures,
    Slice,
    System,
)
from rolecall.pipelines.evaluation.report.tables import NONE, Forest, Group, Row, figure, interval
from rolecall.pipelines.evaluation.report.weaknesses import FEW_IN_SLICE

_KINDS: Mapping[str, Kind] = {"funnel": "release", "rival": "release", CHAMPION: "champion", REFRESHED: "champion"}
_ORDER: tuple[Kind, ...] = ("release", "champion", "baseline")


def headline(direction: Direction, metric: str) -> Forest:
    """The main metric of every system."""
    return _systems_forest(direction, metric, most=6, caption=f"{wording.metric(metric).label} of every system")


def other_metrics(direction: Direction, metric: str) -> tuple[Forest, ...]:
    """A small table for each other metric."""
    names = dict.fromkeys(name for system in direction.systems for name in system.metrics if name != metric)
    return tuple(_systems_forest(direction, name, most=4, caption=wording.metric(name).label) for name in names)


def differences(direction: Direction, metric: str) -> Forest:
    """The release less each other system, on the same targets."""
    told = direction.comparisons
    axis = charts.axis_over([0.0, *_ends(one.difference for one in told)])
    label = wording.metric(metric).label
    apart = (
        f" {wording.system(direction.opponent)}: on the {direction.compared_targets:,} targets both were asked."
        if direction.apart
        else ""
    )
    return Forest(
        caption=f"{label}: this release less the others, on the same targets",
        meaning=f"Right of zero this release is better; where the interval holds zero, nobody can say.{apart}",
        first="Less",
        heads=("Difference", "Relative", "Targets"),
        groups=(Group(name="", rows=tuple(_difference_row(one, axis) for one in told)),),
        axis=charts.axis_strip(axis),
    )


def duels(direction: Direction) -> Forest | None:
    """For how many targets the release was better, alike or worse; None where single targets are not known."""
    told = [one for one in direction.comparisons if one.wins is not None]
    if not told:
        return None
    return Forest(
        caption="For how many targets it was better, alike or worse",
        first="Against",
        heads=("Better", "Alike", "Worse"),
        groups=(Group(name="", rows=tuple(_duel_row(one) for one in told)),),
        axis=Markup(""),
    )


def stages(direction: Direction) -> Forest:
    """What is left of what was wanted after each stage, down to the first ten."""
    kept = [(wording.stage(one.name), one.release, one.champion) for one in direction.stages]
    champion = next((one.metrics for one in direction.systems if one.kind == "champion"), {})
    for name in sorted((name for name in direction.release if name.startswith("recall@")), key=_depth, reverse=True):
        theirs = champion.get(name)
        kept.append((f"Ranked, first {_depth(name):,}", direction.release[name], theirs))
    compared = any(theirs is not None for _, _, theirs in kept)
    axis = charts.axis_over([0.0, 1.0])
    rows, before = [], 1.0
    for label, release, theirs in kept:
        lost = max(before - release.mean, 0.0) if release.known else math.nan
        before = min(before, release.mean) if release.known else before
        rows.append(
            Row(
                label=label,
                strip=charts.bar_strip(axis, release.mean, "release", beside=theirs.mean if theirs else None),
                cells=(interval(release), figure(lost), *((interval(theirs),) if compared else ())),
            )
        )
    return Forest(
        caption="Share of what was wanted that is still there",
        meaning="What a stage loses no later stage can bring back; the ranked rows are the same jobs in their order.",
        first="After",
        heads=("Still there", "Lost here", *((wording.system(direction.opponent),) if compared else ())),
        groups=(Group(name="", rows=tuple(rows)),),
        axis=charts.axis_strip(axis),
    )


def slices(direction: Direction, metric: str) -> Forest:
    """The main metric by slice, grouped by what it is cut by."""
    told = direction.slices
    overall, compared = direction.release.get(metric), any(one.champion is not None for one in told)
    shown = [estimate for one in told for estimate in (one.release, one.champion) if estimate is not None]
    axis = charts.axis_over([0.0, *_ends(shown)])
    line = overall.mean if overall is not None and overall.known else None
    parted = groupby(sorted(told, key=lambda one: one.kind), key=lambda one: one.kind)
    label = wording.metric(metric).label
    apart = (
        " What it is compared with, and the difference, are on the targets both were asked." if direction.apart else ""
    )
    return Forest(
        caption=f"{label} by slice",
        meaning=f"The dashed line is this release over all targets.{apart}",
        first="Slice",
        heads=("This release", *((wording.system(direction.opponent), "Difference") if compared else ()), "Targets"),
        groups=tuple(
            Group(
                name=wording.slice_kind(kind),
                rows=tuple(_slice_row(one, axis, line, compared=compared) for one in part),
            )
            for kind, part in parted
        ),
        axis=charts.axis_strip(axis),
    )


def catalogue(direction: Direction) -> tuple[Forest, ...]:
    """A small table for each figure about what becomes of the catalogue."""
    table = direction.catalogue
    order = sorted(table, key=lambda name: _ORDER.index(_kind(name)))
    names = dict.fromkeys(metric for system in order for metric in table[system])
    found = []
    for name in names:
        told = [(system, table[system][name]) for system in order if name in table[system]]
        axis = charts.axis_over([0.0, *(value for _, value in told)], most=4)
        rows = tuple(
            Row(
                label=wording.system(system),
                kind=_kind(system),
                strip=charts.bar_strip(axis, value, _kind(system)),
                cells=(Markup("<b>{}</b>").format(figure(value)),),
            )
            for system, value in told
        )
        found.append(_card(name, rows, axis))
    return tuple(found)


def exposure(fairness: Fairness) -> Forest:
    """Exposure of each group over that of the others."""
    axis = charts.axis_over([0.8, 1.0, *_ends(fairness.exposure.values())])
    rows = tuple(
        Row(
            label=wording.plain(group),
            strip=charts.interval_strip(axis, ratio, "release", reference=1.0),
            cells=(interval(ratio), Markup(f"{ratio.count:,}")),
        )
        for group, ratio in fairness.exposure.items()
    )
    return Forest(
        caption="Exposure of a group over that of the others",
        meaning="1 is parity; under 0.8, four fifths, unequal treatment is presumed (EEOC Uniform Guidelines, 1978).",
        first="Group",
        heads=("Ratio", "Count"),
        groups=(Group(name="", rows=rows),),
        axis=charts.axis_strip(axis),
    )


def logged(log: LogFigures, opponent: str) -> Forest:
    """Applications a logged visit by each estimator."""
    axis = charts.axis_over([0.0, *_ends(row.value for row in log.rows)])
    compared = any(row.less_champion is not None for row in log.rows)
    return Forest(
        caption="Applications a logged visit, had this release answered it",
        meaning="Right where a slot's outcome depends on the job and on how far down it stands (position-based model).",
        first="Estimator",
        heads=(
            "Applications",
            *((f"Less {wording.system(opponent).lower()}",) if compared else ()),
            "Effective visits",
        ),
        groups=(Group(name="", rows=tuple(_log_row(row, axis, compared=compared) for row in log.rows)),),
        axis=charts.axis_strip(axis),
    )


def power(told: Power) -> tuple[tuple[str, str, str, str], ...]:
    """A line an effect: what it is, the chance of seeing it now, the targets and the days that see it."""

    def count(number: int | None) -> str:
        return NONE if number is None else f"{number:,}"

    return tuple(
        (f"{row.effect:.0%}", wording.percent(row.now), count(row.targets), count(row.days)) for row in told.rows
    )


def latencies(latency: Latency) -> tuple[tuple[str, Markup, Markup], ...]:
    """Percentile, milliseconds of the release, of the champion."""

    def took(milliseconds: float | None) -> str:
        return f"{wording.number(milliseconds, 1)} ms"

    return tuple(
        (name, figure(value, took), figure(latency.champion.get(name), took))
        for name, value in latency.percentiles.items()
    )


def _systems_forest(direction: Direction, metric: str, *, most: int, caption: str) -> Forest:
    words = wording.metric(metric)
    told = [one for one in sorted(direction.systems, key=lambda one: _ORDER.index(one.kind)) if metric in one.metrics]
    axis = charts.axis_over([0.0, *_ends(system.metrics[metric] for system in told)], most=most)
    return Forest(
        caption=caption,
        meaning=_meaning(words),
        first="System",
        heads=(words.label,),
        groups=(Group(name="", rows=tuple(_system_row(system, metric, axis) for system in told)),),
        axis=charts.axis_strip(axis),
    )


def _system_row(system: System, metric: str, axis: charts.Axis) -> Row:
    estimate = system.metrics[metric]
    return Row(
        label=wording.system(system.name),
        kind=system.kind,
        strip=charts.interval_strip(axis, estimate, system.kind),
        cells=(interval(estimate),),
    )


def _difference_row(one: Comparison, axis: charts.Axis) -> Row:
    return Row(
        label=wording.system(one.name),
        kind=one.kind,
        strip=charts.interval_strip(axis, one.difference, "release", reference=0.0),
        cells=(
            interval(one.difference, wording.signed),
            Markup(NONE) if one.relative is None else figure(one.relative, _relative),
            Markup(f"{one.difference.count:,}"),
        ),
    )


def _relative(share: float | None) -> str:
    return NONE if share is None else f"{wording.signed(share * 100, 1)}%"


def _duel_row(one: Comparison) -> Row:
    wins, ties, losses = one.wins or 0, one.ties or 0, one.losses or 0
    return Row(
        label=wording.system(one.name),
        kind=one.kind,
        strip=charts.shares_strip(wins, ties, losses),
        cells=tuple(Markup(f"<b>{count:,}</b>") for count in (wins, ties, losses)),
    )


def _slice_row(one: Slice, axis: charts.Axis, line: float | None, *, compared: bool) -> Row:
    return Row(
        label=wording.plain(one.value),
        note="few" if one.release.count < FEW_IN_SLICE else "",
        strip=charts.interval_strip(axis, one.release, "release", beside=one.champion, reference=line),
        cells=(
            interval(one.release),
            *((interval(one.champion), interval(one.difference, wording.signed)) if compared else ()),
            Markup(f"{one.release.count:,}"),
        ),
    )


def _log_row(one: LogFigure, axis: charts.Axis, *, compared: bool) -> Row:
    less = (Markup(NONE) if one.less_champion is None else interval(one.less_champion, wording.signed),)
    return Row(
        label=wording.estimator(one.name),
        note="weak" if one.warnings else "",
        strip=charts.interval_strip(axis, one.value, "release"),
        cells=(
            interval(one.value),
            *(less if compared else ()),
            Markup(f"{one.effective:,.0f} of {one.visits:,}"),
        ),
    )


def _card(name: str, rows: tuple[Row, ...], axis: charts.Axis) -> Forest:
    words = wording.metric(name)
    return Forest(
        caption=words.label,
        meaning=_meaning(words),
        first="System",
        heads=(words.label,),
        groups=(Group(name="", rows=rows),),
        axis=charts.axis_strip(axis),
    )


def _meaning(words: wording.Metric) -> str:
    side = {1: "more is better", -1: "less is better", 0: ""}[words.better]
    told = "; ".join(part for part in (words.meaning, side) if part)
    return told[:1].upper() + told[1:]


def _ends(estimates: Iterable[Estimate]) -> list[float]:
    return [end for one in estimates for end in (one.low, one.mean, one.high)]


def _kind(system: str) -> Kind:
    return _KINDS.get(system, "baseline")


def _depth(metric: str) -> int:
    k = metric.partition("@")[2]
    return int(k) if k.isdigit() else 0
