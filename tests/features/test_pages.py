"""The feature pages are written from the definitions."""

from __future__ import annotations

from rolecall.features.pages import PAGES_FILE, documented, lacking, page
from rolecall.features.pair_columns import PAIR_COLUMNS
from rolecall.features.people_columns import PEOPLE_COLUMNS
from rolecall.features.views import VIEWS


def test_every_feature_is_documented_once_a_group() -> None:
    told = [(one.group, one.feature.name) for one in documented()]
    wanted = {(shape.name, name) for shape in VIEWS for name in shape.columns}
    wanted |= {("pair", name) for name in PAIR_COLUMNS} | {("people", name) for name in PEOPLE_COLUMNS}
    assert len(told) == len(set(told))
    assert set(told) == wanted


def test_every_feature_says_meaning_unit_window_source_and_owner() -> None:
    assert lacking() == []


def test_the_pages_are_up_to_date() -> None:
    assert PAGES_FILE.read_text(encoding="utf-8") == page(), "run `rolecall features pages`"
