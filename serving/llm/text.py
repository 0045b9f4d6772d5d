"""Text from tokens, as they come: characters split between tokens, stop strings split between steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

INCOMPLETE = "\ufffd"  # what a decoder writes for bytes that are no character, or not yet one
LONGEST_CHARACTER = 8  # tokens after which bytes that are no character yet never become one
CONTEXT = 4  # tokens of the prompt decoded before the text, since some decoders drop a text's first space


class Tokenizer(Protocol):
    """What the engine needs of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens, special ones left out; INCOMPLETE where bytes are missing."""
        ...


class Detokenizer:
    """One choice's text. Decoding a window of a few tokens costs the same however long the text is."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._window = list(prompt[-CONTEXT:])
        self._known = tokenizer.decode(self._window).rstrip(INCOMPLETE)  # a character may begin in the prompt
        self._settled = len(self._window)

    def feed(self, token: int) -> str:
        """The characters this token completes."""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        if text.endswith(INCOMPLETE) or len(text) <= len(self._known):
            waiting = len(self._window) - self._settled
            return self._settle(text) if waiting > LONGEST_CHARACTER else ""
        return self._settle(text)

    def flush(self) -> str:
        """What is left of an unfinished character when no token follows."""
        return self._settle(self._tokenizer.decode(self._window))

    def _settle(self, text: str) -> str:
        new = text[len(self._known) :]
        del self._window[: self._settled]
        self._settled = len(self._window)
        self._known = self._tokenizer.decode(self._window)
        return new


class StopStrings:
    """Lets text pass up to the first stop string, holding back what may be the beginning of one.

    The first is the one that is complete first, of several the longest: so it does not matter how text is cut.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """Text that no stop string can begin in any more; `stopped` is set once one is complete."""
        if not self._stops:
            return text
        self._held += text
        if (cut := self._first()) is not None:
            self.stopped = True
            passed, self._held = self._held[:cut], ""
            return passed
        return self._pass(len(self._held) - self._longest_beginning())

    def flush(self) -> str:
        """What was held back, when no text follows."""
        return self._pass(len(self._held))

    def _first(self) -> int | None:
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _longest_beginning(self) -> int:
        longest = max(len(stop) for stop in self._stops) - 1
        return next(
            (
                size
                for size in range(min(longest, len(self._held)), 0, -1)
                if any(stop.startswith(self._held[-size:]) for stop in self._stops)
            ),
            0,
        )

    def _pass(self, size: int) -> str:
        passed, self._held = self._held[:size], self._held[size:]
        return passed


class TextStream:
    """Detokenises one choice and watches for its stop strings, from the first token that may end it."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stops: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(tokenizer, prompt)
        self._stops = StopStrings(stops)

    def feed(self, token: int, *, may_stop: bool) -> tuple[str, bool]:
        """New text, and whether a stop string ended it."""
        text = self._detokenizer.feed(token)
        return (self._stops.feed(text) if may_stop else text), self._stops.stopped

    def flush(self) -> str:
        """The rest, when another reason ended the text."""
        if self._stops.stopped:
            return ""
        return self._stops.feed(self._detokenizer.flush()) + self._stops.flush()
