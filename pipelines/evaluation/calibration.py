"""Whether probabilities mean what they say: logistic recalibration, expected calibration error, Brier's parts.

A constant at the base rate has no calibration error and is of no use. So the error stands beside the one that a
constant would have in the very groups that the model tells apart (`constant_ece`): a constant tells nothing apart, has
0 there, and can never be below it; nor has it a slope.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CLOSE = 1e-7
"""Probabilities are kept this far from 0 and 1 where a logarithm is taken: as near as float32 tells apart from 1. A
calibrator that says 0 or 1 of what can happen pays for it."""

_STEPS = 100
_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Impressions with about the same probability: the mean predicted, the share that came true, how many."""

    predicted: float
    observed: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`slope`, `intercept` of the logistic regression of outcomes on log-odds (Cox 1958): 1 and 0 are perfect, a slope
    below 1 is over-confidence; NaN where there is none to find: one outcome only, a constant, or perfect separation.
    `slope_low`, `slope_high`: its 95% Wald interval, robust to outcomes that depend on each other within a group.

    `ece`: mean |predicted - observed| over bins of equal size (Naeini et al. 2015); `constant_ece`: the same with the
    base rate in place of what was predicted. `reliability`, `resolution`, `uncertainty`: Brier's score over the bins is
    the first minus the second plus the third (Murphy 1973); `resolution` 0: the model tells nothing apart.
    """

    slope: float
    intercept: float
    ece: float
    constant_ece: float
    bins: tuple[Bin, ...]
    slope_low: float = float("nan")
    slope_high: float = float("nan")
    reliability: float = float("nan")
    resolution: float = float("nan")
    uncertainty: float = float("nan")

    @property
    def informative(self) -> bool:
        """Closer to the truth than the base rate is: what no constant can be."""
        return bool(self.ece < self.constant_ece)

    def to_dict(self) -> dict[str, object]:
        """JSON values; what is not known is None."""
        numbers: dict[str, object] = {name: _json(getattr(self, name)) for name in _NUMBERS}
        return numbers | {"bins": [[_json(b.predicted), _json(b.observed), b.count] for b in self.bins]}


_NUMBERS = (
    "slope", "intercept", "slope_low", "slope_high",
    "ece", "constant_ece", "reliability", "resolution", "uncertainty",
)  # fmt: skip


def calibration(
    predicted: Array, outcomes: Flags, *, groups: npt.NDArray[np.integer] | None = None, bins: int = 10
) -> Calibration:
    """Of probabilities float64[n] and what came true bool[n]; of none everything is NaN.

    `groups`: int[n], whose outcomes depend on each other (a candidate's); default: nobody's.
    """
    found = reliability_bins(predicted, outcomes, bins)
    fit = recalibration(predicted, outcomes, groups=groups)
    total = sum(one.count for one in found)
    share = np.array([one.count / total for one in found])
    said, came = np.array([one.predicted for one in found]), np.array([one.observed for one in found])
    base = float(np.mean(outcomes)) if total else float("nan")
    return Calibration(
        slope=fit.slope,
        intercept=fit.intercept,
        slope_low=fit.slope - _NORMAL_95 * fit.slope_error,
        slope_high=fit.slope + _NORMAL_95 * fit.slope_error,
        ece=_sum(share * np.abs(said - came)),
        constant_ece=_sum(share * np.abs(base - came)),
        reliability=_sum(share * np.square(said - came)),
        resolution=_sum(share * np.square(base - came)),
        uncertainty=base * (1 - base),
        bins=found,
    )


def reliability_bins(predicted: Array, outcomes: Flags, bins: int = 10) -> tuple[Bin, ...]:
    """At most `bins` bins of about equal size in order of what was predicted; equal probabilities share a bin, so the
    order of the rows changes nothing."""
    if not len(predicted):
        return ()
    values, place, counts = np.unique(predicted, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    which = np.minimum((middle * bins / len(predicted)).astype(np.int64), bins - 1)
    came = np.bincount(place, weights=outcomes.astype(np.float64))
    groups = [which == number for number in np.unique(which)]
    return tuple(
        Bin(
            predicted=float((values[g] * counts[g]).sum() / counts[g].sum()),
            observed=float(came[g].sum() / counts[g].sum()),
            count=int(counts[g].sum()),
        )
        for g in groups
    )


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """The line through log-odds, and the standard error of its slope."""

    slope: float
    intercept: float
    slope_error: float


_NO_LINE = Recalibration(slope=float("nan"), intercept=float("nan"), slope_error=float("nan"))


def recalibration(predicted: Array, outcomes: Flags, *, groups: npt.NDArray[np.integer] | None = None) -> Recalibration:
    """The maximum-likelihood line P(outcome) = logistic(intercept + slope * logit(predicted)) (Cox 1958), by Newton's
    method; NaN where it does not exist. Errors by the sandwich over `groups` (Liang and Zeger 1986)."""
    odds = logit(predicted)
    if outcomes.all() or not outcomes.any() or np.ptp(odds) < 1e-9 or _separated(odds, outcomes):
        return _NO_LINE
    design = np.stack([np.ones_like(odds), odds - odds.mean()], axis=1)
    wanted = outcomes.astype(np.float64)
    weights = np.array([np.log(wanted.mean() / (1 - wanted.mean())), 0.0])
    for _ in range(_STEPS):
        step = _newton(design, wanted, weights)
        weights = weights + step
        if np.abs(step).max() < 1e-10:
            break
    slope = float(weights[1])
    return Recalibration(
        slope=slope,
        intercept=float(weights[0] - slope * odds.mean()),
        slope_error=_slope_error(design, wanted - _logistic(design @ weights), weights, groups),
    )


def logit(probability: Array) -> Array:
    """Log-odds; probabilities within CLOSE of 0 or 1 count as CLOSE to them."""
    kept = np.clip(probability.astype(np.float64), CLOSE, 1 - CLOSE)
    return np.asarray(np.log(kept) - np.log1p(-kept), np.float64)


def _newton(design: Array, wanted: Array, weights: Array) -> Array:
    """One step, halved until the likelihood does not fall."""
    said = _logistic(design @ weights)
    step = np.linalg.lstsq(_information(design, said), design.T @ (wanted - said), rcond=None)[0]
    now = _loss(design, wanted, weights)
    for _ in range(30):
        if _loss(design, wanted, weights + step) <= now + 1e-12:
            break
        step = step / 2
    return np.asarray(step, np.float64)


def _loss(design: Array, wanted: Array, weights: Array) -> float:
    scores = design @ weights
    return float(np.mean(np.logaddexp(0, scores) - wanted * scores))


def _information(design: Array, said: Array) -> Array:
    return np.asarray((design * (said * (1 - said))[:, None]).T @ design, np.float64)


def _slope_error(design: Array, residuals: Array, weights: Array, groups: npt.NDArray[np.integer] | None) -> float:
    bread = np.linalg.pinv(_information(design, _logistic(design @ weights)))
    scores = design * residuals[:, None]
    if groups is not None:
        _, place = np.unique(groups, return_inverse=True)
        scores = np.stack([np.bincount(place, weights=column) for column in scores.T], axis=1)
    return float(np.sqrt((bread @ (scores.T @ scores) @ bread)[1, 1]))


def _separated(odds: Array, outcomes: Flags) -> bool:
    """Whether a threshold parts the outcomes: the likelihood then has no largest value."""
    yes, no = odds[outcomes], odds[~outcomes]
    return bool(yes.min() >= no.max() or yes.max() <= no.min())


def _logistic(scores: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-scores)), np.float64)


def _sum(values: Array) -> float:
    return float(values.sum()) if len(values) else float("nan")


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
