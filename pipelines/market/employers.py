"""Employers: invented names, a size, the work they hire for, and ratings observed again every two weeks or so.

A few are bad: rated low, and what they post is spam more often than not. Which ones is known to the truth only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rolecall.features.schema import EMPLOYERS, TIMESTAMP
from rolecall.pipelines.market.config import DAY_US, MarketConfig
from rolecall.pipelines.market.groups import MAJOR_GROUPS
from rolecall.pipelines.market.luck import Draw, Luck, pick

_OBSERVED_EVERY_DAYS = 14
_KNOWN_BEFORE_DAYS = 60
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
    """Parallel arrays, one entry an employer; `ratings`, `counts` and `observed_us` [E, K] in order of time."""

    group: npt.NDArray[np.intp]
    size: npt.NDArray[np.int64]
    pay: npt.NDArray[np.float32]
    bad: npt.NDArray[np.bool_]
    ratings: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int32]
    observed_us: npt.NDArray[np.int64]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.size)

    def rating_at(self, employer: npt.NDArray[Any], at_us: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What was known of the employers' ratings at those instants; the arguments broadcast."""
        known = np.zeros(np.broadcast_shapes(employer.shape, at_us.shape), dtype=np.int8)
        for column in range(1, self.observed_us.shape[1]):
            known += self.observed_us[:, column][employer] <= at_us
        return np.asarray(self.ratings[employer, known])

    def table(self, since_us: int, until_us: int) -> pa.Table:
        """The observations made in [since, until), by time, then by employer."""
        employer, column = np.nonzero((self.observed_us >= since_us) & (self.observed_us < until_us))
        order = np.lexsort([employer, self.observed_us[employer, column]])
        employer, column = employer[order], column[order]
        industry = [self.groups[number] for number in self.group[employer].tolist()]
        return pa.Table.from_pydict(
            {
                "employer_id": [employer_id(number) for number in employer.tolist()],
                "observed_at": pa.array(self.observed_us[employer, column], TIMESTAMP),
                "name": [self.name(number) for number in employer.tolist()],
                "rating": np.round(self.ratings[employer, column].astype(np.float64), 1),
                "rating_count": self.counts[employer, column],
                "size": self.size[employer],
                "industry": industry,
            },
            schema=EMPLOYERS.columns,
        )

    def name(self, number: int) -> str:
        """Distinct names: one first word, then two, then a number."""
        first, round_ = _WORDS[number * 37 % len(_WORDS)], number // len(_WORDS)
        middle = f" {_WORDS[(number * 13 + round_ * 7) % len(_WORDS)]}" if round_ else ""
        suffix = f" {round_}" if round_ > len(_WORDS) else ""
        return f"{first}{middle} {_SECOND[self.groups[self.group[number]]]}{suffix}"


_WORDS = _FIRST_WORDS.split()


def employer_id(number: int) -> str:
    """The id of employer `number`."""
    return f"emp-{number:05d}"


def make_employers(
    config: MarketConfig, luck: Luck, groups: tuple[str, ...], weights: npt.NDArray[np.float64]
) -> Employers:
    """`groups` and `weights`: the occupations' major groups and how much work each offers."""
    numbers = np.arange(config.employers)
    kinds = tuple(group for group in MAJOR_GROUPS.values() if group in set(groups))
    share = np.array([weights[np.array(groups) == kind].sum() for kind in kinds])
    bad = luck.uniform(Draw.EMPLOYER, numbers, 2) < config.bad_employers
    ratings, counts, observed_us = _ratings(config, luck, numbers, bad)
    return Employers(
        group=pick(luck.uniform(Draw.EMPLOYER, numbers, 0), np.cumsum(share)),
        size=np.round(10 ** (1.0 + 3.5 * luck.uniform(Draw.EMPLOYER, numbers, 1))).astype(np.int64),
        pay=(0.08 * luck.normal(Draw.EMPLOYER, numbers, 3)).astype(np.float32),
        bad=bad,
        ratings=ratings,
        counts=counts,
        observed_us=observed_us,
        groups=kinds,
    )


def _ratings(
    config: MarketConfig, luck: Luck, numbers: npt.NDArray[np.intp], bad: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """A walk: known since long before the start, then observed at the employer's own time in every fortnight."""
    again = int((config.days + config.horizon) // _OBSERVED_EVERY_DAYS) + 1
    first = 3.6 - 1.3 * bad + 0.5 * luck.normal(Draw.RATING, numbers, 0)
    steps = 0.12 * luck.normal(Draw.RATING, numbers[:, None], 1 + np.arange(again))
    walk = np.clip(np.concatenate([first[:, None], first[:, None] + np.cumsum(steps, axis=1)], axis=1), 1.3, 5.0)
    grown = luck.uniform(Draw.RATING, numbers[:, None], 1_000 + np.arange(again + 1)) * [800.0, *[30.0] * again]
    fortnight = (np.arange(again) + luck.uniform(Draw.RATING, numbers[:, None], 2_000 + np.arange(again))) * DAY_US
    before = np.full((len(numbers), 1), config.start_us - _KNOWN_BEFORE_DAYS * DAY_US)
    observed = np.concatenate([before, config.start_us + (fortnight * _OBSERVED_EVERY_DAYS).astype(np.int64)], axis=1)
    return np.round(walk, 1).astype(np.float32), (3 + np.cumsum(grown, axis=1)).astype(np.int32), observed
