"""Inverse propensity, self-normalised, doubly robust and switch estimators of a target's value of a visit.

All read a `Sample` (`weights.py`), whatever its weights mean, so each stands here once. A row has weight w, reward r
and, with a reward model, a prediction q; a visit has the model's value v of the target.

    ips         mean of  sum w r                            Horvitz and Thompson 1952; clipped: min(w, limit)
    snips       due  x  sum w r / sum w                     Swaminathan and Joachims 2015
    dr          mean of  v + sum w (r - q)                  Dudik, Langford and Li 2011
    sndr        mean of  v + due  x  sum w (r - q) / sum w  Thomas and Brunskill 2016
    switch_dr   dr of the rows with w <= limit, the model for the others     Wang, Agarwal and Dudik 2017

The intervals are over clusters and take the sums in a ratio as estimated (delta method).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.evaluation.counterfactual.intervals import mean_by_cluster, standard_error
from rolecall.pipelines.evaluation.counterfactual.support import Support, support_of
from rolecall.pipelines.evaluation.counterfactual.weights import Sample
from rolecall.pipelines.evaluation.statistics import Interval
from rolecall.platform.errors import InputError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Rewards a visit under the target. `limit`: of the weights, infinite where none was set.

    `contributions` [m] have the estimate as their mean; the difference of two targets on one log is the mean of the
    differences of theirs (`less`).
    """

    name: str
    interval: Interval
    error: float
    limit: float
    support: Support
    contributions: Floats
    cluster: npt.NDArray[np.int64]

    @property
    def mean(self) -> float:
        return self.interval.mean

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why not to believe it; empty where nothing speaks against it."""
        return self.support.warnings

    def less(self, other: Estimate) -> Interval:
        """This target's value minus another's, paired by visit. Raises InputError where the visits differ."""
        if not np.array_equal(self.cluster, other.cluster):
            raise InputError("estimates from different visits", "the same log for both")
        return mean_by_cluster(self.contributions - other.contributions, self.cluster)


def ips(sample: Sample, *, limit: float = float("inf")) -> Estimate:
    """Unbiased under full support and right propensities; a `limit` trades bias (downwards) for variance."""
    weight = np.minimum(sample.weight, limit)
    return _estimate("ips", sample, sample.by_visit(weight * sample.reward).sum(axis=1), limit)


def snips(sample: Sample) -> Estimate:
    """Consistent, steadier than `ips`, and right for a reward to which a constant is added."""
    return _estimate("snips", sample, _normalised(sample, sample.reward))


def dr(sample: Sample) -> Estimate:
    """Unbiased where `ips` is, whatever the model; steadier the better the model."""
    predicted, value = _model(sample)
    rest = sample.by_visit(sample.weight * (sample.reward - predicted)).sum(axis=1)
    return _estimate("dr", sample, value + rest)


def sndr(sample: Sample) -> Estimate:
    """`dr` with self-normalised weights."""
    predicted, value = _model(sample)
    return _estimate("sndr", sample, value + _normalised(sample, sample.reward - predicted))


def switch_dr(sample: Sample, *, limit: float | None = None) -> Estimate:
    """`dr` that trusts the model where a weight is above `limit`; default `default_limit`."""
    predicted, value = _model(sample)
    limit = default_limit(sample) if limit is None else limit
    kept = np.where(sample.weight <= limit, sample.weight, 0.0)
    rest = sample.by_visit(kept * (sample.reward - predicted)).sum(axis=1)
    return _estimate("switch_dr", sample, value + rest, limit)


def default_limit(sample: Sample) -> float:
    """The square root of the number of visits: the rate at which a truncated mean loses no consistency and keeps a
    bias below its error (Ionides 2008, "Truncated importance sampling")."""
    return float(np.sqrt(sample.visits))


def _model(sample: Sample) -> tuple[Floats, Floats]:
    if sample.predicted is None or sample.value is None:
        raise InputError("a doubly robust estimator without a reward model", "a Sample with predicted and value")
    return sample.predicted, sample.value


def _normalised(sample: Sample, reward: Floats) -> Floats:
    """Contributions whose mean is the sum over slots of due x (weighted mean reward per unit), and whose spread is that
    of the ratio: the linear part of its error is added, which sums to zero."""
    top, bottom = sample.by_visit(sample.weight * reward), sample.by_visit(sample.weight * sample.unit)
    found, due = bottom.mean(axis=0), sample.due.mean(axis=0)
    ratio = np.divide(top.mean(axis=0), found, out=np.zeros_like(found), where=found > 0)
    scale = np.divide(due, found, out=np.zeros_like(found), where=found > 0)
    return np.asarray((sample.due * ratio + scale * (top - ratio * bottom)).sum(axis=1), np.float64)


def _estimate(name: str, sample: Sample, contributions: Floats, limit: float = float("inf")) -> Estimate:
    error = standard_error(contributions, sample.cluster)
    return Estimate(
        name=name,
        interval=mean_by_cluster(contributions, sample.cluster),
        error=error,
        limit=limit,
        support=support_of(sample, contributions, error),
        contributions=contributions,
        cluster=sample.cluster,
    )
