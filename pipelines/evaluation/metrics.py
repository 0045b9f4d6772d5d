"""Ranking metrics. Ties are counted by half wherever a model gave equal scores.

Ranks here are real numbers from 1: one plus the jobs scored above, plus half of the others scored equal. A job
that was not ranked has rank infinity and counts as missed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_COUNTED = 32

APPLIED = 3
"""Labels from here on are applications (`examples.LABELS`), or more than that (`people_outcomes`)."""


def ranks_of(scores: npt.NDArray[np.floating], targets: npt.NDArray[np.integer], *, tolerance: float = 0.0) -> Array:
    """Rank of each target position among `scores`; ties count half, the target itself does not.

    A score that is not finite counts as not ranked. `tolerance`: scores that differ by no more are ties. The same text
    embedded twice gets cosines that differ in the last bit, by where it stands in the catalogue: without a tolerance
    the order of the catalogue would decide.
    """
    ranked = scores[np.isfinite(scores)]
    wanted = scores[targets]
    high, low = wanted + tolerance, wanted - tolerance
    if len(wanted) <= _COUNTED:  # a pass a target is cheaper than sorting a catalogue
        above = np.array([np.count_nonzero(ranked > one) for one in high], np.int64)
        upto = np.array([np.count_nonzero(ranked >= one) for one in low], np.int64)
    else:
        ordered = np.sort(ranked)
        above = len(ordered) - np.searchsorted(ordered, high, side="right")
        upto = len(ordered) - np.searchsorted(ordered, low, side="left")
    return np.where(np.isfinite(wanted), 1 + above + (upto - above - 1) / 2, np.inf).astype(np.float64)


def best_rows(scores: npt.NDArray[np.floating], count: int, *, tolerance: float = 0.0) -> npt.NDArray[np.int64]:
    """Positions of at most `count` finite scores, best first, ties by position: in a catalogue that is in order of id,
    by id. `tolerance`: as in `ranks_of`; neighbours in the order tie."""
    finite = np.flatnonzero(np.isfinite(scores))
    kept = scores[finite]
    if len(kept) > count > 0:
        least = np.partition(kept, len(kept) - count)[len(kept) - count]
        close = kept >= least - tolerance
        finite, kept = finite[close], kept[close]
    falling = np.argsort(-kept, kind="stable")
    ties = np.concatenate(([0], np.cumsum(-np.diff(kept[falling]) > tolerance)))[: len(falling)]
    return np.asarray(finite[falling][np.lexsort((finite[falling], ties))][:count], np.int64)


def recall_at(ranks: Array, k: int) -> float:
    """Share of the relevant jobs within the first k."""
    return float(np.mean(ranks <= k)) if len(ranks) else float("nan")


def hit_at(ranks: Array, k: int) -> float:
    """1 where any relevant job is within the first k."""
    return float(np.any(ranks <= k)) if len(ranks) else float("nan")


def reciprocal_rank(ranks: Array) -> float:
    """One over the rank of the first relevant job; 0 where none was ranked."""
    return float(1 / ranks.min()) if len(ranks) else float("nan")


def average_precision(ranks: Array, k: float = np.inf) -> float:
    """Mean over the relevant jobs of the precision at their rank, 0 for those beyond `k` (TREC's, over all relevant).

    Relevant jobs that tie share the mean of their places, as ranks do, so a constant score gains nothing.
    """
    if not len(ranks):
        return float("nan")
    found = ranks[ranks <= k]
    ahead = (found[:, None] > found).sum(axis=1) + (1 + (found[:, None] == found).sum(axis=1)) / 2
    return float((ahead / found).sum() / len(ranks)) if len(found) else 0.0


def applications_at(ranks: Array, gains: npt.NDArray[np.floating], k: int) -> float:
    """How many of the jobs that were applied to, or more, are within the first k: per target, not a share."""
    return float(np.count_nonzero((ranks <= k) & (gains >= APPLIED))) if len(ranks) else float("nan")


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


METRICS: dict[str, Callable[[Array, npt.NDArray[np.floating]], float]] = {
    "recall@10": lambda ranks, _: recall_at(ranks, 10),
    "hr@10": lambda ranks, _: hit_at(ranks, 10),
    "hr@50": lambda ranks, _: hit_at(ranks, 50),
    "ndcg@10": lambda ranks, gains: ndcg_at(ranks, gains, 10),
    "map@10": lambda ranks, _: average_precision(ranks, 10),
    "mrr": lambda ranks, _: reciprocal_rank(ranks),
    "recall@50": lambda ranks, _: recall_at(ranks, 50),
    "recall@500": lambda ranks, _: recall_at(ranks, 500),
    "applications@10": lambda ranks, gains: applications_at(ranks, gains, 10),
}
"""Metrics of one request from the ranks and labels of its relevant jobs."""
