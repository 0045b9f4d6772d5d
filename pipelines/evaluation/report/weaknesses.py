"""What a release does badly, in words, from its figures alone; the worst first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from rolecall.pipelines.evaluation.gate.evidence import CHAMPION, REFRESHED
from rolecall.pipelines.evaluation.report import wording
from rolecall.pipelines.evaluation.report.figures import (
    Comparison,
    Direction,
    Estimate,
    Fairness,
    Latency,
    Probability,
    Report,
    Slice,
)

Severity = Literal["worse", "weak", "thin"]

FEW_TARGETS = 100
"""Fewer say little about a release as a whole."""

FEW_IN_SLICE = 30
"""Fewer say little about a slice."""

EVEN_EXPOSURE = 0.8
"""Four fifths: the share under which unequal treatment is presumed (EEOC Uniform Guidelines 1978, 29 CFR 1607.4 D)."""

_SLOPE_OFF = 0.1
_ECE_OFF = 0.25
_LONG_TAIL = 5.0
_LOST = 0.005
_NAMED = 5
_DRIFTS = 5
_ORDER: tuple[Severity, ...] = ("worse", "weak", "thin")


@dataclass(frozen=True, kw_only=True)
class Weakness:
    """`severity`: surely worse than something, weak, or measured on too little to say."""

    severity: Severity
    text: str


def weaknesses(report: Report) -> tuple[Weakness, ...]:
    """Everything the figures hold against the release, whatever the gate said; empty where they hold nothing."""
    metric = report.main_metric
    found = chain(
        _of_direction(report.jobs, metric, ""),
        _of_direction(report.people, metric, "People for jobs: ") if report.people else (),
        _of_probability(report.probability) if report.probability else (),
        _of_catalogue(report.jobs),
        _of_fairness(report.fairness) if report.fairness else (),
        _of_latency(report.latency) if report.latency else (),
        _of_drift(report.drift),
    )
    return tuple(sorted(found, key=lambda one: _ORDER.index(one.severity)))


def unmeasured(report: Report) -> tuple[str, ...]:
    """What this report says nothing about, and why."""
    absent = {
        "How it compares with a champion: none was served, or its figures were not kept.": not report.jobs.against(
            "champion"
        ),
        "People for jobs: this release recommends nobody, or nothing was known to judge it by.": report.people is None,
        "Calibration: the log holds no impressions with outcomes to hold probabilities against.": report.probability
        is None,
        "What becomes of the catalogue: exposure, novelty and diversity were not measured.": not report.jobs.catalogue,
        "Slices: targets were not cut by anything.": not report.jobs.slices,
        "Fairness: no audit was made.": report.fairness is None,
        "Latency: no request was timed.": report.latency is None,
        "What it would have brought: logged visits say nothing of it.": report.log is None or not report.log.rows,
        "Single answers: lists were not kept.": report.samples is None,
        "Single answers about people: lists, or titles to show them by, were not kept.": report.people is not None
        and report.people_samples is None,
    }
    return tuple(text for text, missing in absent.items() if missing)


def _of_direction(direction: Direction, metric: str, prefix: str) -> Iterator[Weakness]:
    found = chain(
        (one for c in direction.comparisons for one in _of_comparison(c, metric)),
        _other_metrics(direction, metric),
        _missed(direction),
        _of_stages(direction),
        _of_slices(direction, metric),
        _few(direction, metric),
    )
    return (Weakness(severity=one.severity, text=prefix + one.text) for one in found)


def _of_comparison(comparison: Comparison, metric: str) -> Iterator[Weakness]:
    gap, name = comparison.difference, _named(comparison.name)
    if not gap.known:
        return
    figures = f"{_label(metric)} {wording.signed(gap.mean)} {_range(gap, signed=True)}"
    if gap.high < 0:
        yield Weakness(severity="worse", text=f"Surely worse than {name}: {figures}.")
    elif gap.mean < 0:
        yield Weakness(severity="weak", text=f"Behind {name}, though not surely: {figures}.")
    elif gap.low <= 0:
        yield Weakness(severity="weak", text=f"Not surely better than {name}: {figures}.")


def _other_metrics(direction: Direction, metric: str) -> Iterator[Weakness]:
    """Metrics in which other systems, asked the same, have the higher mean."""
    others = [
        one for one in direction.systems if one.kind == "baseline" or (one.kind == "champion" and not direction.apart)
    ]
    for name, ours in direction.release.items():
        ahead = [one for one in others if name != metric and _behind(name, ours, one.metrics.get(name))]
        if ahead:
            named = ", ".join(f"{_named(one.name)} {wording.number(one.metrics[name].mean)}" for one in ahead)
            text = f"Behind others in {_label(name)}: {wording.number(ours.mean)}, {named}."
            yield Weakness(severity="weak", text=text)


def _behind(name: str, ours: Estimate, theirs: Estimate | None) -> bool:
    if theirs is None or not (ours.known and theirs.known):
        return False
    return (theirs.mean - ours.mean) * wording.metric(name).better > 1e-12


def _missed(direction: Direction) -> Iterator[Weakness]:
    hit = direction.release.get("hr@10")
    if hit is not None and hit.known and hit.mean < 1:
        share = wording.percent(1 - hit.mean)
        yield Weakness(severity="weak", text=f"For {share} of targets none of what they went for is in the first ten.")


def _of_stages(direction: Direction) -> Iterator[Weakness]:
    before, lost = 1.0, []
    for stage in direction.stages:
        if stage.release.known and before - stage.release.mean >= _LOST:
            lost.append(f"{wording.percent(before - stage.release.mean, 1)} in \u201c{wording.stage(stage.name)}\u201d")
        before = min(before, stage.release.mean)
    if lost:
        text = f"Of what they went for it loses {' and '.join(lost)}; no later stage can bring that back."
        yield Weakness(severity="weak", text=text)


def _of_slices(direction: Direction, metric: str) -> Iterator[Weakness]:
    overall = direction.release.get(metric)
    told = [one for one in direction.slices if one.release.known]
    for one in sorted(told, key=lambda s: s.difference.mean if s.difference else 0.0):
        gap = one.difference
        if gap is not None and gap.high < 0 and gap.count >= FEW_IN_SLICE:
            figures = f"{_label(metric)} {wording.signed(gap.mean)} {_range(gap, signed=True)}"
            yield Weakness(
                severity="worse", text=f"Surely worse than {_named(direction.opponent)} for {_slice(one)}: {figures}."
            )
    if overall is None or not overall.known:
        return
    low = [
        one
        for one in sorted(told, key=lambda s: s.release.mean)
        if one.release.high < overall.mean and one.release.count >= FEW_IN_SLICE
    ]
    if low:
        named = "; ".join(
            f"{_slice(one)} {wording.number(one.release.mean)} {_range(one.release)}" for one in low[:_NAMED]
        )
        text = f"{_label(metric)} is {wording.number(overall.mean)} over all, and surely lower for {named}."
        yield Weakness(severity="weak", text=text)


def _few(direction: Direction, metric: str) -> Iterator[Weakness]:
    main = direction.release.get(metric)
    if direction.targets < FEW_TARGETS and main is not None:
        width = (
            f" {_label(metric)} is known to \u00b1{wording.number((main.high - main.low) / 2)}." if main.known else ""
        )
        yield Weakness(severity="thin", text=f"Only {direction.targets} targets:{width or ' nothing can be said.'}")
    small = [one for one in direction.slices if one.release.count < FEW_IN_SLICE]
    if small:
        named = ", ".join(f"{_slice(one)} ({one.release.count})" for one in small)
        yield Weakness(severity="thin", text=f"Too few targets to say much: {named}.")


def _of_probability(probability: Probability) -> Iterator[Weakness]:
    figures = probability.figures
    slope, ece, constant = (figures[name] for name in ("slope", "ece", "constant_ece"))
    if figures["normalized_entropy"] >= 1:
        text = f"normalised entropy {wording.number(figures['normalized_entropy'])}"
        yield Weakness(severity="worse", text=f"Its probabilities say no more than the base rate: {text}.")
    if abs(slope - 1) > _SLOPE_OFF and not figures["slope_low"] <= 1 <= figures["slope_high"]:
        how = "overconfident: high ones are too high, low ones too low" if slope < 1 else "too timid"
        yield Weakness(severity="weak", text=f"Its probabilities are {how} (slope {wording.number(slope)}).")
    if ece >= constant:
        text = f"{wording.number(ece)}, a constant by {wording.number(constant)}"
        yield Weakness(severity="worse", text=f"Its probabilities are further off than a constant: by {text}.")
    elif ece > _ECE_OFF * constant:
        share = f"{wording.percent(ece / constant)} of what a constant would be"
        yield Weakness(severity="weak", text=f"Its probabilities are off by {wording.number(ece)}, {share}.")


def _of_catalogue(direction: Direction) -> Iterator[Weakness]:
    ours = direction.catalogue.get("funnel", {})
    champion = direction.catalogue.get(direction.opponent, {})
    coverage = ours.get("coverage@10")
    if coverage is not None and coverage < 1:
        text = f"{wording.percent(1 - coverage)} of the live jobs are in nobody\u2019s first ten"
        yield Weakness(severity="weak", text=f"{text}, among those asked about.")
    ahead = [
        f"{words.label} ({wording.number(theirs)} against {wording.number(value)})"
        for name, value in ours.items()
        if (theirs := champion.get(name)) is not None
        and (theirs - value) * (words := wording.metric(name)).better > 1e-12
    ]
    if ahead:
        yield Weakness(
            severity="weak", text=f"{_named(direction.opponent).capitalize()} is better in {', '.join(ahead)}."
        )


def _of_fairness(fairness: Fairness) -> Iterator[Weakness]:
    if fairness.changed:
        text = f"{fairness.changed:,} of {fairness.swaps:,} answers changed when only a name or pronoun did"
        yield Weakness(severity="worse", text=f"{text}.")
    for group, ratio in fairness.exposure.items():
        if ratio.known and ratio.high < EVEN_EXPOSURE:
            text = f"Surely gets less exposure than the others: {wording.plain(group)}"
            yield Weakness(severity="worse", text=f"{text}, {wording.number(ratio.mean)} {_range(ratio)} of theirs.")
        elif ratio.known and ratio.mean < EVEN_EXPOSURE:
            text = f"May get less exposure than the others: {wording.plain(group)}"
            yield Weakness(severity="weak", text=f"{text}, {wording.number(ratio.mean)} {_range(ratio)} of theirs.")


def _of_latency(latency: Latency) -> Iterator[Weakness]:
    median, p99, theirs = latency.percentiles["p50"], latency.percentiles["p99"], latency.champion.get("p99")
    if p99 > _LONG_TAIL * median > 0:
        text = f"One request in a hundred takes {p99:,.0f} ms or more, {p99 / median:.0f} times the median"
        yield Weakness(severity="weak", text=f"{text}.")
    if theirs is not None and p99 > theirs:
        text = (
            f"Slower than the champion: the slowest hundredth takes {p99:,.1f} ms, the champion\u2019s {theirs:,.1f} ms"
        )
        yield Weakness(severity="weak", text=f"{text} (measured once, on one machine).")


def _of_drift(warnings: tuple[str, ...]) -> Iterator[Weakness]:
    for text in warnings[:_DRIFTS]:
        yield Weakness(severity="weak", text=f"Its features: {text}.")
    if len(warnings) > _DRIFTS:
        yield Weakness(severity="weak", text=f"{len(warnings) - _DRIFTS:,} more features drifted.")


def _named(system: str) -> str:
    return f"the {system}" if system in (CHAMPION, REFRESHED) else f"\u201c{wording.system(system)}\u201d"


def _slice(one: Slice) -> str:
    return f"{wording.slice_kind(one.kind).lower()} \u201c{wording.plain(one.value)}\u201d"


def _label(metric: str) -> str:
    return wording.metric(metric).label


def _range(estimate: Estimate, *, signed: bool = False) -> str:
    write = wording.signed if signed else wording.number
    return f"[{write(estimate.low)}, {write(estimate.high)}]"
