"""Drafted tokens: guesses that the model verifies together with the last token, in one step.

A guess is kept while it is the token that was sampled anyway at its place, with that place's own random numbers. So the
text is the same, token by token, as without drafts, and its distribution with it, whatever the draft.

For a draft without randomness of its own (prompt lookup) the chance to be kept is the model's probability p of the
guess, the highest that any rule can reach (Leviathan et al., arXiv:2211.17192, section 2.3). A draft with its own
distribution q (the first layers) draws with the very random numbers that the model will draw with: the two then agree
with a chance of at least (1 - d) / (1 + d), d being the total variation distance of p and q (Daliri et al.,
arXiv:2408.07978). Accepting by min(1, p / q) instead (`rolecall.kernels.speculative`) reaches 1 - d, but then the text
depends on what was drafted, so on the load, and a seed would no longer fix it; hence it is not used here.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from rolecall.serving.llm.batch import Batch
from rolecall.serving.llm.sequence import Sequence

DraftKind = Literal["none", "lookup", "layers", "both"]
LATER = -1  # in the place of a guess that is made once its blocks are allocated


class Draft(Protocol):
    """Guesses what comes next."""

    def propose(self, sequence: Sequence, count: int) -> list[int]:
        """At most `count` tokens to follow the sequence's tokens, or LATER for each; none if it has no guess."""
        ...

    def complete(self, batch: Batch) -> Batch:
        """The batch with a guess in the place of every LATER."""
        ...


@dataclass(frozen=True, kw_only=True)
class PromptLookup:
    """What followed the last tokens where they last occurred: for text that quotes its prompt or itself.

    The longest ending of `longest` to `shortest` tokens that occurred before is continued. Saxena, 2023, "Prompt
    lookup decoding".
    """

    longest: int = 4
    shortest: int = 2

    def propose(self, sequence: Sequence, count: int) -> list[int]:
        """The continuation of the latest earlier occurrence."""
        tokens = np.asarray(sequence.tokens)
        for length in range(min(self.longest, len(tokens) - 1), self.shortest - 1, -1):
            end = _last_occurrence(tokens, length)
            if end is not None:
                return sequence.tokens[end : end + count]
        return []

    def complete(self, batch: Batch) -> Batch:
        """Nothing was left for later."""
        return batch


def _last_occurrence(tokens: np.ndarray, length: int) -> int | None:
    """Where the latest earlier occurrence of the last `length` tokens ends."""
    found = np.ones(len(tokens) - length, dtype=bool)
    for offset in range(length):
        found &= tokens[offset : len(tokens) - length + offset] == tokens[len(tokens) - length + offset]
    places = found.nonzero()[0]
    return int(places[-1]) + length if len(places) else None


def verified(draft: Tokens[int], sampled: Tokens[int]) -> list[int]:
    """The tokens gained: `sampled` has one more than `draft`; those after the first wrong guess are void."""
    kept = next((place for place, guess in enumerate(draft) if guess != sampled[place]), len(draft))
    return list(sampled[: kept + 1])


def next_limit(limit: int, drafted: int, kept: int) -> int:
    """How many tokens to guess next time: twice as many after a full hit, else just beyond what was kept."""
    if kept == drafted:
        return max(limit, 2 * kept)
    return kept + 1
