"""Whether the newest day differs from the days before it more than days differ from one another.

Of every column, each day is compared with other days: of a state with the same weekday a week before, of arrivals with
the same weekday of the other weeks. Numbers by the largest gap between the two distribution functions (the statistic of
Kolmogorov 1933 and Smirnov 1939), texts and lists by the largest gap between the shares of a value, missing values by
the gap between their shares; each gap in units of its standard deviation were the two samples independent. They are
not (people come back, a recommender shows similar jobs), so a gap is divided by the column's own median over the days.
What is left is comparable between columns, and the largest of all columns is a day's figure.

The newest day raises an alarm where its figure exceeds that of every one of the `HISTORY` days before it, by `MARGIN`.
As all columns of a day enter one figure, the alarm rate holds for all features together, however they depend on one
another and however many rows are one person's: if days can be exchanged, one day in HISTORY + 1 has the largest figure
(the permutation argument of Westfall and Young 1993, *Resampling-Based Multiple Testing*, over days; the p-value of
conformal prediction, Vovk, Gammerman and Shafer 2005). `MARGIN` pays for what is not exchangeable: growth, neighbouring
days that are alike. Earlier days that stand apart from all others in the same way were drifts and are left out, else
one drift would hide the next. tests/bench/drift.py measures the rate of alarms on quiet days.

Against the champion's training days the population stability index is told (Siddiqi 2006: above .25 a major shift), as
the largest that two halves of quiet days come to is far below it (Yurdakul and Naranjo 2020 on its distribution).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.drift.populations import JOBS, REQUESTS, VIEW
from rolecall.pipelines.drift.sketch import Sketch
from rolecall.pipelines.drift.statistics import Day, FeatureStatistics, Key

HISTORY = 28
"""Days that the newest is compared with: whole weeks."""

WEEK = 7
KEPT_DAYS = HISTORY + WEEK + 1
"""Days of statistics that a measure needs: a state is compared with a week before."""

LEAST_DAYS = 20
"""Fewer earlier days and nothing is judged: one day in 21 has the largest figure."""

MARGIN = 1.25
"""By how much the newest day must exceed every earlier one."""

LEAST_EFFECT = 0.02
"""Share of the rows that must have moved: less is told and raises no alarm."""

MAJOR_SHIFT = 0.25
"""Population stability index against the champion's training days from which on an alarm is raised."""

LEAST_UNITS = 100
"""People, jobs or requests on either side for an index to be judged: with fewer it is mostly noise."""

LOST = 0.65
"""A source has lost rows where fewer than this share are left of the middle one of the three same weekdays before."""

_LEAST_SCALE = 1.0
_RARE = 4.0
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One column's newest day against others. `figure`: its gap over its usual one; `effect`: share of the rows that
    moved; `psi`: population stability index; `before`, `now`: missing share and mean."""

    source: str
    column: str
    figure: float
    effect: float
    psi: float
    missing_before: float
    missing_now: float
    mean_before: float
    mean_now: float
    alarm: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values, NaN as None."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: _finite(value) if isinstance(value, float) else value for name, value in told.items()}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Shift:
        """What `to_dict` wrote."""
        read: dict[str, Any] = {name: math.nan if value is None else value for name, value in told.items()}
        return cls(**read)

    def words(self) -> str:
        """What changed, in words."""
        moved = f"{self.effect:.0%} of the rows moved"
        if abs(self.missing_now - self.missing_before) >= self.effect / 2:
            return f"{moved}, missing {self.missing_before:.0%} before and {self.missing_now:.0%} now"
        if math.isnan(self.mean_before) or math.isnan(self.mean_now):
            return moved
        return f"{moved}, mean {self.mean_before:.4g} before and {self.mean_now:.4g} now"


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A source with far fewer people, jobs or requests (`now`) than is usual on that weekday (`before`)."""

    source: str
    before: int
    now: int

    def words(self) -> str:
        """What is missing, in words."""
        return f"had {self.now or 'no'} rows where such days have {self.before}"


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """What is said of one day. `threshold`: the figure that raises an alarm, infinite where too few days are known.

    `shifts`: every column, the largest figure first; `training`: the same against the champion's training days,
    `figure` and `psi` alike, empty without a champion; `lost`: sources that had many rows on each such weekday and
    now have none, or far fewer: rows lost at random leave every distribution as it was.
    """

    day: date
    days: int
    threshold: float
    shifts: tuple[Shift, ...]
    training: tuple[Shift, ...] = ()
    lost: tuple[Loss, ...] = ()

    @property
    def alarms(self) -> tuple[Shift, ...]:
        return tuple(one for one in (*self.shifts, *self.training) if one.alarm)

    @property
    def drifted(self) -> bool:
        return bool(self.alarms or self.lost)

    def warnings(self) -> list[str]:
        """A sentence an alarm, the largest first."""
        told = [f"{one.column} ({one.source}) drifted: {one.words()}" for one in self.alarms]
        return told + [f"{one.source} {one.words()}, on {self.day}" for one in self.lost]

    def metrics(self) -> dict[str, float]:
        """Figures of a run. `drift.height`: the day's figure over its threshold."""
        return {
            "drift.columns": float(len(self.shifts)),
            "drift.days": float(self.days),
            "drift.alarms": float(len(self.alarms) + len(self.lost)),
            "drift.height": self.largest,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, NaN and infinity as None."""
        return {
            "day": self.day.isoformat(),
            "days": self.days,
            "threshold": _finite(self.threshold),
            "drifted": self.drifted,
            "lost": [asdict(one) for one in self.lost],
            "shifts": [one.to_dict() for one in self.shifts],
            "training": [one.to_dict() for one in self.training],
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> DriftReport:
        """What `to_dict` wrote."""
        threshold = told["threshold"]
        return cls(
            day=date.fromisoformat(told["day"]),
            days=told["days"],
            threshold=math.inf if threshold is None else threshold,
            shifts=tuple(Shift.from_dict(one) for one in told["shifts"]),
            training=tuple(Shift.from_dict(one) for one in told["training"]),
            lost=tuple(Loss(**one) for one in told.get("lost", ())),
        )

    @property
    def largest(self) -> float:
        """The day's figure over its threshold; 0 while nothing is judged."""
        figure = self.shifts[0].figure if self.shifts else 0.0
        return figure / self.threshold if math.isfinite(self.threshold) else 0.0


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """Rows added up: `units` behind them, and shares by bin."""

    units: float
    rows: float
    missing: float
    shares: Numbers
    mean: float

    @classmethod
    def of(cls, days: Sequence[Day], column: str) -> _Sample:
        found = [(day.units, day.columns[column]) for day in days]
        rows = float(sum(one.rows for _, one in found))
        known = float(sum(one.rows - one.missing for _, one in found))
        counts = np.sum([one.counts for _, one in found], axis=0, dtype=np.float64)
        means = [(one.mean, one.rows - one.missing) for _, one in found if not math.isnan(one.mean)]
        told = sum(count for _, count in means)
        return cls(
            units=float(sum(units for units, _ in found)),
            rows=rows,
            missing=1 - known / rows if rows else math.nan,
            shares=np.asarray(counts / max(rows, 1.0), np.float64),
            mean=sum(mean * count for mean, count in means) / told if told else math.nan,
        )


def measure(statistics: FeatureStatistics, day: date, *, champion: FeatureStatistics | None = None) -> DriftReport:
    """What changed on `day`, of which `statistics` hold the days before. `champion`: those of its training."""
    window = [day - timedelta(days=back) for back in range(HISTORY, -1, -1)]
    gaps = {key: row for source in statistics.sources() for key, row in _gaps(statistics, source, window)}
    figures = {key: row / max(_LEAST_SCALE, _median(row)) for key, row in gaps.items()}
    known = [at for at in range(HISTORY) if any(not math.isnan(row[at]) for row in figures.values())]
    threshold = _threshold([max(_known(row[at] for row in figures.values())) for at in known])
    shifts = [_shift(statistics, key, day, float(row[-1]), threshold) for key, row in figures.items()]
    return DriftReport(
        day=day,
        days=len(known),
        threshold=threshold,
        shifts=tuple(sorted((one for one in shifts if one), key=lambda one: -one.figure)),
        training=_against(statistics, champion) if champion else (),
        lost=tuple(_lost(statistics, day)) if math.isfinite(threshold) else (),
    )


def _threshold(earlier: Sequence[float]) -> float:
    """The figure that raises an alarm. The highest earlier days that a gap of `MARGIN` sets apart were drifts
    themselves and raise no bar, as long as `LEAST_DAYS` are left."""
    figures = sorted(earlier)
    if len(figures) < LEAST_DAYS:
        return math.inf
    apart = [at for at in range(LEAST_DAYS, len(figures)) if figures[at] > MARGIN * figures[at - 1]]
    return MARGIN * figures[apart[0] - 1 if apart else -1]


def _gaps(statistics: FeatureStatistics, source: str, window: Sequence[date]) -> Iterator[tuple[Key, Numbers]]:
    """Each column's gap on each day of the window; NaN where either side has no rows."""
    days = {one.day: one for one in statistics.of(source)}
    others = {day: _others(days, source, day, window) for day in window}
    for column in sorted({name for one in days.values() for name in one.columns}):
        sketch = statistics.definitions[source, column].sketch
        row = [
            _gap(sketch, _Sample.of([days[day]], column), _Sample.of(others[day], column))
            if day in days and others[day]
            else math.nan
            for day in window
        ]
        yield (source, column), np.array(row)


def _others(days: Mapping[date, Day], source: str, day: date, window: Sequence[date]) -> list[Day]:
    """What a day is compared with."""
    if source == JOBS or source.startswith(VIEW):
        wanted = [day - timedelta(days=WEEK)]
    else:
        wanted = [other for other in window if other != day and (other - day).days % WEEK == 0]
    return [days[other] for other in wanted if other in days]


def _gap(sketch: Sketch, one: _Sample, other: _Sample) -> float:
    """The largest difference in standard deviations of two independent samples of as many units."""
    if not one.rows or not other.rows:
        return math.nan
    size = one.units * other.units / (one.units + other.units)
    missing = _deviations(one, other, np.array([one.missing]), np.array([other.missing]), size)
    if sketch.ordered:
        return max(missing, 2 * math.sqrt(size) * _distance(sketch, one, other))
    return max(missing, _deviations(one, other, one.shares, other.shares, size))


def _deviations(one: _Sample, other: _Sample, ours: Numbers, theirs: Numbers, size: float) -> float:
    both = (one.units * ours + other.units * theirs) / (one.units + other.units)
    spread = np.maximum(both * (1 - both), _RARE / max(size, 2 * _RARE))
    return float((np.abs(ours - theirs) / np.sqrt(spread / size)).max(initial=0.0))


def _distance(sketch: Sketch, one: _Sample, other: _Sample) -> float:
    """Share of the rows by which the two differ most: between distribution functions, or in one value's share."""
    difference = one.shares - other.shares
    gaps = np.cumsum(difference) if sketch.ordered else difference
    return max(float(np.abs(gaps).max(initial=0.0)), abs(one.missing - other.missing))


def _shift(statistics: FeatureStatistics, key: Key, day: date, figure: float, threshold: float) -> Shift | None:
    source, column = key
    days = {one.day: one for one in statistics.of(source)}
    window = [day - timedelta(days=back) for back in range(HISTORY, -1, -1)]
    others = _others(days, source, day, window)
    if math.isnan(figure) or day not in days or not others:
        return None
    sketch = statistics.definitions[key].sketch
    now, before = _Sample.of([days[day]], column), _Sample.of(others, column)
    effect = _distance(sketch, now, before)
    return _told(key, sketch, now, before, figure, alarm=bool(figure > threshold and effect >= LEAST_EFFECT))


def _told(key: Key, sketch: Sketch, now: _Sample, before: _Sample, figure: float, *, alarm: bool) -> Shift:
    return Shift(
        source=key[0],
        column=key[1],
        figure=figure,
        effect=_distance(sketch, now, before),
        psi=stability_index(now.shares, before.shares, now.missing, before.missing),
        missing_before=before.missing,
        missing_now=now.missing,
        mean_before=before.mean,
        mean_now=now.mean,
        alarm=alarm,
    )


def stability_index(now: Numbers, before: Numbers, missing_now: float, missing_before: float) -> float:
    """Sum over bins of (p - q) log(p / q), missing rows a bin of their own, no share below a thousandth."""
    p = np.maximum(np.append(now, missing_now), 1e-3)
    q = np.maximum(np.append(before, missing_before), 1e-3)
    return float(((p - q) * np.log(p / q)).sum())


def _against(statistics: FeatureStatistics, champion: FeatureStatistics) -> tuple[Shift, ...]:
    """Requests of today's training days against those that the champion learned from, largest index first."""
    ours, theirs = statistics.of(REQUESTS)[-HISTORY:], champion.of(REQUESTS)[-HISTORY:]
    found = []
    for key, definition in statistics.definitions.items():
        if key[0] != REQUESTS or champion.definitions.get(key) != definition or not ours or not theirs:
            continue
        now, before = _Sample.of(ours, key[1]), _Sample.of(theirs, key[1])
        if now.rows and before.rows:
            psi = stability_index(now.shares, before.shares, now.missing, before.missing)
            judged = min(now.units, before.units) >= LEAST_UNITS
            alarm = judged and psi >= MAJOR_SHIFT
            found.append(_told(key, definition.sketch, now, before, psi, alarm=alarm))
    return tuple(sorted(found, key=lambda one: -one.psi))


def _lost(statistics: FeatureStatistics, day: date) -> Iterator[Loss]:
    for source in statistics.sources():
        days = {one.day: one for one in statistics.of(source)}
        same = [days[other] for back in (1, 2, 3) if (other := day - timedelta(days=WEEK * back)) in days]
        if day not in days or not same:
            continue
        now, before = days[day].units, int(median(one.units for one in same))
        if before >= LEAST_UNITS and now < LOST * before:
            yield Loss(source=source, before=before, now=now)


def _median(row: Numbers) -> float:
    known = row[~np.isnan(row)]
    return float(np.median(known)) if len(known) else math.nan


def _known(values: Iterator[float]) -> Iterator[float]:
    return (value for value in values if not math.isnan(value))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
