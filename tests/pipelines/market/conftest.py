"""One small world for all tests of the marketplace. A World never changes: what happens is in a Memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from rolecall.pipelines.market import MarketConfig, Marketplace, Memory, World

SMALL = MarketConfig(jobs=600, candidates=500, employers=40, occupations=60, seed=11)


@dataclass(frozen=True, kw_only=True)
class Lived:
    """A world, its month, and the memory at the end of it."""

    world: World
    market: Marketplace
    memory: Memory


@pytest.fixture(scope="session")
def lived() -> Lived:
    world = World(SMALL)
    events, memory = world.history()
    return Lived(world=world, market=Marketplace(**world.tables(), events=events), memory=memory)


@pytest.fixture(scope="session")
def world(lived: Lived) -> World:
    return lived.world


@pytest.fixture(scope="session")
def market(lived: Lived) -> Marketplace:
    return lived.market


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Every candidate with every job that is open in the middle of the month."""

    who: npt.NDArray[np.int64]
    job: npt.NDArray[np.int64]
    at_us: npt.NDArray[np.int64]


@pytest.fixture(scope="session")
def pairs(world: World) -> Pairs:
    at = (world.config.start_us + world.config.end_us) // 2
    jobs = np.flatnonzero((world.postings.posted_us < at) & (world.postings.expires_us > at + 86_400_000_000))
    people = np.flatnonzero(world.people.joined_us < at)
    return Pairs(who=people, job=np.tile(jobs, (len(people), 1)), at_us=np.full(len(people), at))


@pytest.fixture(scope="session")
def shown(market: Marketplace) -> pl.DataFrame:
    """One row an impression, with what became of it."""
    events = pl.DataFrame(market.events)
    slot = ["request_id", "position"]
    rows = events.filter(pl.col("kind") == "impression")
    for kind in ("click", "save", "apply", "dismiss"):
        marks = events.filter(pl.col("kind") == kind, pl.col("position").is_not_null())
        rows = rows.join(marks.select(*slot, pl.lit(1.0).alias(kind)), on=slot, how="left")
    return rows.with_columns(pl.col("click", "save", "apply", "dismiss").fill_null(0.0))
