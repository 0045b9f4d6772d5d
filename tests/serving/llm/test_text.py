"""Text as it streams is the text of all tokens, cut before the first stop string, however it arrives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.serving.llm.text import StopStrings, TextStream


class Bytes:
    """A tokenizer whose tokens are single bytes."""

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")


def streamed(tokens: Sequence[int], stops: Sequence[str], prompt: Sequence[int] = (), least: int = 0) -> list[str]:
    stream = TextStream(Bytes(), prompt, stops)
    pieces = []
    for place, token in enumerate(tokens):
        text, stopped = stream.feed(token, may_stop=place >= least)
        pieces.append(text)
        if stopped:
            return pieces
    return [*pieces, stream.flush()]


@settings(deadline=None)
@given(text=st.text(max_size=20), prompt=st.text(max_size=5))
def test_pieces_join_to_the_text_and_no_piece_holds_half_a_character(text: str, prompt: str) -> None:
    pieces = streamed(text.encode(), (), prompt.encode())
    assert "".join(pieces) == text
    assert all(piece in text for piece in pieces)


@settings(deadline=None)
@given(raw=st.binary(max_size=40))
def test_bytes_that_are_no_text_are_shown_as_such(raw: bytes) -> None:
    assert "".join(streamed(raw, ())) == raw.decode(errors="replace")


@settings(deadline=None)
@given(
    text=st.text("abc", max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 30), max_size=8),
)
def test_text_ends_before_the_stop_string_that_is_complete_first(text: str, stops: list[str], cuts: list[int]) -> None:
    gate = StopStrings(stops)
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    passed = ""
    for start, end in itertools.pairwise(borders):
        if not gate.stopped:
            passed += gate.feed(text[start:end])
    if not gate.stopped:
        passed += gate.flush()
    ends = [
        (end, text.rindex(stop, 0, end)) for stop in stops for end in range(len(text) + 1) if text[:end].endswith(stop)
    ]
    assert passed == (text[: min(ends)[1]] if ends else text)
    assert gate.stopped == bool(ends)


def test_a_stop_string_counts_only_from_the_first_token_that_may_end_the_text() -> None:
    assert "".join(streamed(b"xxENDyyENDzz", ["END"], least=5)) == "xxENDyy"
