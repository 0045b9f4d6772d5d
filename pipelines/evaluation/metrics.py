"""Ranking metrics. Ties are counted by half wherever a model gave equal scores.

Ranks here are real numbers from 1: one plus the jobs scored above, plus half of the others scored equal. A job
that was not ranked has rank infinity and counts as missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_COUNTED = 32


def ranks_of(scores: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]) -> Array:
    """Rank of each target position among `scores`; ties count half, the target itself does not.

    A score that is not finite counts as not ranked.
    """
    ranked = scores[np.isfinite(scores)]
    wanted = scores[targets]
    if len(wanted) <= _COUNTED:  # a pass a target is cheaper than sorting a catalogue
        above = np.array([np.count_nonzero(ranked > one) for one in wanted], np.int64)
        ties = np.array([np.count_nonzero(ranked == one) for one in wanted], np.int64) - 1
    else:
        ordered = np.sort(ranked)
        above = len(ordered) - np.searchsorted(ordered, wanted, side="right")
        ties = np.searchsorted(ordered, wanted, side="right") - np.searchsorted(ordered, wanted, side="left") - 1
    return np.where(np.isfinite(wanted), 1 + above + ties / 2, np.inf).astype(np.float64)


def recall_at(ranks: Array, k: int) -> float:
    """Share of the relevant jobs within the first k."""
    return float(np.mean(ranks <= k)) if len(ranks) else float("nan")


def hit_at(ranks: Array, k: int) -> float:
    """1 where any relevant job is within the first k."""
    return float(np.any(ranks <= k)) if len(ranks) else float("nan")


def reciprocal_rank(ranks: Array) -> float:
    """One over the rank of the first relevant job; 0 where none was ranked."""
    return float(1 / ranks.min()) if len(ranks) else float("nan")


def ndcg_at(ranks: Array, gains: npt.NDArray[np.floating], k: int) -> float:
    """Discounted gain over that of the ideal order; gain 2^label - 1, discount log2(1 + rank) (Burges et al. 2005)."""
    weights = np.exp2(gains.astype(np.float64)) - 1
    ideal = np.sort(weights)[::-1][:k]
    best = float((ideal / np.log2(np.arange(2, len(ideal) + 2))).sum())
    if not best:
        return float("nan")
    found = np.where(ranks <= k, weights / np.log2(1 + ranks), 0.0)
    return float(found.sum() / best)


def auc(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_]) -> float:
    """Probability that a positive is scored above a negative, equal scores counting half; NaN with one class only."""
    high, low = np.sort(scores[positive]), np.sort(scores[~positive])
    if not len(high) or not len(low):
        return float("nan")
    below = np.searchsorted(low, high, side="left").astype(np.float64)
    upto = np.searchsorted(low, high, side="right")
    return float((below + upto).sum() / 2 / len(high) / len(low))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95% bootstrap interval over `count` requests."""

    mean: float
    low: float
    high: float
    count: int

    def to_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "count": self.count}


def bootstrap(values: npt.NDArray[np.floating], *, rounds: int, seed: int) -> Interval:
    """The mean of one value a request (NaN: does not apply) and its percentile interval.

    For two systems on the same requests give the differences: the interval is then of the paired difference.
    """
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return Interval(mean=float("nan"), low=float("nan"), high=float("nan"), count=0)
    random = np.random.default_rng(seed)
    chunk = max(1, 2_000_000 // len(known))
    means = [
        known[random.integers(0, len(known), (min(chunk, rounds - done), len(known)))].mean(axis=1)
        for done in range(0, rounds, chunk)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(mean=float(known.mean()), low=float(low), high=float(high), count=len(known))


METRICS: dict[str, Callable[[Array, npt.NDArray[np.floating]], float]] = {
    "recall@10": lambda ranks, _: recall_at(ranks, 10),
    "hr@10": lambda ranks, _: hit_at(ranks, 10),
    "hr@50": lambda ranks, _: hit_at(ranks, 50),
    "ndcg@10": lambda ranks, gains: ndcg_at(ranks, gains, 10),
    "mrr": lambda ranks, _: reciprocal_rank(ranks),
    "recall@50": lambda ranks, _: recall_at(ranks, 50),
    "recall@500": lambda ranks, _: recall_at(ranks, 500),
}
"""Metrics of one request from the ranks and labels of its relevant jobs."""
