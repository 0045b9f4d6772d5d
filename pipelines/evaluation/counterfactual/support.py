"""Whether a log can answer for a target at all: effective sample size, overlap, and what the largest weight does.

No interval shows what a log never tried: where the target shows jobs that could not be drawn, weights are too few and
the estimate is too low, however narrow its interval. So the weights themselves are tested: they must sum to `due`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.evaluation.counterfactual.intervals import mean_by_cluster
from rolecall.pipelines.evaluation.counterfactual.weights import Sample
from rolecall.pipelines.evaluation.statistics import Interval

Floats = npt.NDArray[np.float64]
FEW = 100
"""Effective visits below which an estimate is called unreliable."""
_SMALL_SHARE = 0.01
_SURE = 0.999
_LARGE_MOVE = 0.5


@dataclass(frozen=True, kw_only=True)
class Support:
    """What the weights say of themselves.

    `effective`: Kish's effective sample size, (sum w)^2 / sum w^2 over visits, of the slot where it is least;
    `supported`: share of the target's exposure that the weights found, 1 on average under full support, with its 99.9%
    interval, so that one healthy estimate in a thousand is warned of;
    `largest_weight`; `moved`: by how many standard errors of the estimate leaving out the visit that matters most
    moves it; `lowest`: least logged propensity; `warnings`: why not to believe the estimate, empty where nothing
    speaks against it.
    """

    visits: int
    effective: float
    supported: Interval
    largest_weight: float
    moved: float
    lowest: float
    warnings: tuple[str, ...]


def support_of(sample: Sample, contributions: Floats, error: float) -> Support:
    """`contributions` [m]: what each visit adds to the estimate, their mean; `error`: its standard error."""
    weights = sample.by_visit(sample.weight * sample.unit)
    effective = min(_kish(column) for column in weights.T)
    due = sample.due.sum(axis=1)
    supported = mean_by_cluster(weights.sum(axis=1) / max(float(due.mean()), 1e-300), sample.cluster, level=_SURE)
    deviation = float(np.abs(contributions - contributions.mean()).max()) / max(sample.visits - 1, 1)
    found = Support(
        visits=sample.visits,
        effective=effective,
        supported=supported,
        largest_weight=float(sample.weight.max(initial=0.0)),
        moved=deviation / error if error > 0 else 0.0,
        lowest=sample.lowest,
        warnings=(),
    )
    return Support(**{**vars(found), "warnings": _warnings(found, sample.certain)})


def _kish(weights: Floats) -> float:
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def _warnings(found: Support, certain: float) -> tuple[str, ...]:
    told = []
    if certain == 1:
        told.append("the log explored nothing: every propensity is 1, so it says nothing of other slates")
    if found.effective < FEW:
        told.append(f"effective sample size {found.effective:.0f} of {found.visits} visits, below {FEW}")
    elif found.effective < _SMALL_SHARE * found.visits:
        told.append(f"effective sample size {found.effective:.0f}: under 1% of {found.visits} visits")
    if found.supported.high < 1:
        told.append(
            f"the log supports {found.supported.mean:.0%} [{found.supported.low:.0%}, {found.supported.high:.0%}] of "
            "what the target shows: the rest was never drawn, and the estimate is too low by what it brings"
        )
    if found.supported.low > 1:
        told.append(f"weights sum to {found.supported.mean:.2f} of what is due: the logged propensities are wrong")
    if found.moved > _LARGE_MOVE:
        told.append(f"leaving out one visit moves the estimate by {found.moved:.1f} standard errors")
    return tuple(told)
