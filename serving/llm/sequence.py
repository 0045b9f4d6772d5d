"""A sequence: the tokens of one choice of a request, and how many of them the cache already holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from rolecall.serving.llm.request import SEEDS, Request

FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]  # error: no token had a finite logit


class State(Enum):
    """Waiting (new, or preempted) has no blocks; running has; finished gave them back."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False, kw_only=True, slots=True)
class Sequence:
    """Keys and values of `tokens[:computed]` are in the blocks of `block_table`; the rest, then `draft`, is to do.

    There are no phases: a prompt, a chunk of one, a token just sampled and drafted tokens are all tokens to compute.
    `prefix` names the chain of full blocks entered in the prefix cache. `siblings_due` further choices are forked off
    when the prompt is computed. `scored` counts the prompt positions whose logits have been read.
    """

    request: Request
    index: int
    seed: int
    tokens: list[int]
    computed: int = 0
    block_table: list[int] = field(default_factory=list[int])
    prefix: list[int] = field(default_factory=list[int])
    draft: list[int] = field(default_factory=list[int])
    draft_limit: int = 4
    siblings_due: int = 0
    scored: int = 0
    cached: int | None = None
    state: State = State.WAITING
    finish_reason: FinishReason | None = None

    @classmethod
    def of(cls, request: Request, seed: int) -> Sequence:
        """The first choice of a request, nothing computed."""
        tokens = list(request.prompt)
        return cls(request=request, index=0, seed=seed, tokens=tokens, siblings_due=request.parameters.n - 1)

    def fork(self, index: int, computed: int) -> Sequence:
        """Another choice on the same prompt, sharing its blocks (whose references the caller counts)."""
        return Sequence(
            request=self.request,
            index=index,
            seed=(self.seed + index * 0x9E3779B97F4A7C15) % SEEDS,  # the golden ratio's bits: far apart
            tokens=list(self.tokens),
            computed=computed,
            block_table=list(self.block_table),
            prefix=list(self.prefix),
            scored=self.scored,
            cached=self.cached,
            state=State.RUNNING,
        )

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt)

    @property
    def remaining(self) -> int:
        """How many tokens may still be sampled."""
        return self.request.max_tokens - (len(self.tokens) - self.prompt_length)

    @property
    def whole(self) -> bool:
        """Whether nothing is left to compute: the prompt is, and the last token that may be sampled was."""
        return self.remaining == 0 and self.computed >= self.prompt_length

    @property
    def may_draft(self) -> bool:
        """Whether only the last token is to be computed, for this sequence alone, and more than one may follow it."""
        return self.computed == len(self.tokens) - 1 and not self.siblings_due and self.remaining > 1

    @property
    def target(self) -> int:
        """Tokens to have computed before the next one is sampled, drafted ones included."""
        return len(self.tokens) + len(self.draft)

    @property
    def order(self) -> tuple[int, float, int, int]:
        """Smaller is served first."""
        return (*self.request.order, self.index)
