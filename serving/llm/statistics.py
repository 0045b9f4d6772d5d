"""What the engine did and where the time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from rolecall.serving.llm.batch import Batch

Part = Literal["queue", "schedule", "model", "sample", "detokenise"]
PARTS: tuple[Part, ...] = ("queue", "schedule", "model", "sample", "detokenise")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of the time the model took; the bytes are those a step cannot do without."""

    tokens_per_second: float
    bytes_per_second: float


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts since the start, and the present load.

    `seconds`: spent in each part; queue is summed over requests (from arrival to the first computed token), the others
    are the engine's own time. `computed_tokens` went through the model; `cached_tokens` did not have to. `decode_...`:
    of steps without prompts, `decode_keys` being the positions whose keys and values they read.
    """

    waiting: int
    waiting_tokens: int
    running: int
    blocks: int
    blocks_free: int
    steps: int
    requests: int
    finished: int
    computed_tokens: int
    cached_tokens: int
    generated_tokens: int
    drafted_tokens: int
    kept_tokens: int
    preemptions: int
    decode_steps: int
    decode_tokens: int
    decode_keys: int
    decode_seconds: float
    seconds: dict[Part, float]

    @property
    def cache_use(self) -> float:
        """Share of the blocks that sequences hold, 0 to 1."""
        return 1 - self.blocks_free / self.blocks

    @property
    def acceptance(self) -> float:
        """Share of drafted tokens that were right; 0 without any."""
        return self.kept_tokens / self.drafted_tokens if self.drafted_tokens else 0.0

    def speed(self, weight_bytes: int, token_bytes: int) -> Speed:
        """Of decoding: each step reads the weights once and the keys and values of all it attends to."""
        seconds = self.decode_seconds or float("inf")
        read = self.decode_steps * weight_bytes + self.decode_keys * token_bytes
        return Speed(tokens_per_second=self.decode_tokens / seconds, bytes_per_second=read / seconds)


@dataclass(kw_only=True)
class Counters:
    """What `Statistics` is made of, while it is counted."""

    steps: int = 0
    requests: int = 0
    finished: int = 0
    computed_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    drafted_tokens: int = 0
    kept_tokens: int = 0
    decode_steps: int = 0
    decode_tokens: int = 0
    decode_keys: int = 0
    decode_seconds: float = 0.0
    seconds: dict[Part, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    @contextmanager
    def timed(self, part: Part) -> Iterator[None]:
        """Book what runs inside under this part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def count(self, batch: Batch, gained: int, model_seconds: float) -> None:
        """Book a step that gained so many tokens and whose model took so long."""
        self.steps += 1
        self.seconds["model"] += model_seconds
        self.computed_tokens += batch.tokens
        self.generated_tokens += gained
        if all(chunk.start >= chunk.sequence.prompt_length for chunk in batch.chunks):
            self.decode_steps += 1
            self.decode_tokens += gained
            self.decode_keys += sum(chunk.end for chunk in batch.chunks)
            self.decode_seconds += model_seconds

    def seconds_for(self, tokens: int) -> float:
        """How long so many tokens should take at the speed so far; 1 second before anything was measured."""
        busy = sum(self.seconds[part] for part in PARTS if part != "queue")
        return tokens * busy / self.computed_tokens if self.computed_tokens else 1.0
