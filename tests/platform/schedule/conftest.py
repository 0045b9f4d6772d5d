"""A schedule to start from, and the ledger on each database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Any

import pytest
from sqlalchemy import Engine

from rolecall.platform.schedule.definition import Schedule
from rolecall.platform.schedule.store import ScheduleStore

START = date(2026, 3, 1)
CREATED = datetime(2026, 3, 1, tzinfo=UTC)


def nightly(**changes: Any) -> Schedule:
    """At 02:00 UTC from 2026-03-01 on, defined at that day's midnight."""
    given: dict[str, Any] = {
        "name": "nightly",
        "pipeline": "daily",
        "at": time(2, 0),
        "zone": "UTC",
        "start": START,
        "created": CREATED,
        "since": CREATED,
    }
    return Schedule(**(given | changes))


@pytest.fixture
def store(ledger: Engine) -> ScheduleStore:
    return ScheduleStore(ledger)


@pytest.fixture
def define(store: ScheduleStore) -> Callable[..., Schedule]:
    """Add a schedule like `nightly` and return it."""

    def added(**changes: Any) -> Schedule:
        schedule = nightly(**changes)
        store.add(schedule, now=CREATED)
        return schedule

    return added
