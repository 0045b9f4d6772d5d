"""The schedules as Prometheus gauges: a function over the ledger, and the same kept fresh beside a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from rolecall.platform.schedule.health import Health, health
from rolecall.platform.schedule.store import ScheduleStore

FRESH_SECONDS = 15.0
PATIENCE_SECONDS = 1.0


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


class FreshGauges:
    """`schedule_metrics` for a page that is asked for often and must never wait for a ledger that hangs.

    The text is read anew, on a thread of its own, where it is older than 15 s. `render` waits for that a second at
    most and else returns what was read before (nothing at first), so it may be called from any thread.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime], patience_s: float = PATIENCE_SECONDS) -> None:
        self._engine = engine
        self._clock = clock
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._read_at = float("-inf")
        self._text = b""

    def render(self) -> bytes:
        """The gauges as last read."""
        with self._lock:
            if (self._reader is None or not self._reader.is_alive()) and self._is_stale():
                self._reader = threading.Thread(target=self._read, name="schedule-gauges", daemon=True)
                self._reader.start()
        if self._reader is not None:
            self._reader.join(self._patience_s)
        return self._text

    def _is_stale(self) -> bool:
        return time.monotonic() - self._read_at > FRESH_SECONDS

    def _read(self) -> None:
        self._text = schedule_metrics(self._engine, self._clock())
        self._read_at = time.monotonic()
