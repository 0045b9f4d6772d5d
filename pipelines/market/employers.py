"""Employers: invented names, ratings that drift once within the month, a size, and the work they hire for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rolecall.features.schema import EMPLOYERS
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.taxonomy import MAJOR_GROUPS

_FIRST_WORDS = """
Alder Amber Anchor Apex Arbor Atlas Beacon Birch Bluewater Bridge Brook Canyon Cedar Cobalt Copper Crescent
Dawn Delta Ember Evergreen Falcon Fern Fjord Garnet Granite Harbor Hazel Heron Horizon Indigo Ivory Juniper
Kestrel Lantern Larch Linden Lumen Maple Meadow Meridian Mosaic Nordlicht North Oak Onyx Orchard Osprey Pebble
Pine Pioneer Prairie Quarry Quartz Raven Redwood River Rowan Saffron Sable Sequoia Silver Solstice Spruce
Sterling Summit Tamarack Thistle Timber Union Vale Vantage Violet Walnut Wharf Willow Winter Yarrow Zenith
"""
_SECOND = {
    "Management": "Partners",
    "Business and Finance": "Capital",
    "Computing and Mathematics": "Software",
    "Architecture and Engineering": "Engineering",
    "Science": "Research",
    "Community and Social Service": "Foundation",
    "Legal": "Chambers",
    "Education": "Academy",
    "Arts, Design and Media": "Studios",
    "Healthcare": "Health",
    "Healthcare Support": "Care",
    "Protective Service": "Security",
    "Food Service": "Kitchens",
    "Cleaning and Grounds": "Facilities",
    "Personal Care": "Living",
    "Sales": "Retail",
    "Office and Administration": "Services",
    "Farming, Fishing and Forestry": "Farms",
    "Construction": "Builders",
    "Installation and Repair": "Technics",
    "Production": "Works",
    "Transport": "Logistics",
}


@dataclass(frozen=True, kw_only=True)
class Employers:
    """Parallel arrays, one entry an employer. `ratings` and `rating_counts` [2, E]: as first and later observed."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    group: tuple[str, ...]
    size: npt.NDArray[np.int64]
    pay: npt.NDArray[np.float64]
    ratings: npt.NDArray[np.float64]
    rating_counts: npt.NDArray[np.int64]
    observed_at: tuple[datetime, datetime]

    def table(self) -> pa.Table:
        """Two rows an employer, one an observation of its rating."""
        return pa.Table.from_pydict(
            {
                "employer_id": [*self.ids, *self.ids],
                "observed_at": [at for at in self.observed_at for _ in self.ids],
                "name": [*self.names, *self.names],
                "rating": self.ratings.ravel(),
                "rating_count": self.rating_counts.ravel(),
                "size": np.tile(self.size, 2),
                "industry": [*self.group, *self.group],
            },
            schema=EMPLOYERS.columns,
        )


def make_employers(config: MarketConfig, groups: tuple[str, ...], weights: npt.NDArray[np.float64]) -> Employers:
    """`groups` and `weights`: the occupations' major groups and how much work each offers."""
    random = config.random(1)
    kinds = [group for group in MAJOR_GROUPS.values() if group in set(groups)]
    share = np.array([weights[np.array(groups) == kind].sum() for kind in kinds])
    group = random.choice(len(kinds), size=config.employers, p=share / share.sum())
    rating = np.clip(random.normal(3.6, 0.5, config.employers), 1.5, 5.0)
    later = np.clip(rating + random.normal(0, 0.15, config.employers), 1.5, 5.0)
    count = random.integers(3, 800, config.employers)
    industry = tuple(kinds[number] for number in group.tolist())
    return Employers(
        ids=tuple(f"emp-{number:05d}" for number in range(config.employers)),
        names=_names(industry),
        group=industry,
        size=np.round(10 ** random.uniform(1.0, 4.5, config.employers)).astype(np.int64),
        pay=random.normal(0.0, 0.08, config.employers),
        ratings=np.round(np.stack([rating, later]), 1).astype(np.float64),
        rating_counts=np.stack([count, count + random.integers(0, 40, config.employers)]),
        observed_at=(config.starts_at - timedelta(days=60), config.starts_at + timedelta(days=config.days // 2)),
    )


def _names(industry: tuple[str, ...]) -> tuple[str, ...]:
    """Distinct names: one first word, then two, then a number."""
    words = _FIRST_WORDS.split()
    names = []
    for number, group in enumerate(industry):
        first, round_ = words[number * 37 % len(words)], number // len(words)
        middle = f" {words[(number * 13 + round_ * 7) % len(words)]}" if round_ else ""
        suffix = f" {round_}" if round_ > len(words) else ""
        names.append(f"{first}{middle} {_SECOND[group]}{suffix}")
    return tuple(names)
