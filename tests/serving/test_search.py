"""What search promises."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.features.text import tokens
from rolecall.platform.vectors.protocol import SearchFilter
from rolecall.serving.search import snippet


@pytest.fixture
def at(board: Any) -> datetime:
    noon: datetime = board.table["updated_at"][0].as_py()
    return noon


def test_the_words_of_a_title_find_its_jobs_first(board: Any, at: datetime) -> None:
    hits = board.search.search("night nurses in Munich", at=at, limit=5)
    assert [hit.position for hit in hits] == [1, 2, 3, 4, 5]
    assert all("nurse" in hit.title and hit.place == "Munich, Bavaria" for hit in hits)
    assert all(1 >= a.score >= b.score > 0 for a, b in pairwise(hits))


def test_conditions_and_the_instant_hold_for_every_hit(board: Any, at: datetime) -> None:
    hits = board.search.search("cook", at=at, conditions=SearchFilter(cities=("Berlin",)), limit=50)
    assert hits
    assert {hit.place for hit in hits} == {"Berlin, Berlin"}
    assert not {"job000", "job001"} & {hit.job_id for hit in board.search.search("cook", at=at, limit=144)}


def test_text_without_a_known_word_still_answers(board: Any, at: datetime) -> None:
    assert len(board.search.search("§§", at=at, limit=3)) == 3
    assert len(board.search.search("zzzz", at=at, limit=3)) == 3


def test_a_snippet_is_the_part_that_holds_the_words() -> None:
    body = " ".join(["filler"] * 50 + ["sharp", "knives", "needed"] + ["filler"] * 50)
    found = snippet(body, tokens("knives, sharp"), words=6)
    assert "sharp knives" in found
    assert found.startswith("… ")
    assert found.endswith(" …")
    assert snippet("short text", ["text"]) == "short text"


@given(words=st.lists(st.sampled_from(["a", "knives", "Cook", "x"]), max_size=40), limit=st.integers(1, 10))
def test_a_snippet_never_holds_fewer_wanted_words_than_the_beginning(words: list[str], limit: int) -> None:
    wanted = ["knife", "knive", "cook"]
    held = set(tokens(snippet(" ".join(words), wanted, words=limit))) & set(wanted)
    assert len(held) >= len(set(tokens(" ".join(words[:limit]))) & set(wanted))
