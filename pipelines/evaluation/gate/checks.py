"""The checks beside the comparison with the champion. Each names what it saw; a loss counts only where it is sure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from rolecall.pipelines.evaluation.gate.evidence import Answers, Evidence, Pairs
from rolecall.pipelines.evaluation.gate.verdict import Check
from rolecall.pipelines.evaluation.judge import MAIN_METRIC
from rolecall.pipelines.evaluation.statistics import (
    Interval,
    Values,
    benjamini_hochberg,
    bootstrap_columns,
    holm,
    sign_flip,
    sign_flip_columns,
)
from rolecall.platform.gate_rules import CalibrationRules, FairnessRules, GateRules

_CORRECTIONS: Mapping[str, Callable[[Values], Values]] = {
    "holm": holm,
    "benjamini_hochberg": benjamini_hochberg,
    "none": lambda p_values: p_values,
}


def other_checks(evidence: Evidence, rules: GateRules) -> Iterator[Check]:
    """Every check but the one against the champion."""
    yield _targets(evidence, rules)
    yield from _baselines(evidence.answers, rules)
    if evidence.champion is not None:
        yield from _slices(evidence.champion, rules)
    if evidence.people is not None:
        yield from _people(evidence.people, rules, evidence.opponent)
    yield from _catalogue(evidence, rules.catalogue.min_live)
    yield _calibration(evidence.impressions, rules.calibration)
    yield _latency(evidence.answers.milliseconds, rules.latency.max_p99_ms)
    size = evidence.size_bytes / 2**20
    yield _at_most("size", size, rules.size.max_mb, "MB")
    yield _none("schema", evidence.schema_errors, "columns agree")
    yield _none("leaks", evidence.leaks, "none found")
    yield from _fairness(evidence, rules.fairness)


def _targets(evidence: Evidence, rules: GateRules) -> Check:
    count, least = len(evidence.answers.funnel), rules.targets.least
    if evidence.champion is not None:
        count = min(count, int((~np.isnan(evidence.champion.ours - evidence.champion.theirs)).sum()))
    detail = f"{count}, at least {least}"
    return Check(name="targets", ok=count >= least, detail=detail, evidence={"targets": count, "least": least})


def _baselines(answers: Answers, rules: GateRules) -> Iterator[Check]:
    """Refused where surely worse than any of them, or not surely better than those that must be beaten."""
    names = list(answers.baselines)
    if not names or not len(answers.funnel):
        return
    asked, columns = rules.baselines, np.stack([answers.baselines[name] for name in names], axis=1)
    ours = answers.funnel[:, None]
    worse = holm(_p(columns * (1 - asked.max_loss) - ours, answers, rules))
    beaten = [at for at, name in enumerate(names) if name in asked.surely_above]
    better = dict(zip(beaten, holm(_p((ours - columns)[:, beaten], answers, rules)), strict=True))
    for at, gap in enumerate(_intervals(ours - columns, answers, rules)):
        ok = bool(worse[at] > asked.level and better.get(at, 0.0) <= asked.level)
        detail = f"{_told(gap)}, p of worse {worse[at]:.4f}" + (f", of better {better[at]:.4f}" if at in better else "")
        numbers = gap.to_dict() | {"p_worse": float(worse[at])}
        yield Check(name=f"against {names[at]}", ok=ok, detail=detail, evidence=numbers)


def _slices(pairs: Pairs, rules: GateRules) -> Iterator[Check]:
    """Refused where a slice surely loses more than its bound, all slices taken together."""
    kept = {
        name: both
        for name, both in pairs.slices.items()
        if int((~np.isnan(both[0] - both[1])).sum()) >= rules.slices.least
    }
    if not kept:
        return
    lost = np.stack([(1 - rules.slices.bound(name)) * theirs - ours for name, (ours, theirs) in kept.items()], axis=1)
    p_values = _CORRECTIONS[rules.slices.correction](_p(lost, pairs, rules))
    gaps = _intervals(np.stack([ours - theirs for ours, theirs in kept.values()], axis=1), pairs, rules)
    for name, gap, p_value in zip(kept, gaps, p_values, strict=True):
        theirs = float(np.nanmean(kept[name][1]))
        bound = rules.slices.bound(name)
        detail = f"{_told(gap)} of {theirs:.4f}, may lose {bound:.0%}, p of more {p_value:.4f}"
        numbers = gap.to_dict() | {"champion": theirs, "bound": bound, "p_worse": float(p_value)}
        yield Check(name=f"slice {name}", ok=bool(p_value > rules.slices.level), detail=detail, evidence=numbers)


def _people(pairs: Pairs, rules: GateRules, opponent: str) -> Iterator[Check]:
    """Employers' side: judged where enough jobs found somebody to say anything."""
    difference = pairs.ours - pairs.theirs
    if int((~np.isnan(difference)).sum()) < rules.targets.least:
        return
    p_value = sign_flip(
        (1 - rules.people.max_loss) * pairs.theirs - pairs.ours,
        rounds=rules.statistics.permutations,
        seed=rules.statistics.seed,
        groups=pairs.clusters,
    )
    gap = _intervals(difference[:, None], pairs, rules)[0]
    yield Check(
        name=f"people against {opponent}",
        ok=p_value > rules.people.level,
        detail=f"{_told(gap)}, may lose {rules.people.max_loss:.0%}, p of more {p_value:.4f}",
        evidence=gap.to_dict() | {"p_worse": p_value},
    )


def _catalogue(evidence: Evidence, least: float) -> Iterator[Check]:
    """Refused where most of what the champion offered is gone; judged where both were counted."""
    live, before = evidence.live_jobs, evidence.champion_live_jobs
    if live is None or not before:
        return
    share = live / before
    detail = f"{live:,} live jobs where the champion had {before:,} ({share:.0%}), at least {least:.0%}"
    detail += "" if share >= least else ": did an ingest lose them? Otherwise lower gate.catalogue.min_live for a day"
    yield Check(name="catalogue", ok=share >= least, detail=detail, evidence={"live": live, "champion": before})


def _calibration(quality: Mapping[str, float] | None, asked: CalibrationRules) -> Check:
    """A constant fails: its log loss is the base rate's, it has no calibration error to be below, and no slope."""
    name = "calibration"
    if quality is None:
        return Check(name=name, ok=True, detail="not judged: the log holds no impressions with outcomes")
    count, applied = quality["count"], quality["count"] * quality.get("base_rate", 0.0)
    if count < asked.least_impressions or applied < asked.least_applications:
        detail = f"not judged: {count:.0f} impressions, {applied:.0f} applied to"
        return Check(name=name, ok=True, detail=detail, evidence=dict(quality))
    wrong = list(_miscalibrated(quality, asked))
    entropy, slope = quality.get("normalized_entropy", np.nan), quality.get("slope", np.nan)
    error = f"{quality.get('ece', np.nan):.4f} (a constant's {quality.get('constant_ece', np.nan):.4f})"
    detail = f"entropy {entropy:.3f}, error {error}, slope {slope:.2f}" + "".join(f"; {said}" for said in wrong)
    return Check(name=name, ok=not wrong, detail=detail, evidence=dict(quality))


def _miscalibrated(quality: Mapping[str, float], asked: CalibrationRules) -> Iterator[str]:
    if not quality.get("normalized_entropy", np.inf) < asked.max_entropy:
        yield f"log loss is not below {asked.max_entropy:g} of the base rate's"
    if not quality.get("ece", np.inf) < asked.max_error * quality.get("constant_ece", 0.0):
        yield f"error is not below {asked.max_error:g} of a constant's"
    slope = quality.get("slope")
    if slope is None:
        yield "no slope: the probabilities tell nothing apart"
    elif quality.get("slope_high", slope) < asked.min_slope or quality.get("slope_low", slope) > asked.max_slope:
        yield f"slope lies surely outside {asked.min_slope:g} to {asked.max_slope:g}"


def _latency(milliseconds: Values, allowed: float) -> Check:
    p99 = float(np.percentile(milliseconds, 99)) if len(milliseconds) else float("nan")
    return _at_most("p99", p99, allowed, "ms")


def _fairness(evidence: Evidence, asked: FairnessRules) -> Iterator[Check]:
    if evidence.swaps is not None:
        share = evidence.changed / evidence.swaps if evidence.swaps else 0.0
        yield Check(
            name="names and pronouns",
            ok=share <= asked.max_changed,
            detail=f"{evidence.changed} of {evidence.swaps} answers changed, at most {asked.max_changed:.1%}",
            evidence={"swaps": evidence.swaps, "changed": evidence.changed},
        )
    least, most = asked.min_exposure_ratio, 1 / asked.min_exposure_ratio
    for group, gap in sorted(evidence.exposure.items()):
        detail = f"{gap['ratio']:.3f} [{gap['low']:.3f}, {gap['high']:.3f}] of everybody's, {least:g} to {most:g}"
        ok = not (gap["high"] < least or gap["low"] > most)
        yield Check(name=f"exposure of {group}", ok=ok, detail=detail, evidence=dict(gap))


def _at_most(name: str, value: float, allowed: float, unit: str) -> Check:
    detail = f"{value:.1f} {unit}, at most {allowed:g}"
    return Check(name=name, ok=not value > allowed, detail=detail, evidence={"value": value, "allowed": allowed})


def _none(name: str, found: Sequence[str], well: str) -> Check:
    return Check(name=name, ok=not found, detail="; ".join(found) or well, evidence={"found": len(found)})


def _p(columns: Values, of: Answers | Pairs, rules: GateRules) -> Values:
    return sign_flip_columns(columns, rules.statistics.permutations, rules.statistics.seed, of.clusters)


def _intervals(columns: Values, of: Answers | Pairs, rules: GateRules) -> list[Interval]:
    return bootstrap_columns(columns, rules.statistics.bootstrap_rounds, rules.statistics.seed, of.clusters)


def _told(gap: Interval) -> str:
    return f"{MAIN_METRIC} {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
