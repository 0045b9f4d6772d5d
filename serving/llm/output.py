"""What the engine answers: tokens as they come, and whole generations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rolecall.serving.llm.sequence import FinishReason


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token; with logprobs its natural-log probability and the `top` alternatives (token, logprob), best first."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of the engine's clock."""

    arrived: float
    started: float | None
    first_token: float | None
    finished: float


@dataclass(frozen=True, kw_only=True)
class Output:
    """News of one choice: new tokens and the text they complete, which may lag behind or be empty.

    `finish_reason` is None until the last output of the choice, which carries `timing`. `prompt_logprobs` comes once,
    with choice 0: None for the prompt's first token, then one for each.
    """

    request_id: str
    index: int
    tokens: tuple[Token, ...]
    text: str
    finish_reason: FinishReason | None
    prompt_tokens: int
    cached_tokens: int
    prompt_logprobs: tuple[Token | None, ...] | None = None
    timing: Timing | None = None


@dataclass(kw_only=True)
class Completion:
    """One choice, put together from its outputs."""

    index: int
    tokens: list[Token] = field(default_factory=list[Token])
    text: str = ""
    finish_reason: FinishReason | None = None

    @property
    def token_ids(self) -> list[int]:
        """The generated tokens' ids; an end-of-text token that stopped it is the last of them."""
        return [token.token for token in self.tokens]


@dataclass(kw_only=True)
class Generation:
    """All choices of one request."""

    request_id: str
    completions: list[Completion]
    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_logprobs: tuple[Token | None, ...] | None = None

    def add(self, output: Output) -> None:
        """Append one piece of news."""
        completion = self.completions[output.index]
        completion.tokens.extend(output.tokens)
        completion.text += output.text
        completion.finish_reason = output.finish_reason
        self.prompt_tokens, self.cached_tokens = output.prompt_tokens, output.cached_tokens
        self.prompt_logprobs = output.prompt_logprobs or self.prompt_logprobs


def joined(request_id: str, choices: int, outputs: Iterable[Output]) -> Generation:
    """The generation that these outputs of a request add up to."""
    generation = Generation(request_id=request_id, completions=[Completion(index=index) for index in range(choices)])
    for output in outputs:
        generation.add(output)
    return generation
