"""Passages that fit, prompts that fit the window, and answers held against what they name."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.serving.answers.grounding import SUPPORTED, statements
from rolecall.serving.answers.passages import Passage, PassageSource, fits, telling
from rolecall.serving.answers.prompt import INSTRUCTION, pack

WORDS = (
    "forklift",
    "licence",
    "warehouse",
    "night",
    "shift",
    "driver",
    "nurse",
    "triage",
    "clinic",
    "welding",
    "steel",
)


def passage(name: str, text: str, similarity: float = 0.5) -> Passage:
    return Passage(id=name, title=name, text=text, similarity=similarity, score=1.0)


def count(text: str) -> int:
    return len(text.split())


passages = st.lists(
    st.builds(passage, st.uuids().map(str), st.lists(st.sampled_from(WORDS), min_size=1, max_size=80).map(" ".join)),
    min_size=1,
    max_size=8,
)


@given(passages, st.lists(st.sampled_from(WORDS), min_size=1, max_size=30), st.integers(100, 400))
def test_a_prompt_fits_its_window_and_holds_the_best_passages(
    given_passages: list[Passage], question: list[str], most: int
) -> None:
    prompt = pack(" ".join(question), given_passages, most_tokens=most, count=count)
    assert sum(count(message["content"]) for message in prompt.messages) <= most
    places = [given_passages.index(kept) for kept in prompt.passages]
    assert places == sorted(places)
    assert prompt.passages
    for number, kept in enumerate(prompt.passages, 1):
        assert f"[{number}] {kept.text.split()[0]}" in prompt.messages[1]["content"]


def test_a_question_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="question of 300 tokens"):
        pack("why " * 300, [passage("a", "text " * 50)], most_tokens=200, count=count)
    with pytest.raises(ValueError, match="no passages"):
        pack("why", [], most_tokens=200, count=count)
    assert count(INSTRUCTION) < 60


def test_a_text_without_spaces_leaves_room_for_the_next_and_is_cut_where_there_is_none() -> None:
    long, short = passage("long", "溶" * 4_000), passage("short", "forklift licence needed")
    prompt = pack("who needs it", [long, short], most_tokens=300, count=len)
    assert [kept.id for kept in prompt.passages] == ["short"]
    assert [kept.id for kept in pack("who needs it", [long], most_tokens=600, count=len).passages] == ["long"]


def test_a_sentence_rests_on_the_passage_it_names_if_that_says_so() -> None:
    found = [passage("a", "forklift licence needed in the warehouse"), passage("b", "nurse for the night shift")]
    told = statements("A forklift licence is needed [1] The nurse works the night shift [1] Bring a boat [2]", found)
    assert [statement.passage_id for statement in told] == ["a", "b", None]
    assert [statement.moved for statement in told] == [False, True, False]
    assert told[0].support == 1.0
    assert told[2].support < SUPPORTED


@given(passages, st.text(max_size=200), st.integers(0, 99))
def test_no_statement_names_what_was_not_given(found: list[Passage], text: str, number: int) -> None:
    ids = {one.id for one in found}
    for statement in statements(f"{text} [{number}]", found):
        assert statement.passage_id is None or statement.passage_id in ids
        assert (statement.passage_id is not None) == (statement.support >= SUPPORTED)


def test_what_no_passage_is_about_finds_nothing() -> None:
    assert not fits(passage("a", "nurse night shift", 0.1), telling("How do I bake sourdough bread?"))
    assert fits(passage("a", "forklift licence", 0.1), telling("Who needs a forklift licence?"))
    assert not fits(passage("a", "nurse", 0.1), telling("what is it?"))


def test_passages_come_from_live_adverts_best_first(board: Any) -> None:
    source, at = PassageSource(board.search, board.funnel.pairs.vectors), board.table["updated_at"][0].as_py()
    found = source.find("triage and charts", at=at, limit=4)
    assert found
    assert all("night nurse" in one.text.lower() for one in found)
    assert all(a.score >= b.score for a, b in itertools.pairwise(found))
    assert not source.find("quantum chromodynamics lattice", at=at, limit=4)
