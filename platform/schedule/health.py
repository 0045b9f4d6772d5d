"""How a schedule stands: which of its days are missed or failed, what runs, what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from rolecall.platform.schedule.definition import Schedule
from rolecall.platform.schedule.policy import Day, is_late, is_missed
from rolecall.platform.schedule.store import ScheduleStore

Verdict = Literal["ok", "running", "retrying", "late", "missed", "failed", "paused", "ended"]


@dataclass(frozen=True, kw_only=True)
class Health:
    """One schedule at an instant.

    `missed`: due for longer than the grace and not done, whether a scheduler knows of them or none ever ticked;
    `failed`: given up. Both count until the day succeeds (`rolecall backfill`) or is skipped.
    """

    schedule: Schedule
    missed: tuple[date, ...]
    failed: tuple[date, ...]
    waiting: tuple[date, ...]
    open: Day | None
    last_success: Day | None
    last_finished: datetime | None
    next_due: date | None

    @property
    def well(self) -> bool:
        return not self.missed and not self.failed

    @property
    def verdict(self) -> Verdict:
        """One word; the first that applies."""
        if self.missed or self.failed:
            return "missed" if self.missed else "failed"
        if self.open is not None and self.open.state == "running":
            return "running"
        if self.schedule.paused:
            return "paused"
        if self.open is not None and self.open.failures:
            return "retrying"
        if self.waiting:
            return "late"
        return "ended" if self.next_due is None else "ok"


def health(store: ScheduleStore, schedule: Schedule, now: datetime) -> Health:
    """How a schedule stands at `now`. A pause makes no day missed that it kept from being entered."""
    days = store.days(schedule.name)
    unknown = [] if schedule.paused else [day for day in schedule.due(now) if day not in days]
    late = [day for day in unknown if is_late(schedule, schedule.as_of(day), now)]
    missed = [day.logical_date for day in days.values() if is_missed(schedule, day, now)]
    opened = [day for day in days.values() if day.state in ("waiting", "running")]
    done = [day for day in days.values() if day.state == "succeeded"]
    return Health(
        schedule=schedule,
        missed=tuple(sorted([*missed, *late])),
        failed=tuple(day.logical_date for day in days.values() if day.state == "failed"),
        waiting=tuple(sorted([*(day.logical_date for day in opened if day.state == "waiting"), *unknown])),
        open=next((day for day in opened if day.state == "running"), opened[0] if opened else None),
        last_success=done[-1] if done else None,
        last_finished=max((day.finished for day in done if day.finished), default=None),
        next_due=schedule.next_due(now),
    )
