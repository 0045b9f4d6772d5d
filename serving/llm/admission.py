"""What the engine takes on: requests it can finish, and no more of them than it can hold."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from rolecall.serving.llm.errors import ContextOverflowError, EngineBusyError
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.llm.text import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Words:
    """What the engine needs to know of the model's tokens. `tokenizer` None: no text, and no stop strings."""

    vocabulary: int
    context: int
    eos: frozenset[int] = frozenset()
    tokenizer: Tokenizer | None = None


@dataclass(frozen=True, kw_only=True)
class Admission:
    """`context`: tokens one sequence may have, prompt and text together; so many of them always fit the cache."""

    words: Words
    context: int
    max_sequences: int
    max_waiting: int
    max_waiting_tokens: int

    def check(self, prompt: Tokens[int], parameters: SamplingParameters) -> None:
        """Raise ValueError for a request that can never be served, ContextOverflowError for one that is too long."""
        vocabulary = self.words.vocabulary
        named = (*parameters.logit_bias, *parameters.stop_token_ids)
        if not prompt:
            raise ValueError("got an empty prompt; allowed: at least one token")
        if wrong := next((token for token in (*prompt, *named) if not 0 <= token < vocabulary), None):
            raise ValueError(f"got token {wrong}; allowed: 0 to {vocabulary - 1}")
        if parameters.n > self.max_sequences:
            raise ValueError(f"n: got {parameters.n}; allowed: at most {self.max_sequences}, which run together")
        if parameters.stop and self.words.tokenizer is None:
            raise ValueError("stop: got strings for a model without a tokenizer; use stop_token_ids")
        self._check_length(len(prompt), parameters.max_tokens)

    def most_tokens(self, prompt: Tokens[int], parameters: SamplingParameters) -> int:
        """How many tokens may be sampled: as asked for, else what the context has room for."""
        room = self.context - len(prompt)
        return room if parameters.max_tokens is None else parameters.max_tokens

    def check_load(self, waiting: int, waiting_tokens: int, more: int, retry_after: float) -> None:
        """Raise EngineBusyError if a request of `more` tokens would make the queue too long; one alone never does."""
        if waiting and (waiting >= self.max_waiting or waiting_tokens + more > self.max_waiting_tokens):
            raise EngineBusyError(
                f"{waiting} requests of {waiting_tokens} tokens are waiting; "
                f"allowed: {self.max_waiting} requests, {self.max_waiting_tokens} tokens",
                retry_after=max(1.0, retry_after),
            )

    def _check_length(self, prompt: int, wanted: int | None) -> None:
        if prompt + (1 if wanted is None else wanted) > self.context:
            asked = f"{prompt} prompt tokens" + (f" and max_tokens {wanted}" if wanted is not None else "")
            raise ContextOverflowError(
                f"got {asked}; allowed: {self.context} together; shorten the prompt or ask for fewer tokens"
            )
