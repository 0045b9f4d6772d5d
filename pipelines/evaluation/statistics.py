"""What a difference between two recommenders is worth: intervals, tests, corrections, and how much data they need.

Offline everything is paired and by cluster: two releases answer the same targets, and all targets of one candidate are
resampled, or change their sign, together (Smucker, Allan and Carterette 2007, CIKM, on sign flips and the bootstrap for
rankings). Online, where somebody looks every day, the always-valid interval is used.
NaN among values means that the metric does not apply to this target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from rolecall.platform.errors import InputError

Values = npt.NDArray[np.float64]
"""One number a target or unit; NaN where it does not apply."""

Clusters = npt.NDArray[np.integer]
"""One code a target: targets of one candidate share theirs."""

_BLOCK = 8_000_000
"""Numbers that a bootstrap draws at a time."""

_SIGNS = 1000
"""Sign changes drawn at a time."""

_ENOUGH = 100
"""Draws that reached what was observed, after which a permutation p-value is known well enough."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its interval (95% unless said otherwise) over `count` values that are not NaN."""

    mean: float
    low: float
    high: float
    count: int

    def to_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "count": self.count}


def clusters_of(names: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Codes from 0 for names, in order of first appearance: the same targets in the same order give the same codes."""
    _, first, codes = np.unique(np.asarray(names), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int64)[codes]


def bootstrap(
    values: npt.NDArray[np.floating], *, rounds: int, seed: int, groups: Clusters | None = None, level: float = 0.95
) -> Interval:
    """The mean of one value a target and its percentile interval; whole `groups` are drawn, each target where None.

    For two systems on the same targets give the differences: the interval is then of the paired difference.
    """
    return bootstrap_columns(np.asarray(values, np.float64)[:, None], rounds, seed, groups, level)[0]


def bootstrap_columns(
    columns: Values, rounds: int, seed: int, groups: Clusters | None = None, level: float = 0.95
) -> list[Interval]:
    """`bootstrap` of every column of float64[n, k], all from the same draws.

    The mean of a draw is that of its targets, whatever cluster they are in; a draw without any is left out.
    """
    sums, counts = _by_cluster(columns, groups)
    used = counts.any(axis=1)
    sums, counts = sums[used], counts[used]
    drawn = [_drawn_means(weights, sums, counts) for weights in _resamples(len(sums), rounds, seed)]
    means = np.concatenate(drawn) if drawn else np.empty((0, columns.shape[1]))
    edges = [50 * (1 - level), 50 * (1 + level)]
    found = []
    for at, (total, count) in enumerate(zip(sums.sum(axis=0), counts.sum(axis=0), strict=True)):
        if not count:
            found.append(Interval(mean=math.nan, low=math.nan, high=math.nan, count=0))
            continue
        low, high = np.nanpercentile(means[:, at], edges)
        found.append(Interval(mean=float(total / count), low=float(low), high=float(high), count=int(count)))
    return found


def percentile_ratio(
    ours: npt.NDArray[np.floating], theirs: npt.NDArray[np.floating], *, percentile: float, rounds: int, seed: int
) -> Interval:
    """Our percentile over theirs on the same targets, with the 95% percentile interval of a paired bootstrap."""
    if len(ours) != len(theirs) or not len(ours):
        return Interval(mean=math.nan, low=math.nan, high=math.nan, count=0)
    random, both, ratios = np.random.default_rng(seed), np.stack([ours, theirs]), []
    block = max(1, _BLOCK // len(ours))
    for done in range(0, rounds, block):
        drawn = random.integers(0, len(ours), (min(block, rounds - done), len(ours)))
        high, low = np.percentile(both[:, drawn], percentile, axis=2)
        ratios.append(high / low)
    edges = np.percentile(np.concatenate(ratios), [2.5, 97.5])
    whole = np.percentile(both, percentile, axis=1)
    return Interval(mean=float(whole[0] / whole[1]), low=float(edges[0]), high=float(edges[1]), count=len(ours))


def sign_flip(values: npt.NDArray[np.floating], *, rounds: int, seed: int, groups: Clusters | None = None) -> float:
    """p-value of "the mean is above 0", one-sided, by random sign changes of whole clusters.

    Exact where the clusters' sums are symmetric about 0 under the null hypothesis, as for two equal systems, and right
    in the limit wherever their mean is 0 (Fisher 1935; Janssen 1997). It never is 0: (reached + 1) / (draws + 1)
    (Phipson and Smyth 2010). Drawing ends early where p is large for sure (Besag and Clifford 1991). No value gives 1.
    """
    return float(sign_flip_columns(np.asarray(values, np.float64)[:, None], rounds, seed, groups)[0])


def sign_flip_columns(columns: Values, rounds: int, seed: int, groups: Clusters | None = None) -> Values:
    """`sign_flip` of every column of float64[n, k], all from the same signs: float64[k]."""
    sums, _ = _by_cluster(columns, groups)
    narrow = sums.astype(np.float32)
    slack = 1e-6 * np.abs(sums).sum(axis=0)  # of float32 sums: ties count as reached
    least = sums.sum(axis=0) - slack
    reached, drawn = np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
    for signs in _signs(len(sums), rounds, seed):
        open_ = reached < _ENOUGH
        if not open_.any():
            break
        reached[open_] += (signs @ narrow[:, open_] >= least[open_]).sum(axis=0)
        drawn[open_] += len(signs)
    return np.asarray((reached + 1) / (drawn + 1), np.float64)


def holm(p_values: npt.ArrayLike) -> Values:
    """Adjusted p-values: rejecting those at or below q keeps the chance of any false rejection at q (Holm 1979)."""
    given = _p_values(p_values)
    order = np.argsort(given, kind="stable")
    steps = given[order] * np.arange(len(given), 0, -1)
    adjusted = np.empty(len(given))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def benjamini_hochberg(p_values: npt.ArrayLike) -> Values:
    """Adjusted p-values: rejecting those at or below q keeps the expected share of false ones among them at q
    (Benjamini and Hochberg 1995; for independent or positively dependent tests)."""
    given = _p_values(p_values)
    order = np.argsort(given, kind="stable")
    steps = given[order] * len(given) / np.arange(1, len(given) + 1)
    adjusted = np.empty(len(given))
    adjusted[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    return adjusted


def always_valid(values: npt.NDArray[np.floating], *, level: float = 0.95, best_at: int = 1000) -> Interval:
    """The newest interval of `confidence_sequence`: may be looked at, and stopped at, after any value."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return Interval(mean=math.nan, low=-math.inf, high=math.inf, count=0)
    low, high = confidence_sequence(known, level=level, best_at=best_at)
    return Interval(mean=float(known.mean()), low=float(low[-1]), high=float(high[-1]), count=len(known))


def confidence_sequence(values: Values, *, level: float = 0.95, best_at: int = 1000) -> tuple[Values, Values]:
    """Lower and upper ends after each of n values in order of arrival; all of them cover the mean at once with `level`.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024, *Annals of Statistics*
    52(6), theorem 2.2): Robbins' normal mixture with the running standard deviation, narrowest about `best_at` values
    (equation for rho in their appendix). The always-valid p-value of Johari, Pekelis and Walsh (2017, KDD) inverts the
    same mixture. Trust it from some fifty values on, as any limit theorem; a yes/no outcome needs fifty of each.
    """
    if not 0 < level < 1 or best_at < 1:
        raise InputError(f"level {level}, best_at {best_at}", "a level between 0 and 1, at least one value")
    alpha = 1 - level
    rho2 = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / best_at
    count = np.arange(1, len(values) + 1, dtype=np.float64)
    mean = np.cumsum(values) / count
    variance = np.maximum(np.cumsum(values**2) / count - mean**2, 0.0)
    spread = count * rho2 + 1
    width = np.sqrt(variance * 2 * spread / (count**2 * rho2) * np.log(np.sqrt(spread) / alpha))
    width[:1] = math.inf  # nothing is known of the spread yet
    return mean - width, mean + width


def arm_differences(values: Values, treated: npt.NDArray[np.bool_], *, share: float = 0.5) -> Values:
    """One number a unit from the second on, in order of arrival, whose mean estimates "treated minus control": for
    `confidence_sequence`.

    Inverse-probability scores, each value less the mean of all before it (so the level of the metric adds no noise);
    `share`: the known chance of being treated. Unbiased whatever the values are.
    """
    if not 0 < share < 1 or len(values) != len(treated):
        raise InputError(
            f"share {share}, {len(values)} values of {len(treated)} units", "a share in (0, 1), a value a unit"
        )
    before = np.cumsum(values)[:-1] / np.arange(1, len(values))
    weights = np.where(treated[1:], 1 / share, -1 / (1 - share))
    return np.asarray(weights * (values[1:] - before), np.float64)


def required_targets(
    effect: float, spread: float, *, level: float = 0.025, power: float = 0.8, design: float = 1.0
) -> int:
    """Targets with which a one-sided paired test at `level` sees a true `effect` with `power`.

    `spread`: standard deviation of one target's difference, in the effect's unit; `design`: variance of the mean over
    that of independent targets (`design_effect`). n = design ((z_level + z_power) spread / effect)^2.
    """
    if not effect > 0 or not spread >= 0 or not 0 < level < power < 1:
        raise InputError(
            f"effect {effect:g}, spread {spread:g}, level {level:g}, power {power:g}",
            "an effect above 0, a spread of 0 or more, 0 < level < power < 1",
        )
    return max(2, math.ceil(design * ((_z(level) + _z(1 - power)) * spread / effect) ** 2))


def detectable_effect(
    count: int, spread: float, *, level: float = 0.025, power: float = 0.8, design: float = 1.0
) -> float:
    """The smallest true effect that `count` targets show with `power`; infinite without targets."""
    return (_z(level) + _z(1 - power)) * spread * math.sqrt(design / count) if count else math.inf


def power_of(effect: float, count: int, spread: float, *, level: float = 0.025, design: float = 1.0) -> float:
    """The chance that a one-sided paired test at `level` sees a true `effect` (either sign) with `count` targets."""
    if not spread or not count:
        return float(effect > 0 and count > 0)
    return NormalDist().cdf(effect / (spread * math.sqrt(design / count)) - _z(level))


def required_days(targets: int, per_day: float) -> int:
    """Whole days until that many targets came together. Raises InputError where none comes."""
    if not per_day > 0:
        raise InputError(f"{per_day:g} targets a day", "more than 0", "wait until candidates act")
    return math.ceil(targets / per_day)


def design_effect(values: npt.NDArray[np.floating], groups: Clusters) -> float:
    """Variance of the mean by cluster over that of independent targets (Kish 1965); 1 where each has its own."""
    sums, counts = _by_cluster(np.asarray(values, np.float64)[:, None], groups)
    total = float(counts.sum())
    known = np.asarray(values)[~np.isnan(values)]
    alone = float(np.var(known)) * total
    if not alone:
        return 1.0
    residuals = sums[:, 0] - counts[:, 0] * known.mean()
    return float((residuals**2).sum() / alone)


def _z(tail: float) -> float:
    return NormalDist().inv_cdf(1 - tail)


def _p_values(given: npt.ArrayLike) -> Values:
    values = np.asarray(given, np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"p-values {values.tolist()}", "a row of numbers from 0 to 1")
    return values


def _by_cluster(columns: Values, groups: Clusters | None) -> tuple[Values, Values]:
    """Sums and counts of what is not NaN, a row a cluster."""
    known = ~np.isnan(columns)
    filled, counted = np.where(known, columns, 0.0), known.astype(np.float64)
    if groups is None:
        return filled, counted
    if len(groups) != len(columns):
        raise InputError(f"{len(columns)} values in {len(groups)} clusters", "one cluster code a value")
    codes = np.unique(groups, return_inverse=True)[1]
    size = int(codes.max()) + 1 if len(codes) else 0
    if size == len(codes):  # each target its own cluster
        return filled, counted
    sums, counts = np.zeros((size, columns.shape[1])), np.zeros((size, columns.shape[1]))
    np.add.at(sums, codes, filled)
    np.add.at(counts, codes, counted)
    return sums, counts


def _drawn_means(weights: npt.NDArray[np.float32], sums: Values, counts: Values) -> Values:
    both = weights @ np.concatenate([sums, counts], axis=1).astype(np.float32)
    width = sums.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(both[:, :width] / both[:, width:], np.float64)


def _resamples(count: int, rounds: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """How often each of `count` clusters is drawn, block by block: float32[rounds in the block, count]."""
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // max(count, 1))
    for done in range(0, rounds if count else 0, block):
        rows = min(block, rounds - done)
        drawn = random.integers(0, count, (rows, count), dtype=np.int32)
        drawn += np.arange(rows, dtype=np.int32)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float32)


def _signs(count: int, rounds: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """Random signs, block by block: float32[rounds in the block, count] of -1 and 1; a random bit each."""
    random = np.random.default_rng(seed)
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    eight = bits.astype(np.float32) * 2 - 1
    whole = (count + 7) // 8
    for done in range(0, rounds, _SIGNS):
        rows = min(_SIGNS, rounds - done)
        drawn = np.frombuffer(random.bytes(rows * whole), np.uint8)
        yield eight[drawn].reshape(rows, whole * 8)[:, :count]
