"""What an operator sees of the schedules: which days are missed or failed, and the same as Prometheus gauges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

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


def schedule_metrics(engine: Engine, now: datetime) -> bytes:
    """The gauges of every schedule in the ledger, as Prometheus' text format.

    A ledger that cannot be read shows as `rolecall_schedule_ledger_up 0`, and raises nothing.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Gauges(engine, now))
    return generate_latest(registry)


class _Gauges(Collector):
    def __init__(self, engine: Engine, now: datetime) -> None:
        self._engine = engine
        self._now = now

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("rolecall_schedule_ledger_up", "1 when the ledger of schedules could be read")
        try:
            store = ScheduleStore(self._engine)
            all_health = [health(store, schedule, self._now) for schedule in store.all()]
        except SQLAlchemyError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _families(all_health)


def _families(all_health: list[Health]) -> Iterator[Metric]:
    for name, help_text, value in (
        ("last_success_timestamp_seconds", "When the last successful day was recorded", _last_finished),
        ("last_success_as_of_timestamp_seconds", "The instant the newest successful day is as of", _last_as_of),
        ("next_due_timestamp_seconds", "When the next day falls due", _next_due),
        ("missed_days", "Days due for longer than the grace and not done", lambda h: len(h.missed)),
        ("failed_days", "Days given up after their last attempt", lambda h: len(h.failed)),
        ("waiting_days", "Days due and not begun, or between attempts", lambda h: len(h.waiting)),
        ("running", "1 while a day is being executed", _running),
        ("failed_attempts", "Failed attempts of the day that is open", lambda h: h.open.failures if h.open else 0),
        ("paused", "1 while paused", lambda h: int(h.schedule.paused)),
    ):
        family = GaugeMetricFamily(f"rolecall_schedule_{name}", help_text, labels=("schedule",))
        for one in all_health:
            number = value(one)
            if number is not None:
                family.add_metric([one.schedule.name], number)
        yield family


def _last_finished(one: Health) -> float | None:
    return one.last_finished.timestamp() if one.last_finished else None


def _last_as_of(one: Health) -> float | None:
    return one.last_success.as_of.timestamp() if one.last_success else None


def _next_due(one: Health) -> float | None:
    return one.schedule.as_of(one.next_due).timestamp() if one.next_due else None


def _running(one: Health) -> int:
    return int(one.open is not None and one.open.state == "running")
