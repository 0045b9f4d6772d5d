"""What each group gets of what is given out, against all others: attention, well-paid jobs, answers of employers.

The attention that a position gets falls as 1 / log2(1 + position) (Singh and Joachims 2018, "Fairness of exposure in
rankings", KDD), and is added up over many lists before groups are compared: no single list can be fair to everybody
(Biega, Gummadi and Weikum 2018, "Equity of attention", SIGIR). Every comparison is a ratio of two rates, of a group's
and of everybody else's; 1 is parity. Its interval comes from drawing whole lists, or whole people, again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from rolecall.features.catalogue import Catalogue
from rolecall.pipelines.evaluation.statistics import Interval

FEWEST = 20
"""Lists or people of a group, and of the others, below which nothing is said of it."""

ROUNDS_OF_FITTING = 20
"""Of the pay that a job's category, level and country explain."""

_BLOCK = 4_000_000
"""Numbers that are drawn at a time."""

_WANTED = ("shortlist", "reply", "hire")
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ExposureGap:
    """A group's rate over that of all others, and how many lists or people of the group it rests on."""

    ratio: Interval
    count: int

    def unequal(self, bound: float) -> bool:
        """Whether the ratio surely lies outside [bound, 1 / bound]."""
        return bool(self.ratio.high < bound or self.ratio.low > 1 / bound)

    def to_dict(self) -> dict[str, object]:
        known = {name: value if np.isfinite(value) else None for name, value in self.ratio.to_dict().items()}
        return {"ratio": known, "count": self.count}


@dataclass(frozen=True, kw_only=True)
class Shares:
    """By unit that is drawn again (a list, or a person): what was got and out of how much, [units, groups]."""

    groups: tuple[str, ...]
    got: Values
    of: Values


def attention(positions: npt.NDArray[np.number]) -> Values:
    """The attention of positions from 1 on."""
    return np.asarray(1 / np.log2(1 + positions.astype(np.float64)), np.float64)


def gaps(shares: Shares, *, rounds: int, seed: int, level: float = 0.95) -> Iterator[tuple[str, ExposureGap]]:
    """Each group against all others; with two groups only the later one by name, since the other says the same."""
    named = shares.groups[1:] if len(shares.groups) == 2 else shares.groups
    count = len(shares.got)
    if not count:
        return
    got, of = _resampled(shares, rounds, np.random.default_rng(seed))
    for name in named:
        place = shares.groups.index(name)
        units = [int(np.count_nonzero(of > 0)) for of in (shares.of[:, place], np.delete(shares.of, place, 1).sum(1))]
        if min(units) < FEWEST:
            continue
        own = got[:, place] / np.maximum(of[:, place], 1e-12)
        rest = np.delete(got, place, 1).sum(1) / np.maximum(np.delete(of, place, 1).sum(1), 1e-12)
        if rest[0] <= 0:
            continue
        ratios = own / np.maximum(rest, 1e-12)
        low, high = np.quantile(ratios[1:], [(1 - level) / 2, (1 + level) / 2])
        interval = Interval(mean=float(ratios[0]), low=float(low), high=float(high), count=count)
        yield name, ExposureGap(ratio=interval, count=units[0])


def _resampled(shares: Shares, rounds: int, random: np.random.Generator) -> tuple[Values, Values]:
    """What each group got and out of how much, of all units and of `rounds` draws of them, [1 + rounds, groups]: as
    many draws at a time as memory holds, since a log has as many people as the board."""
    count = len(shares.got)
    chances, block = np.full(count, 1 / count), max(1, _BLOCK // count)
    got, of = [shares.got.sum(axis=0)[None]], [shares.of.sum(axis=0)[None]]
    for done in range(0, rounds, block):
        weights = random.multinomial(count, chances, min(block, rounds - done)).astype(np.float64)
        got.append(weights @ shares.got)
        of.append(weights @ shares.of)
    return np.concatenate(got), np.concatenate(of)


def listed(lists: Sequence[tuple[Sequence[str], Sequence[str]]], group_of: Mapping[str, str]) -> Shares:
    """Attention to groups of what is listed. Each list: the ids shown, best first, and the ids that could have been."""
    groups = tuple(sorted(set(group_of.values())))
    got, of = np.zeros((len(lists), len(groups))), np.zeros((len(lists), len(groups)))
    code = {name: groups.index(group) for name, group in group_of.items()}
    for row, (shown, open_) in enumerate(lists):
        for value, name in zip(attention(np.arange(1, len(shown) + 1)), shown, strict=True):
            if name in code:
                got[row, code[name]] += value
        np.add.at(of[row], [code[name] for name in open_ if name in code], 1)
    return Shares(groups=groups, got=got, of=of)


def paid(shown: pl.DataFrame, well_paid: Mapping[str, bool], group_of: Mapping[str, str]) -> Shares:
    """Of the attention each person gave to jobs whose pay is known, how much went to well-paid ones.

    `shown`: candidate_id, job_id, position; a log that counts positions from 0 has its first two alike.
    """
    rows = shown.join(_frame("job_id", well_paid, "well"), on="job_id")
    weight = 1 / (1 + pl.col("position").clip(lower_bound=1).cast(pl.Float64)).log(2)
    by_person = rows.group_by("candidate_id").agg(
        (weight * pl.col("well").cast(pl.Float64)).sum().alias("got"), weight.sum().alias("of")
    )
    return _by_group(by_person, group_of)


def wanted(events: pl.DataFrame, group_of: Mapping[str, str]) -> Shares:
    """Of each person's applications, how many an employer shortlisted, answered or led to a hire."""
    applied = events.filter(pl.col("kind") == "apply", pl.col("actor") == "candidate")
    pairs = applied.select("candidate_id", "job_id").unique()
    good = events.filter(pl.col("kind").is_in(_WANTED)).select("candidate_id", "job_id", pl.lit(1.0).alias("good"))
    joined = pairs.join(good.unique(), on=["candidate_id", "job_id"], how="left")
    by_person = joined.group_by("candidate_id").agg(
        pl.col("good").fill_null(0.0).sum().alias("got"), pl.len().cast(pl.Float64).alias("of")
    )
    return _by_group(by_person, group_of)


def well_paid_jobs(catalogue: Catalogue) -> dict[str, bool]:
    """Of every job with known pay whether it is in the better paid half of what is like it.

    Like it: what its category, seniority and country together explain of the logarithm of pay, each by its mean given
    the others (backfitting: Buja, Hastie and Tibshirani 1989) is taken off.
    """
    known = np.flatnonzero(catalogue.salary > 0)
    pay = np.log(catalogue.salary[known].astype(np.float64))
    factors = [catalogue.category.codes[known], catalogue.country.codes[known], catalogue.seniority[known]]
    codes = [np.unique(np.nan_to_num(factor, nan=-1), return_inverse=True)[1] for factor in factors]
    more = pay
    for code in codes * ROUNDS_OF_FITTING:
        more = more - (np.bincount(code, weights=more) / np.bincount(code))[code]
    bar = float(np.median(more)) if len(more) else 0.0
    return {catalogue.job_ids[row]: bool(value > bar) for row, value in zip(known.tolist(), more, strict=True)}


def _by_group(by_person: pl.DataFrame, group_of: Mapping[str, str]) -> Shares:
    rows = by_person.join(_frame("candidate_id", group_of, "group"), on="candidate_id").sort("candidate_id")
    groups = tuple(sorted(set(group_of.values())))
    place = np.array([groups.index(name) for name in rows["group"]], np.int64)
    member = np.eye(len(groups))[place] if len(place) else np.zeros((0, len(groups)))
    return Shares(
        groups=groups, got=member * rows["got"].to_numpy()[:, None], of=member * rows["of"].to_numpy()[:, None]
    )


def _frame(key: str, values: Mapping[str, object], name: str) -> pl.DataFrame:
    return pl.DataFrame({key: list(values), name: list(values.values())}, schema_overrides={key: pl.String})
