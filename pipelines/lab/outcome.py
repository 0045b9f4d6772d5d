"""What an arm's days came to, one number a candidate, and how two arms compare with the same candidates and luck."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.evaluation.statistics import Interval
from rolecall.platform.errors import InputError

Counts = npt.NDArray[np.int64]
COUNTED = ("visits", "impressions", "clicks", "saves", "applications", "dismissals", "hires")
ROUNDS = 10_000
BOOTSTRAP_SEED = 7


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything one arm got out of one seed.

    `counts`: for each name of COUNTED a number a candidate, int64[C]; `daily`: applications a day, int64[D];
    `exposure`: impressions of every job that was live on some day, int64[J].
    """

    arm: str
    counts: Mapping[str, Counts]
    daily: Counts
    exposure: Counts

    @property
    def coverage(self) -> float:
        """Share of the jobs that were shown to anybody."""
        return float((self.exposure > 0).mean()) if len(self.exposure) else 0.0

    def total(self, name: str) -> int:
        return int(self.counts[name].sum())


def gini(values: npt.NDArray[np.number]) -> float:
    """Gini coefficient of exposure: 0 where every job is shown as often, towards 1 where one takes all."""
    ordered = np.sort(np.asarray(values, np.float64))
    count, total = len(ordered), float(ordered.sum())
    if not count or not total:
        return 0.0
    return float(2 * (np.arange(1, count + 1) * ordered).sum() / (count * total) - (count + 1) / count)


def mean_interval(values: npt.NDArray[np.number], *, rounds: int = ROUNDS, seed: int = BOOTSTRAP_SEED) -> Interval:
    """The mean of one number a candidate, with the 95% percentile interval of a bootstrap over candidates."""
    known = np.asarray(values, np.float64)
    drawn = np.concatenate([weights @ known / len(known) for weights in _resamples(len(known), rounds, seed)])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(mean=float(known.mean()), low=float(low), high=float(high), count=len(known))


def ratio_interval(
    ours: npt.NDArray[np.number],
    theirs: npt.NDArray[np.number],
    *,
    rounds: int = ROUNDS,
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Sum of `ours` over sum of `theirs`, one number a candidate in the same order, resampled in pairs.

    A resample in which `theirs` is zero counts as infinite. Raises InputError where the two are not of one length.
    """
    if len(ours) != len(theirs) or not len(ours):
        raise InputError(f"{len(ours)} and {len(theirs)} candidates", "the same candidates, at least one")
    both = np.stack([np.asarray(ours, np.float64), np.asarray(theirs, np.float64)], axis=1)
    sums = np.concatenate([weights @ both for weights in _resamples(len(both), rounds, seed)])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios, whole = sums[:, 0] / sums[:, 1], both[:, 0].sum() / both[:, 1].sum()
    low, high = np.percentile(np.nan_to_num(ratios, nan=1.0, posinf=np.inf), [2.5, 97.5], method="nearest")
    return Interval(mean=float(whole), low=float(low), high=float(high), count=len(both))


def compare(outcomes: Sequence[Sequence[Outcome]], *, ours: str) -> dict[str, Interval]:
    """Applications per candidate of arm `ours` over every other arm's, candidates of all seeds pooled.

    `outcomes`: for each seed, one outcome an arm. Candidates nobody saw under any arm are no part of it.
    """
    pooled = pool(outcomes)
    came = pooled[ours]["visits"] > 0
    mine = pooled[ours]["applications"][came]
    return {arm: ratio_interval(mine, counts["applications"][came]) for arm, counts in pooled.items() if arm != ours}


def pool(outcomes: Sequence[Sequence[Outcome]]) -> dict[str, dict[str, Counts]]:
    """Each arm's counts with the candidates of all seeds in one row."""
    names = [outcome.arm for outcome in outcomes[0]]
    by_seed = [{outcome.arm: outcome for outcome in seed} for seed in outcomes]
    return {
        arm: {name: np.concatenate([seed[arm].counts[name] for seed in by_seed]) for name in COUNTED} for arm in names
    }


def table_rows(outcomes: Sequence[Sequence[Outcome]]) -> list[dict[str, Any]]:
    """One line an arm: what a candidate who came at all did in the whole time, with 95% intervals."""
    pooled = pool(outcomes)
    rows = []
    for arm, counts in pooled.items():
        came = counts["visits"] > 0
        applications = mean_interval(counts["applications"][came])
        visits = max(int(counts["visits"].sum()), 1)
        mine = [outcome for seed in outcomes for outcome in seed if outcome.arm == arm]
        rows.append(
            {
                "arm": arm,
                "applications a candidate [95%]": told(applications),
                "a visit": float(counts["applications"].sum() / visits),
                "clicks a visit": float(counts["clicks"].sum() / visits),
                "hires a candidate": float(counts["hires"][came].mean()),
                "coverage": float(np.mean([outcome.coverage for outcome in mine])),
                "gini": float(np.mean([gini(outcome.exposure) for outcome in mine])),
            }
        )
    return rows


def told(interval: Interval, digits: int = 3) -> str:
    """`1.234 [1.100, 1.370]`."""
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _resamples(count: int, rounds: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """How often each candidate is drawn in each round, block by block: float64[rounds in the block, count]."""
    random = np.random.default_rng(seed)
    block = max(1, 4_000_000 // count)
    even = np.full(count, 1.0 / count)
    for done in range(0, rounds, block):
        yield random.multinomial(count, even, size=min(block, rounds - done)).astype(np.float64)
