"""Places to coordinates."""

from __future__ import annotations

import polars as pl
import pytest

from rolecall.features.gazetteer import Gazetteer, folded, gazetteer

PLACES = {"city": pl.String, "region": pl.String, "country": pl.String, "lat": pl.Float64, "lon": pl.Float64}


@pytest.fixture(scope="module")
def places() -> Gazetteer:
    return gazetteer()


@pytest.mark.parametrize(
    ("place", "lat", "lon"),
    [
        (("Berlin", None, "DE"), 52.5, 13.4),
        (("berlin ", "Berlin", "Germany"), 52.5, 13.4),
        (("München", None, "DE"), 48.1, 11.6),
        (("Saint Louis", "Missouri", "US"), 38.6, -90.2),
        (("St. Louis", "MO", "USA"), 38.6, -90.2),
        (("Portland", "Maine", "US"), 43.7, -70.3),
        (("Portland", "Oregon", "US"), 45.5, -122.7),
        (("Paris", None, None), 48.9, 2.4),
    ],
)
def test_a_place_is_found_however_it_is_written(
    places: Gazetteer, place: tuple[str, str | None, str | None], lat: float, lon: float
) -> None:
    found = places.find(*place)
    assert found is not None
    assert (found.lat, found.lon) == (pytest.approx(lat, abs=0.1), pytest.approx(lon, abs=0.1))


def test_a_place_is_not_sought_outside_its_state_or_in_a_country_that_does_not_exist(places: Gazetteer) -> None:
    assert places.find("Berlin", None, "Narnia") is None
    assert places.find("San Francisco", "Maine", "US") is None
    assert places.find(None, "Maine", "US") is None


def test_fill_keeps_given_coordinates_the_order_and_unknown_places_empty(places: Gazetteer) -> None:
    rows = [("Berlin", None, "DE", 1.0, 2.0), ("Xyzzy", None, "DE", None, None), ("Berlin", None, "DE", None, None)]
    filled = places.fill(pl.DataFrame(rows, schema=PLACES, orient="row"))
    assert filled.row(0)[3:] == (1.0, 2.0)
    assert filled.row(1)[3:] == (None, None)
    assert filled.row(2)[3] == pytest.approx(52.5, abs=0.1)
    assert filled.columns == list(PLACES)


def test_folding_is_idempotent() -> None:
    for name in ("Saint-Étienne", "Mount  Vernon", "O'Fallon", "ŁÓDŹ"):
        assert folded(folded(name)) == folded(name)
