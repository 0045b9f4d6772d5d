"""A draw: one token to be sampled from one row of logits."""

from __future__ import annotations

from dataclasses import dataclass

from rolecall.serving.llm.batch import Chunk
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.llm.sequence import Sequence


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One token to be drawn from a row of logits, to follow `drafted` guesses after `known` tokens of the sequence."""

    sequence: Sequence
    row: int
    known: int
    drafted: tuple[int, ...] = ()

    @property
    def parameters(self) -> SamplingParameters:
        """The request's."""
        return self.sequence.request.parameters

    @property
    def generated(self) -> list[int]:
        """What this token would follow, after the prompt."""
        return [*self.sequence.tokens[self.sequence.prompt_length : self.known], *self.drafted]

    @property
    def position(self) -> int:
        """The place of this token in its sequence."""
        return self.known + len(self.drafted)


def draws_of(chunk: Chunk, first: int) -> list[Draw]:
    """One for each choice that samples from the chunk, or one for each guess and one more."""
    if not chunk.samples:
        return []
    row = first + len(chunk.wants_logits) - chunk.drafted - 1
    known = chunk.end - chunk.drafted
    guesses = chunk.tokens[known - chunk.start :]
    own = [
        Draw(sequence=chunk.sequence, row=row + kept, known=known, drafted=guesses[:kept])
        for kept in range(chunk.drafted + 1)
    ]
    return own + [Draw(sequence=sibling, row=row, known=known) for sibling in chunk.siblings]
