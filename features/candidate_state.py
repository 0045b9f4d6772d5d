"""What is remembered of a candidate's own events: offline rows and online answers are dumps of these two objects.

    state = ActivityState.of(row)            # a stored row, or nothing
    state.take("click", "j1", at_us)         # events the row does not count yet, in any order
    state.activity(now_us)                   # the numbers rankers read, at any instant

A stored row is a state and not the numbers themselves, so the numbers are right at any instant: windows go on while
nothing happens, and an event counts from the microsecond after it. Both states are sums, maxima and sets, so the order
in which events arrive changes nothing: a row and what was posted since, late or not, give what the next row gives.
Bounds: MAX_REMEMBERED applied and dismissed jobs, MAX_SEEN sightings; beyond them the oldest are forgotten.

A day is a UTC day. A window of w days at an instant is its day so far and the w - 1 whole days before.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.features.view_features import SEEN_DAYS, WINDOWS_DAYS

PRIOR_RATE = 0.1
PRIOR_WEIGHT = 10.0
MAX_REMEMBERED = 200
"""Newest applied and dismissed jobs kept for the re-rank policy."""

MAX_SEEN = 2_000
"""Sightings (a job, a day) kept; only a machine sees more in two weeks, or in one day."""

COUNTED = ("impression", *ENGAGEMENT_EVENTS)
"""Kinds whose windows are counted, in the order of a day's counts."""

DAY_US = 86_400_000_000
_HOUR_US = 3_600_000_000.0
_KEPT_DAYS = WINDOWS_DAYS[-1]
_PLACE = {kind: place for place, kind in enumerate(COUNTED)}
Row = Mapping[str, Any]


class Sighting(NamedTuple):
    """What a candidate did with one job in the last SEEN_DAYS: how often it was shown, and `kinds`, a bit for each of
    COUNTED."""

    shown: int
    kinds: int

    def did(self, kind: str) -> bool:
        return bool(self.kinds & (1 << _PLACE[kind]))

    @property
    def engaged(self) -> bool:
        return self.kinds > 1  # the first bit is of impressions

    def with_event(self, kind: str) -> Sighting:
        return Sighting(self.shown + (kind == "impression"), self.kinds | (1 << _PLACE[kind]))

    def merged(self, other: Sighting) -> Sighting:
        return Sighting(self.shown + other.shown, self.kinds | other.kinds)


_UNSEEN = Sighting(0, 0)


@dataclass(kw_only=True)
class ActivityState:
    """Counts by day and kind of the last 30 days, sightings of single jobs, and what is counted over all time.

    `last_us`: newest impression, newest application. `until_us`: newest event counted.
    """

    days: dict[int, list[int]] = field(default_factory=dict)
    seen: dict[int, dict[str, Sighting]] = field(default_factory=dict)
    applies: int = 0
    shown_us: int | None = None
    applied_us: int | None = None
    until_us: int | None = None
    _packed: tuple[int, str, str] | None = None
    _count_lines: dict[int, str] = field(default_factory=dict)
    _seen_lines: dict[int, str] = field(default_factory=dict)
    _today: dict[str, str] = field(default_factory=dict)
    _held: int = 0

    @classmethod
    def of(cls, row: Row) -> ActivityState:
        """The state a row of `candidate_activity` holds; an empty one where the row is nulls."""
        state = cls(
            applies=int(row.get("candidate_applies_total") or 0),
            shown_us=_whole(row.get("last_shown_us")),
            applied_us=_whole(row.get("last_applied_us")),
            until_us=_whole(row.get("activity_until_us")),
        )
        for column in ("days_before", "day_counts"):
            for line in _lines(row.get(column)):
                day, *counts = line.split(" ")
                state.days[int(day)] = [int(count) for count in counts]
        for column in ("seen_before", "seen_today"):
            for line in _lines(row.get(column)):
                day, shown, kinds, job_id = line.split(" ", 3)
                state.seen.setdefault(int(day), {})[_unescaped(job_id)] = Sighting(int(shown), int(kinds))
                state._held += 1
        return state

    def take(self, kind: str, job_id: str, at_us: int) -> None:
        """One more event of the candidate; kinds outside COUNTED change nothing."""
        if kind not in _PLACE:
            return
        day = at_us // DAY_US
        if self._packed is None or day != self._packed[0]:
            self._count_lines.pop(day, None)
            self._seen_lines.pop(day, None)
            if self._packed is not None and day < self._packed[0]:
                self._packed = None
        self.days.setdefault(day, [0] * len(COUNTED))[_PLACE[kind]] += 1
        seen = self.seen.setdefault(day, {})
        known = seen.get(job_id)
        self._held += known is None
        seen[job_id] = now = (known or _UNSEEN).with_event(kind)
        if self._packed is not None and day == self._packed[0]:
            self._today[job_id] = _sighting(day, job_id, now)
        self.until_us = _newer(self.until_us, at_us)
        if kind == "impression":
            self.shown_us = _newer(self.shown_us, at_us)
        if kind == "apply":
            self.applies += 1
            self.applied_us = _newer(self.applied_us, at_us)

    def row(self) -> tuple[object, ...]:
        """STATE_COLUMNS of `candidate_activity` as of the newest event."""
        day = (self.until_us or 0) // DAY_US
        if self._packed is None or self._packed[0] != day or self._held > MAX_SEEN:
            self._pack(day)
        _, before, seen = self._packed or (day, "", "")
        return (
            before,
            _counts(day, self.days[day]) if day in self.days else "",
            seen,
            "\n".join(self._today.values()),
            float(self.applies),
            self.shown_us,
            self.applied_us,
            self.until_us,
        )

    def activity(self, at_us: int) -> dict[str, float]:
        """`CANDIDATE_ACTIVITY` at an instant, by name; nothing of somebody who did nothing, and was shown nothing."""
        if self.until_us is None:
            return {}
        counts = {days: self._window(at_us // DAY_US, days) for days in WINDOWS_DAYS}
        numbers = {
            f"candidate_{_PLURAL[kind]}_{days}d": float(counts[days][place])
            for days in WINDOWS_DAYS
            for kind, place in _PLACE.items()
        }
        month = counts[_KEPT_DAYS]
        engaged, applied = float(sum(month[1:])), float(month[_PLACE["apply"]])
        numbers["candidate_engagement_rate_30d"] = shrunk(engaged, max(float(month[0]), engaged))
        numbers["candidate_apply_rate_30d"] = shrunk(applied, engaged)
        numbers["candidate_applies_total"] = float(self.applies)
        for name, last in (("hours_since_shown", self.shown_us), ("hours_since_apply", self.applied_us)):
            if last is not None:
                numbers[name] = (at_us - last) / _HOUR_US
        return numbers

    def sightings(self, at_us: int) -> dict[str, Sighting]:
        """Jobs shown to, or engaged with by, the candidate in the SEEN_DAYS days up to an instant."""
        today = at_us // DAY_US
        found: dict[str, Sighting] = {}
        for day, jobs in self.seen.items():
            if day > today - SEEN_DAYS:
                for job_id, sighting in jobs.items():
                    found[job_id] = sighting.merged(found[job_id]) if job_id in found else sighting
        return found

    def _window(self, today: int, days: int) -> list[int]:
        kept = [counts for day, counts in self.days.items() if day > today - days]
        return [sum(column) for column in zip(*kept, strict=True)] or [0] * len(COUNTED)

    def _pack(self, day: int) -> None:
        """Write down all days but this one, each once, and what was sighted on this one: only a later day, an event of
        an earlier one or too many sightings change them, and each further event of the day changes one line."""
        self._forget(day)
        counts, seen = self._count_lines, self._seen_lines
        for one in self.days.keys() - counts.keys():
            if one < day:
                counts[one] = _counts(one, self.days[one])
        for one in self.seen.keys() - seen.keys():
            if one < day:
                seen[one] = _sightings(one, self.seen[one])
        before = "\n".join([counts[one] for one in sorted(counts)])
        self._packed = (day, before, "\n".join([seen[one] for one in sorted(seen)]))
        self._today = {job_id: _sighting(day, job_id, one) for job_id, one in self.seen.get(day, {}).items()}

    def _forget(self, day: int) -> None:
        for one in [one for one in self.days if one <= day - _KEPT_DAYS]:
            del self.days[one]
            self._count_lines.pop(one, None)
        for one in [one for one in self.seen if one <= day - SEEN_DAYS]:
            self._drop(one)
        while self._held > MAX_SEEN and len(self.seen) > 1:
            self._drop(min(self.seen))
        if self._held > MAX_SEEN:  # in one day: a row at each instant of it must not grow without end
            ((one, jobs),) = self.seen.items()
            for job_id in list(itertools.islice(jobs, len(jobs) - MAX_SEEN)):
                del jobs[job_id]
            self._seen_lines.pop(one, None)
            self._held = len(jobs)

    def _drop(self, day: int) -> None:
        self._held -= len(self.seen.pop(day))
        self._seen_lines.pop(day, None)


ACTIVITY_STATE_COLUMNS = (
    "days_before",
    "day_counts",
    "seen_before",
    "seen_today",
    "candidate_applies_total",
    "last_shown_us",
    "last_applied_us",
    "activity_until_us",
)
"""In the order of `ActivityState.row`."""


@dataclass(kw_only=True)
class HistoryState:
    """Jobs a candidate engaged with, applied to and dismissed, and how long they looked.

    `recent`: job to the newest instant it was engaged with, at most `length` jobs, the newest last; of two jobs of one
    instant the one taken later is the newer. `until_us`: newest event counted.
    """

    length: int
    recent: dict[str, int] = field(default_factory=dict)
    applied: dict[str, None] = field(default_factory=dict)
    dismissed: dict[str, None] = field(default_factory=dict)
    engagements: int = 0
    applies: int = 0
    dismissals: int = 0
    dwell_ms: int = 0
    dwells: int = 0
    engaged_us: int | None = None
    until_us: int | None = None

    @classmethod
    def of(cls, row: Row, *, length: int) -> HistoryState:
        """The state a row of `candidate_history` holds; an empty one where the row is nulls."""
        jobs = list(row.get("recent_job_ids") or ())
        instants = [int(text) for text in (row.get("recent_at_us") or "").split()]
        instants = instants if len(instants) == len(jobs) else [0] * len(jobs)  # a row of an earlier code version
        return cls(
            length=length,
            recent=dict(zip(jobs, instants, strict=True)),
            applied=dict.fromkeys(row.get("applied_job_ids") or ()),
            dismissed=dict.fromkeys(row.get("dismissed_job_ids") or ()),
            engagements=int(row.get("engagement_count") or 0),
            applies=int(row.get("apply_count") or 0),
            dismissals=int(row.get("dismiss_count") or 0),
            dwell_ms=int(row.get("dwell_ms_total") or 0),
            dwells=int(row.get("dwell_count") or 0),
            engaged_us=_whole(row.get("last_engaged_us")),
            until_us=_whole(row.get("history_until_us")),
        )

    def take(self, kind: str, job_id: str, at_us: int, dwell_seconds: float | None = None) -> None:
        """One more event of the candidate; impressions change nothing."""
        if kind == "dismiss":
            self.dismissals += job_id not in self.dismissed
            self.dismissed[job_id] = None
        elif kind in ENGAGEMENT_EVENTS:
            self._engage(job_id, at_us)
            self.engagements += 1
            self.engaged_us = _newer(self.engaged_us, at_us)
            if kind == "apply":
                self.applies += job_id not in self.applied
                self.applied[job_id] = None
            if dwell_seconds is not None:
                self.dwell_ms += round(dwell_seconds * 1000)
                self.dwells += 1
        else:
            return
        self.until_us = _newer(self.until_us, at_us)

    def row(self) -> tuple[object, ...]:
        """HISTORY_STATE_COLUMNS of `candidate_history` as of the newest event."""
        return (
            list(self.recent),
            list(self.applied)[-MAX_REMEMBERED:],
            list(self.dismissed)[-MAX_REMEMBERED:],
            " ".join(map(str, self.recent.values())),
            float(self.engagements),
            float(self.applies),
            float(self.dismissals),
            float(self.dwell_ms),
            float(self.dwells),
            self.engaged_us,
            self.until_us,
        )

    def activity(self, at_us: int) -> dict[str, float]:
        """What rankers read of a history at an instant, by name; nothing where there is no history."""
        if self.until_us is None:
            return {}
        numbers = {
            "engagement_count": float(self.engagements),
            "apply_count": float(self.applies),
            "dismiss_count": float(self.dismissals),
        }
        if self.dwells:
            numbers["mean_dwell_seconds"] = self.dwell_ms / self.dwells / 1000
        if self.engaged_us is not None:
            numbers["hours_since_engagement"] = (at_us - self.engaged_us) / _HOUR_US
        return numbers

    def _engage(self, job_id: str, at_us: int) -> None:
        newest = next(reversed(self.recent.values()), 0)
        at_us = max(at_us, self.recent.pop(job_id, 0))
        self.recent[job_id] = at_us
        if at_us < newest:  # posted late
            self.recent = dict(sorted(self.recent.items(), key=lambda one: one[1]))
        if len(self.recent) > self.length:
            del self.recent[next(iter(self.recent))]


HISTORY_STATE_COLUMNS = (
    "recent_job_ids",
    "applied_job_ids",
    "dismissed_job_ids",
    "recent_at_us",
    "engagement_count",
    "apply_count",
    "dismiss_count",
    "dwell_ms_total",
    "dwell_count",
    "last_engaged_us",
    "history_until_us",
)
"""In the order of `HistoryState.row`."""


def shrunk(successes: float, trials: float) -> float:
    """A rate drawn towards PRIOR_RATE as if PRIOR_WEIGHT trials had been seen before."""
    return (successes + PRIOR_RATE * PRIOR_WEIGHT) / (trials + PRIOR_WEIGHT)


_PLURAL = {"impression": "impressions", "view": "views", "click": "clicks", "save": "saves", "apply": "applies"}


def _counts(day: int, counts: list[int]) -> str:
    return f"{day} {' '.join(map(str, counts))}"


def _sightings(day: int, jobs: Mapping[str, Sighting]) -> str:
    return "\n".join(_sighting(day, job_id, one) for job_id, one in jobs.items())


def _sighting(day: int, job_id: str, one: Sighting) -> str:
    return f"{day} {one.shown} {one.kinds} {_escaped(job_id)}"


def _lines(text: object) -> list[str]:
    return str(text).split("\n") if text else []


def _escaped(job_id: str) -> str:
    return job_id.replace("%", "%25").replace("\n", "%0A") if "%" in job_id or "\n" in job_id else job_id


def _unescaped(job_id: str) -> str:
    return job_id.replace("%0A", "\n").replace("%25", "%")


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def _newer(known: int | None, at_us: int) -> int:
    return at_us if known is None else max(known, at_us)
