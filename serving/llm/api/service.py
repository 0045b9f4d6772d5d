"""One language model that answers: its tokens, its engine on a thread, and the name it is asked for by."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rolecall.serving.llm.api.errors import OpenAIError
from rolecall.serving.llm.api.grammar import Grammars
from rolecall.serving.llm.api.loop import EngineLoop, EngineStoppedError, News, Stream
from rolecall.serving.llm.api.metrics import LLMMetrics
from rolecall.serving.llm.api.texts import Texts
from rolecall.serving.llm.errors import ContextOverflowError, EngineBusyError
from rolecall.serving.llm.output import Output
from rolecall.serving.llm.request import SamplingParameters

LONG = 2_000
"""Characters from which tokenising would hold up the event loop for a millisecond or more."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Prompts and how to go on from each."""

    prompts: Sequence[Sequence[int]]
    parameters: SamplingParameters
    priority: int = 0
    salt: str = ""


class Running:
    """Requests under way together. Leaving the `async with` cancels what is not finished."""

    def __init__(self, choices: int, metrics: LLMMetrics) -> None:
        self.queue: News = asyncio.Queue()
        self.streams: list[Stream] = []
        self._choices = choices
        self._metrics = metrics
        self._started = time.monotonic()
        self._heard: dict[tuple[int, int], float] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is not finished."""
        for stream in self.streams:
            stream.leave()

    async def news(self) -> AsyncIterator[tuple[int, Output]]:
        """Which prompt, and what is new of one of its choices, until all are finished. Raises OpenAIError: 503 when the
        engine stopped, 504 when the time was up."""
        places = {stream.request_id: place for place, stream in enumerate(self.streams)}
        unread = self._choices
        while unread:
            outputs = await self.queue.get()
            if outputs is None:
                raise OpenAIError(503, "the engine stopped; the server's log says why", code="unavailable")
            for output in outputs:
                if output.finish_reason == "deadline":
                    raise OpenAIError(504, "the time for this request was up (setting llm.timeout_s)", code="deadline")
                if output.finish_reason == "error":
                    raise OpenAIError(400, "bias and grammar of this request leave no token to choose", code="no_token")
                unread -= output.finish_reason is not None
                place = places[output.request_id]
                self._measure(place, output)
                yield place, output

    def _measure(self, place: int, output: Output) -> None:
        now, choice = time.monotonic(), (place, output.index)
        if output.tokens:
            if choice in self._heard:
                self._metrics.went_on(now - self._heard[choice], len(output.tokens))
            else:
                self._metrics.began(now - self._started)
            self._heard[choice] = now
        if output.timing is not None:
            inside = output.timing.finished - output.timing.arrived
            self._metrics.ended(now - self._started - inside)


class LLMService:
    """Answers over one engine. `timeout_s`: after it a request ends with what it has; None: never."""

    def __init__(
        self,
        name: str,
        loop: EngineLoop,
        texts: Texts,
        *,
        vocabulary: int,
        context: int,
        ends: frozenset[int],
        timeout_s: float | None = None,
        replica: str = "",
    ) -> None:
        self.metrics = LLMMetrics(replica)
        self.name = name
        self.loop = loop
        self.texts = texts
        self.context = context
        self.grammars = Grammars(texts.grammar_tokens, vocabulary=vocabulary)
        self.ends = ends
        self._timeout_s = timeout_s
        self.fingerprint = "fp_" + hashlib.sha256(f"{name}:{vocabulary}:{context}".encode()).hexdigest()[:12]

    async def tokens(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text."""
        if len(text) < LONG:
            return self.texts.prompt(text, special=special)
        return await asyncio.to_thread(self.texts.prompt, text, special=special)

    async def chat_tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of a conversation. Raises OpenAIError 400 where the model's template refuses it."""
        try:
            if sum(len(message["content"]) for message in messages) < LONG:
                return self.texts.chat(messages)
            return await asyncio.to_thread(self.texts.chat, messages)
        except ValueError as error:
            raise OpenAIError(400, str(error), param="messages", code="invalid_value") from error

    async def open(self, asked: Asked) -> Running:
        """Queue requests, all or none. Raises OpenAIError: 400 with what is wrong, 429 when the queue is full, 503 when
        the engine is stopping."""
        running = Running(len(asked.prompts) * asked.parameters.n, self.metrics)
        try:
            for prompt in asked.prompts:
                stream = await self.loop.open(
                    prompt,
                    asked.parameters,
                    running.queue,
                    priority=asked.priority,
                    timeout_s=self._timeout_s,
                    salt=asked.salt,
                )
                running.streams.append(stream)
        except BaseException as error:
            running.close()
            raise _refusal(error) from error
        return running

    def check_model(self, name: str) -> None:
        """Raise OpenAIError 404 for another model's name."""
        if name != self.name:
            raise OpenAIError(
                404, f"model {name!r} is not served here; {self.name!r} is", param="model", code="model_not_found"
            )

    async def exposition(self) -> bytes:
        """Metrics as Prometheus reads them; nothing once the engine has ended."""
        try:
            return self.metrics.render(await self.loop.stats())
        except EngineStoppedError:
            return b""

    def close(self, *, patience_s: float) -> None:
        """End the engine; what runs may end first."""
        self.loop.close(patience_s=patience_s)


def _refusal(error: BaseException) -> BaseException:
    """What a caller is told of why the engine did not take a request."""
    if isinstance(error, ContextOverflowError):
        return OpenAIError(400, str(error), param="messages", code="context_length_exceeded")
    if isinstance(error, EngineBusyError):
        return OpenAIError(429, str(error), code="queue_full", retry_after_s=error.retry_after)
    if isinstance(error, EngineStoppedError):
        return OpenAIError(503, str(error), code="unavailable", retry_after_s=1)
    if isinstance(error, ValueError):
        return OpenAIError(400, str(error), code="invalid_value")
    return error


def reply_id(kind: str) -> str:
    """`chatcmpl-...` or `cmpl-...`."""
    return f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{secrets.token_hex(12)}"
