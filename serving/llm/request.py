"""What a caller asks for: a prompt, how to sample, and how urgent it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SEEDS = 2**63  # seeds are int64 and not negative


class Constraint(Protocol):
    """Which tokens may come next: a grammar, a JSON schema."""

    def allowed(self, generated: Sequence[int]) -> NDArray[np.bool_]:
        """[vocabulary] after these generated tokens; an end-of-text token is allowed where the text may end."""
        ...


@dataclass(frozen=True, kw_only=True)
class SamplingParameters:
    """How to choose each next token, and when to stop.

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 keep every token. `max_tokens` None: up to the
    context's end; 0: score the prompt only. `logprobs` and `prompt_logprobs`: how many alternatives beside the token
    itself, None for none at all; both are of the model's own distribution, before penalties and temperature.
    Generated text ends before the first of the `stop` strings; no end counts before `min_tokens`.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float], hash=False)
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    n: int = 1
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a number out of its range, naming it."""
        for name, low, high in RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name}: got {value}; allowed: {low} to {high}")
        if self.top_p == 0 or self.repetition_penalty == 0:
            raise ValueError("top_p and repetition_penalty: got 0; allowed: above 0")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens: got {self.min_tokens}; allowed: at most max_tokens ({self.max_tokens})")
        if "" in self.stop:
            raise ValueError("stop: got an empty string; allowed: strings of at least one character")

    @property
    def never_ends(self) -> bool:
        """Whether an end-of-text token is one like any other. What a grammar has completed ends in any case."""
        return self.ignore_eos and self.constraint is None

    @property
    def penalised(self) -> bool:
        """Whether tokens seen before weigh on the next one."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)


RANGES: tuple[tuple[str, float, float], ...] = (
    ("temperature", 0, 100),
    ("top_p", 0, 1),
    ("top_k", 0, math.inf),
    ("min_p", 0, 1),
    ("repetition_penalty", 0, 100),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("seed", 0, SEEDS - 1),
    ("max_tokens", 0, math.inf),
    ("min_tokens", 0, math.inf),
    ("logprobs", 0, 100),
    ("prompt_logprobs", 0, 100),
    ("n", 1, 128),
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One admitted request. `order` is its place in the queue: priority (lower first), deadline, arrival.

    `deadline` and `arrived` are seconds of the engine's clock. Prefixes are shared within one `salt` only.
    """

    request_id: str
    number: int
    prompt: tuple[int, ...]
    parameters: SamplingParameters
    max_tokens: int
    arrived: float
    priority: int = 0
    deadline: float | None = None
    salt: str = ""

    @property
    def order(self) -> tuple[int, float, int]:
        """Smaller is served first."""
        return self.priority, math.inf if self.deadline is None else self.deadline, self.number

    def late(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and now >= self.deadline
