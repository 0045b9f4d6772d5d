"""A small marketplace taken through the whole daily run once, for every end-to-end test that only reads it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path

import pytest

from rolecall.pipelines.daily import DailyResult, run_daily
from rolecall.pipelines.demo import fill_tables
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.generate import Marketplace, generate
from rolecall.platform.settings import Settings, load_settings
from tests.empty_mlflow import WithMlflow

AS_OF = datetime.combine(datetime.now(UTC).date(), time(), UTC)


@dataclass(frozen=True, kw_only=True)
class World:
    """A home with tables, and what its daily run ended in."""

    settings: Settings
    result: DailyResult

    def copy(self, home: Path) -> Settings:
        """The same world below another home, to change at will."""
        shutil.copytree(self.settings.home, home, ignore=shutil.ignore_patterns("ray", "scratch"))
        return small_settings(home)


SMALL = {
    "ROLECALL_RANKING__COARSE_ROUNDS": "20",
    "ROLECALL_RANKING__FINE_ROUNDS": "40",
    "ROLECALL_RANKING__MAX_TRAINING_REQUESTS": "600",
    "ROLECALL_RANKING__RECALL_LIMIT": "200",
    "ROLECALL_RANKING__COARSE_LIMIT": "100",
}
"""A world that trains in seconds, as environment variables."""


def small_settings(home: Path) -> Settings:
    """The small world's settings below a home."""
    return load_settings(environ=SMALL | {"ROLECALL_HOME": str(home)})


def small_market() -> Marketplace:
    """A marketplace that ends at AS_OF."""
    return generate(MarketConfig(jobs=400, candidates=200, employers=40, end=AS_OF.date()))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, with_mlflow: WithMlflow) -> World:
    settings = small_settings(with_mlflow(tmp_path_factory.mktemp("world") / "home"))
    fill_tables(settings, small_market())
    return World(settings=settings, result=run_daily(settings, AS_OF))
