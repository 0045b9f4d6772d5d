"""Figures of a report from evaluations in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from rolecall.pipelines.evaluation.gate.evidence import CHAMPION
from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC
from rolecall.pipelines.evaluation.report.figures import (
    Bin,
    Comparison,
    Direction,
    Estimate,
    Fairness,
    Kind,
    Latency,
    LogFigure,
    LogFigures,
    Probability,
    Slice,
    Stage,
    System,
)
from rolecall.pipelines.evaluation.report.sources import (
    FairnessLike,
    ImpressionsLike,
    IntervalLike,
    Judged,
    LogValueLike,
    Values,
)
from rolecall.platform.errors import InputError

RIVAL = "rival"
"""The release on the champion's targets, where these are others than the rest was measured on."""

REACHABLE = "reachable"
PERCENTILES = (50, 90, 95, 99)
_BINS = 24
_PROBABILITY = ("auc", "grouped_auc", "normalized_entropy", "base_rate")
_CALIBRATION = ("slope", "slope_low", "slope_high", "intercept", "ece", "constant_ece")


def direction(
    evaluation: Judged, champion: Judged | None, rival: Judged | None = None, *, opponent: str = CHAMPION
) -> Direction:
    """One direction's figures. `rival`: the release on the champion's targets, where these are others; `opponent`: what
    `champion` is called.

    Raises InputError where release and champion were not asked the same.
    """
    rival = rival or evaluation
    if champion is not None and tuple(champion.targets) != tuple(rival.targets):
        raise InputError("champion and release evaluated on different targets", "the same targets, or `rival`")
    systems = [_system(evaluation, name) for name in evaluation.systems]
    comparisons = [_baseline(evaluation, name) for name in evaluation.systems if name != FUNNEL]
    apart = champion is not None and rival is not evaluation
    if apart:
        systems.append(System(name=RIVAL, kind="release", metrics=_metrics(rival, FUNNEL)))
    if champion is not None:
        systems.append(System(name=opponent, kind="champion", metrics=_metrics(champion, FUNNEL)))
        pair = (rival.systems[FUNNEL][MAIN_METRIC], champion.systems[FUNNEL][MAIN_METRIC])
        comparisons.insert(0, _comparison(rival, opponent, *pair, kind="champion"))
    return Direction(
        targets=len(evaluation.targets),
        systems=tuple(systems),
        comparisons=tuple(comparisons),
        stages=_stages(evaluation, champion),
        slices=_slices(evaluation, champion, rival),
        compared_targets=None if champion is None else len(rival.targets),
        apart=apart,
        catalogue=_catalogue(evaluation, champion, opponent),
        opponent=opponent,
    )


def estimate(interval: IntervalLike) -> Estimate:
    return Estimate(
        mean=float(interval.mean), low=float(interval.low), high=float(interval.high), count=int(interval.count)
    )


def probability(impressions: ImpressionsLike | None, champion: ImpressionsLike | None = None) -> Probability | None:
    """`champion`: of what the release is compared with, on the same impressions."""
    if impressions is None:
        return None
    calibration = impressions.calibration
    bins = tuple(
        Bin(predicted=float(one.predicted), observed=float(one.observed), count=int(one.count))
        for one in calibration.bins
    )
    return Probability(
        figures=_of_impressions(impressions),
        count=int(impressions.count),
        bins=bins,
        champion=_of_impressions(champion) if champion is not None else {},
    )


def _of_impressions(impressions: ImpressionsLike) -> dict[str, float]:
    figures = {name: float(getattr(impressions, name)) for name in _PROBABILITY}
    return figures | {name: float(getattr(impressions.calibration, name)) for name in _CALIBRATION}


def fairness(audit: FairnessLike | None) -> Fairness | None:
    if audit is None:
        return None
    return Fairness(
        swaps=audit.swaps,
        changed=audit.changed,
        exposure={group: estimate(gap.ratio) for group, gap in audit.exposure.items()},
    )


def log(value: LogValueLike | None) -> LogFigures | None:
    if value is None:
        return None
    differences = value.differences
    rows = tuple(
        LogFigure(
            name=name,
            value=estimate(one.interval),
            less_champion=estimate(differences[name]) if name in differences else None,
            visits=one.support.visits,
            effective=one.support.effective,
            warnings=tuple(one.warnings),
        )
        for name, one in value.release.items()
    )
    return LogFigures(rows=rows, why=value.why)


def latency(evaluation: Judged, champion: Judged | None) -> Latency | None:
    """None where nothing was timed."""
    taken = evaluation.milliseconds
    if not len(taken):
        return None
    beside = {} if champion is None or not len(champion.milliseconds) else percentiles(champion.milliseconds)
    return Latency(percentiles=percentiles(taken), histogram=histogram(taken), champion=beside)


def percentiles(milliseconds: Values) -> dict[str, float]:
    found = {f"p{p}": float(np.percentile(milliseconds, p)) for p in PERCENTILES}
    return found | {"slowest": float(milliseconds.max())}


def histogram(milliseconds: Values, bins: int = _BINS) -> tuple[tuple[float, float, int], ...]:
    """Requests by duration, in bins of equal ratio: latencies spread over orders of magnitude."""
    shortest, longest = max(float(milliseconds.min()), 1e-3), float(milliseconds.max())
    if not longest > shortest * 1.01:
        return ((shortest, max(longest, shortest), len(milliseconds)),)
    edges = np.geomspace(shortest, longest, bins + 1)
    counts, _ = np.histogram(np.clip(milliseconds, edges[0], edges[-1]), bins=edges)
    return tuple((float(a), float(b), int(n)) for (a, b), n in zip(pairwise(edges), counts, strict=True))


def _system(evaluation: Judged, name: str) -> System:
    return System(name=name, kind="release" if name == FUNNEL else "baseline", metrics=_metrics(evaluation, name))


def _metrics(evaluation: Judged, name: str) -> Mapping[str, Estimate]:
    return {metric: estimate(evaluation.interval(values)) for metric, values in evaluation.systems[name].items()}


def _baseline(evaluation: Judged, name: str) -> Comparison:
    return _comparison(evaluation, name, evaluation.systems[FUNNEL][MAIN_METRIC], evaluation.systems[name][MAIN_METRIC])


def _comparison(evaluation: Judged, name: str, ours: Values, theirs: Values, kind: Kind = "baseline") -> Comparison:
    difference = ours - theirs
    both = ~np.isnan(difference)
    level = float(theirs[both].mean()) if both.any() else math.nan
    gap = estimate(evaluation.interval(difference))
    return Comparison(
        name=name,
        kind=kind,
        difference=gap,
        relative=gap.mean / level if level > 0 else None,
        wins=int((difference > 0).sum()),
        ties=int((difference == 0).sum()),
        losses=int((difference < 0).sum()),
    )


def _stages(evaluation: Judged, champion: Judged | None) -> tuple[Stage, ...]:
    ours, theirs = _kept(evaluation), {} if champion is None else _kept(champion)
    return tuple(Stage(name=name, release=kept, champion=theirs.get(name)) for name, kept in ours.items())


def _kept(evaluation: Judged) -> dict[str, Estimate]:
    """What is still there of what was wanted: first where the release holds it at all."""
    reachable = {REACHABLE: evaluation.reachable} if len(evaluation.reachable) else {}
    told = {**reachable, **evaluation.stages}
    return {name: estimate(evaluation.interval(values)) for name, values in told.items()}


def _slices(evaluation: Judged, champion: Judged | None, rival: Judged) -> tuple[Slice, ...]:
    found = []
    for name, values in evaluation.slices.items():
        kind, _, value = name.partition("=")
        theirs = None if champion is None else champion.slices.get(name)
        ours = rival.slices.get(name)
        both = champion is not None and theirs is not None and ours is not None
        found.append(
            Slice(
                kind=kind,
                value=value,
                release=estimate(evaluation.interval(values)),
                champion=estimate(champion.interval(theirs)) if champion and theirs is not None else None,
                difference=estimate(rival.interval(_less(ours, theirs))) if both else None,
            )
        )
    return tuple(found)


def _less(ours: Values | None, theirs: Values | None) -> Values:
    return np.array([]) if ours is None or theirs is None else ours - theirs


def _catalogue(evaluation: Judged, champion: Judged | None, opponent: str) -> dict[str, Mapping[str, float]]:
    figures: dict[str, Mapping[str, float]] = {name: dict(table) for name, table in evaluation.catalogue.items()}
    if champion is not None and FUNNEL in champion.catalogue:
        figures[opponent] = dict(champion.catalogue[FUNNEL])
    return figures


def main_values(evaluation: Judged, system: str) -> Values:
    """The main metric of a system, target by target."""
    return evaluation.systems[system][MAIN_METRIC]


def best_baseline(evaluation: Judged, names: Sequence[str]) -> str | None:
    """The one with the highest mean of the main metric; None without any that answered anything."""
    means = {name: float(np.nanmean(values)) for name in names if _any(values := main_values(evaluation, name))}
    return max(sorted(means), key=means.__getitem__) if means else None


def _any(values: Values) -> bool:
    return bool((~np.isnan(values)).any())
