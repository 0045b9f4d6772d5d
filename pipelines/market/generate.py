"""Puts the marketplace together: texts, then the two sides, then the month between them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from rolecall.pipelines.market.choice import Chooser
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.employers import make_employers
from rolecall.pipelines.market.log import event_table
from rolecall.pipelines.market.month import live_through
from rolecall.pipelines.market.people import make_people
from rolecall.pipelines.market.places import load_places
from rolecall.pipelines.market.postings import demand, make_postings
from rolecall.pipelines.market.taxonomy import build_taxonomy


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
    """The marketplace of `config`. Raises NotFoundError where a package with the texts is not installed."""
    taxonomy = build_taxonomy(config.occupations)
    places = load_places()
    weights = demand(config, taxonomy)
    employers = make_employers(config, tuple(o.group for o in taxonomy.occupations), weights)
    postings = make_postings(config, taxonomy, weights, employers, places)
    people = make_people(config, taxonomy, weights, places)
    shown, found = live_through(config, Chooser(taxonomy, postings, people, employers, places))
    return Marketplace(
        jobs=postings.table,
        candidates=people.table,
        employers=employers.table(),
        events=event_table(config, shown, found),
    )
