"""The marketplace as four tables."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.world import World


@dataclass(frozen=True, kw_only=True)
class Marketplace:
    """Four tables with the columns of `features/schema.py`."""

    jobs: pa.Table
    candidates: pa.Table
    employers: pa.Table
    events: pa.Table

    def tables(self) -> dict[str, pa.Table]:
        """The tables by name, as `features.schema.TABLES` names them."""
        return {"jobs": self.jobs, "candidates": self.candidates, "employers": self.employers, "events": self.events}


def generate(config: MarketConfig) -> Marketplace:
    """The marketplace of `config`, all in memory. Raises NotFoundError where a package with the texts is missing."""
    world = World(config)
    events, _ = world.history()
    return Marketplace(**world.tables(), events=events)
