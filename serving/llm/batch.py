"""What one step computes, in plain integers: the scheduler writes it, the model runner and the sampler read it."""

from __future__ import annotations

from dataclasses import dataclass

from rolecall.serving.llm.sequence import Sequence


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """`tokens` of one sequence, at positions start, start + 1, ...

    `block_table` holds positions 0 to start + len(tokens) - 1. `wants_logits` are offsets into `tokens`, ascending:
    every offset whose logits are to be returned. Where the chunk `samples`, the last 1 + `drafted` of them are for
    the next token and for the one after each of the `drafted` tokens that end the chunk; `siblings` are the other
    choices that sample from the same single row. The rest are prompt positions to be scored.
    """

    sequence: Sequence
    start: int
    tokens: tuple[int, ...]
    block_table: tuple[int, ...]
    wants_logits: tuple[int, ...] = ()
    samples: bool = False
    drafted: int = 0
    siblings: tuple[Sequence, ...] = ()
    copies: tuple[tuple[int, int], ...] = ()

    @property
    def end(self) -> int:
        """The first position after the chunk: how many keys its last token sees."""
        return self.start + len(self.tokens)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step. Do `copies` (from block, to block), in order, before any key is written.

    `layers`: how many of the model's first layers are computed, before its last norm; all unless given.
    """

    chunks: tuple[Chunk, ...]
    layers: int | None = None

    @property
    def copies(self) -> tuple[tuple[int, int], ...]:
        """Every block to copy before the step."""
        return tuple(copy for chunk in self.chunks for copy in chunk.copies)

    @property
    def tokens(self) -> int:
        """Tokens computed in this step."""
        return sum(len(chunk.tokens) for chunk in self.chunks)

    @property
    def rows(self) -> int:
        """Rows of logits this step returns."""
        return sum(len(chunk.wants_logits) for chunk in self.chunks)
