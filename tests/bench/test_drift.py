"""The bench of the drift measure in small: quiet days of one marketplace, and what went wrong with its tables."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parent


@pytest.fixture(scope="module")
def worlds() -> ModuleType:
    sys.path.insert(0, str(BENCH))
    try:
        import drift_worlds
    finally:
        sys.path.remove(str(BENCH))
    return drift_worlds


@pytest.fixture(scope="module")
def world(worlds: ModuleType) -> Any:
    return worlds.CountedWorld(worlds.Shape(jobs=1500, candidates=400, runs=3, requests=0), seed=5)


@pytest.mark.slow
def test_quiet_days_of_a_marketplace_raise_no_alarm(world: Any) -> None:
    assert [world.run(number).warnings() for number in range(3)] == [[], [], []]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "column"),
    [
        ("another_unit", "pay"),
        ("dropped_column", "skills"),
        ("country_gone", "country"),
        ("doubled_rate", "engagement_rate"),
    ],
)
def test_a_planted_shift_is_seen(worlds: ModuleType, world: Any, plant: str, column: str) -> None:
    assert column in {one.column for one in world.planted(getattr(worlds, plant)).alarms}
