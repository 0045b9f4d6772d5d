"""Whether an answer says what its passages say: each sentence is held against the passage that it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rolecall.features.text import tokens
from rolecall.serving.answers.passages import Passage, telling

SUPPORTED = 0.5
_SENTENCE = re.compile(r"\s*(?P<text>[^\[\]]+?)\s*\[(?P<number>\d+)\]")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A sentence of an answer. `passage_id`: what it rests on, None where no passage given supports it.

    `support`: share of its telling words that the passage has, 0 to 1. `moved`: the model had named another passage.
    """

    text: str
    passage_id: str | None
    support: float
    moved: bool = False


def statements(answer: str, passages: Sequence[Passage]) -> tuple[Statement, ...]:
    """The sentences of an answer, each with the passage it rests on: the one it names where that supports it, else the
    one that supports it best, if any does. A number that was never given names nothing."""
    words = [set(tokens(passage.text)) for passage in passages]
    return tuple(
        _judged(found["text"], int(found["number"]) - 1, passages, words) for found in _SENTENCE.finditer(answer)
    )


def _judged(text: str, named: int, passages: Sequence[Passage], words: Sequence[set[str]]) -> Statement:
    said = telling(text)
    supports = [len(said & known) / len(said) if said else 0.0 for known in words]
    if 0 <= named < len(passages) and supports[named] >= SUPPORTED:
        return Statement(text=text, passage_id=passages[named].id, support=supports[named])
    best = max(range(len(passages)), key=supports.__getitem__)
    if supports[best] >= SUPPORTED:
        return Statement(text=text, passage_id=passages[best].id, support=supports[best], moved=best != named)
    return Statement(text=text, passage_id=None, support=max(supports))
