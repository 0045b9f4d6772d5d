"""95% intervals of a mean over visits whose visitors come more than once, also where a few weights are large.

Visits are summed up by visitor, so that what one person does counts as one observation. Importance weights make the
mean's distribution skewed, and the usual interval then misses too often above; Hall's transformation takes the
skewness out of the studentised mean (P. Hall 1992, "On the removal of skewness by transformation", JRSS B 54;
compared for skewed data by Zhou and Gao 2000).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from rolecall.pipelines.evaluation.statistics import Interval

Floats = npt.NDArray[np.float64]


def mean_by_cluster(values: Floats, cluster: npt.NDArray[np.int64], *, level: float = 0.95) -> Interval:
    """The mean of `values` [m] and its interval; `count`: clusters. Wholly unknown (NaN) with fewer than two."""
    mean = float(values.mean()) if len(values) else float("nan")
    _, number = np.unique(cluster, return_inverse=True)
    size = np.bincount(number)
    if len(size) < 2:
        return Interval(mean=mean, low=float("nan"), high=float("nan"), count=len(size))
    influence = (np.bincount(number, values) - mean * size) / size.mean()
    low, high = _quantiles(influence, level)
    return Interval(mean=mean, low=mean - high, high=mean - low, count=len(size))


def standard_error(values: Floats, cluster: npt.NDArray[np.int64]) -> float:
    """Of the mean of `values`, visits of one cluster counting together."""
    _, number = np.unique(cluster, return_inverse=True)
    size = np.bincount(number)
    if len(size) < 2:
        return float("nan")
    influence = (np.bincount(number, values) - values.mean() * size) / size.mean()
    return float(influence.std(ddof=1) / np.sqrt(len(size)))


def _quantiles(influence: Floats, level: float) -> tuple[float, float]:
    """Of the error (estimate minus truth) at both ends of `level`; `influence` has mean zero."""
    count = len(influence)
    deviation = float(influence.std(ddof=1))
    if not deviation:
        return 0.0, 0.0
    skewness = float((influence**3).mean()) / float((influence**2).mean()) ** 1.5
    ends = student.ppf([(1 - level) / 2, (1 + level) / 2], count - 1)
    low, high = (_unskewed(float(end), skewness / np.sqrt(count)) for end in ends)
    return low * deviation / np.sqrt(count), high * deviation / np.sqrt(count)


def _unskewed(quantile: float, skewness: float) -> float:
    """The studentised mean that Hall's cubic takes to `quantile`; `skewness`: of one value, over sqrt(n)."""
    if abs(skewness) < 1e-8:
        return quantile
    return float(3 / skewness * (np.cbrt(1 + skewness * (quantile - skewness / 6)) - 1))
