"""What the HTTP side needs of an engine, wherever it runs.

`EngineLoop` is one: the engine on a thread of this process. `deployment.client.RemoteEngine` is the other: engines in
deployments of their own, reached over Ray Serve. `tests/serving/llm/api/test_engine_client.py` holds both to the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rolecall.serving.llm.engine import EngineOptions
from rolecall.serving.llm.output import Output
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.llm.statistics import Statistics

News = asyncio.Queue[Sequence[Output] | None]
"""What a step brought to the requests of one caller; None: the engine stopped."""


class EngineStoppedError(RuntimeError):
    """The engine takes no requests: it is being closed, a step failed, or none is there."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Requests under way together: their ids, in the order of the prompts. `leave` cancels them; twice does no harm."""

    request_ids: Sequence[str]
    leave: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What callers must know of an engine's model to ask it: its tokens, how many fit, and which end an answer."""

    vocabulary: int
    context: int
    ends: frozenset[int]
    limits: EngineOptions


class EngineClient(Protocol):
    """Takes requests and tells what becomes of them."""

    @property
    def facts(self) -> EngineFacts:
        """Of the engine's model."""
        ...

    @property
    def alive(self) -> bool:
        """Whether requests are taken."""
        ...

    async def open(
        self,
        prompts: Sequence[Sequence[int]],
        parameters: SamplingParameters,
        queue: News,
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        salt: str = "",
    ) -> Opened:
        """Queue a request for each prompt, all or none; their news comes to `queue`.

        Raises ContextOverflowError, EngineBusyError and ValueError as `LLMEngine.add`, and EngineStoppedError. A caller
        that is cancelled meanwhile leaves no request behind.
        """
        ...

    async def statistics(self) -> Mapping[str, Statistics]:
        """Of every engine behind this, by the name of its process. Raises EngineStoppedError where none is there."""
        ...

    def close(self, *, patience_s: float = 0.0) -> None:
        """Take no more requests; end an engine of this process once those under way ended, at most `patience_s` on."""
        ...
