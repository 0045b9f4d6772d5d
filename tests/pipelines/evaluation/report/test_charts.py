"""Axes hold what they are made over; numbers are written so that they can be read back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.pipelines.evaluation.report import wording
from rolecall.pipelines.evaluation.report.charts import axis_over, log_axis

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@settings(deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=20), st.integers(3, 8))
def test_an_axis_holds_every_value_between_round_ends(values: list[float], most: int) -> None:
    axis = axis_over(values, most=most)
    slack = 1e-6 * max(abs(axis.low), abs(axis.high), 1)
    assert axis.low - slack <= min(values) <= max(values) <= axis.high + slack
    assert 2 <= len(axis.ticks) <= most
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1.02, 1e5))
def test_a_logarithmic_axis_is_even_in_ratios(low: float, ratio: float) -> None:
    axis = log_axis(low, low * ratio)
    middle = axis.at(math.sqrt(axis.low * axis.high))
    assert middle == pytest.approx(50, abs=1e-6)
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert len(axis.ticks) <= 6


def test_ticks_of_an_axis_have_different_labels() -> None:
    for values in ([0, 1], [0, 0.3], [0.412, 0.413], [-3, 12000], [0, 0.075]):
        axis = axis_over(values)
        assert len({axis.label(tick) for tick in axis.ticks}) == len(axis.ticks)


@settings(deadline=None)
@given(FINITE)
def test_a_written_number_says_what_it_is(value: float) -> None:
    read = float(wording.number(value).replace("\u2212", "-").replace(",", ""))
    assert read == pytest.approx(value, abs=5e-4 + 5e-4 * abs(value))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0%"),
        (1.0, "100%"),
        (0.001, "less than 1%"),
        (0.9999, "more than 99%"),
        (0.42, "42%"),
        (math.nan, "\u2013"),
    ],
)
def test_a_share_of_something_is_never_written_as_nothing(share: float, text: str) -> None:
    assert wording.percent(share) == text


@settings(deadline=None)
@given(st.text())
def test_a_shown_text_has_no_control_characters_and_a_bounded_length(text: str) -> None:
    shown = wording.plain(text)
    assert len(shown) <= wording.LONGEST
    assert shown == wording.plain(shown)
    shown.encode("utf-8")
    assert not any(ord(letter) < 32 or 0x202A <= ord(letter) <= 0x202E for letter in shown)
