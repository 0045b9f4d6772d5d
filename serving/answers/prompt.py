"""What the language model is asked: numbered passages that fit its window, and a form that its answer keeps to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rolecall.serving.answers.passages import Passage

INSTRUCTION = (
    "You answer questions about job adverts. Use only the numbered passages. Answer in one to three short sentences "
    "and write after each sentence the number of the passage that it is taken from, for example [1]."
)
MOST_SENTENCES = 4
LONGEST_PASSAGE = 2_000  # characters; a text without spaces is one word however long it is
LEAST = 40  # characters of a passage that are worth showing
Count = Callable[[str], int]
"""Tokens of a text."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A conversation for the model. `passages`: those that it was given, numbered from 1; `grammar`: Lark, of a text
    in which every sentence ends in the number of one of them."""

    messages: tuple[dict[str, str], ...]
    passages: tuple[Passage, ...]
    grammar: str


def pack(question: str, passages: Sequence[Passage], *, most_tokens: int, count: Count) -> Prompt:
    """As many passages, best first, as fit into `most_tokens` beside the question; at least one, cut if need be.

    Raises ValueError for no passages, and for a question that is too long itself.
    """
    if not passages:
        raise ValueError("got no passages; allowed: at least one")
    room = most_tokens - count(INSTRUCTION) - count(question) - 16  # the template's own marks
    kept: list[Passage] = []
    lines: list[str] = []
    for passage in passages:
        line = _line(len(kept) + 1, passage)
        needed = count(line) + 1
        if needed > room:
            continue
        kept.append(passage)
        lines.append(line)
        room -= needed
    if not kept:
        begun = _cut(_line(1, passages[0]), room, count)
        if begun is None:
            raise ValueError(f"got a question of {count(question)} tokens; allowed: {most_tokens} with a passage")
        kept, lines = [passages[0]], [begun]
    said = "\n".join((*lines, "", f"Question: {question}"))
    return Prompt(
        messages=({"role": "system", "content": INSTRUCTION}, {"role": "user", "content": said}),
        passages=tuple(kept),
        grammar=grammar(len(kept)),
    )


def grammar(passages: int) -> str:
    """One to MOST_SENTENCES sentences, each with the number of one of the passages behind it."""
    numbers = " | ".join(f'"{number}"' for number in range(1, passages + 1))
    return (
        f'start: sentence (" " sentence){{0,{MOST_SENTENCES - 1}}}\n'
        'sentence: WORDS " [" number "]"\n'
        f"number: {numbers}\n"
        r"WORDS: /[A-Z][^\[\]|:.!\n]{12,160}[a-z0-9%)][.]/" + "\n"
    )


def _line(number: int, passage: Passage) -> str:
    """One line whatever a title or a skill holds: a break in one of them would begin a passage that nobody has."""
    return f"[{number}] {' '.join(passage.text[:LONGEST_PASSAGE].split())}"


def _cut(line: str, room: int, count: Count) -> str | None:
    """The most of a line that fits, if it is enough to be worth anything."""
    while len(line) > LEAST:
        if count(line) <= room:
            return line
        line = line[: int(len(line) * 0.8)]
    return None
