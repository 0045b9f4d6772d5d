"""One language model that answers: its tokens, its engine on a thread, and the name it is asked for by."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

from rolecall.serving.llm.api.engine_client import EngineClient, EngineStoppedError, News, Opened
from rolecall.serving.llm.api.errors import OpenAIError
from rolecall.serving.llm.api.grammar import Grammars
from rolecall.serving.llm.api.metrics import LLMMetrics
from rolecall.serving.llm.api.texts import Texts
from rolecall.serving.llm.errors import ContextOverflowError, EngineBusyError
from rolecall.serving.llm.output import Output
from rolecall.serving.llm.request import SamplingParameters

T = TypeVar("T")
_IDS = random.Random()  # names, no secrets: asking the system for randomness costs more than the rest of a reply's head
MARKS = 32
"""Characters that a turn of a conversation counts for beside its content."""
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
    """Requests under way together, `unread` choices of them not finished. Leaving the `async with` cancels those."""

    def __init__(self, choices: int, metrics: LLMMetrics) -> None:
        self.queue: News = asyncio.Queue()
        self.opened: Opened | None = None
        self.unread = choices
        self._metrics = metrics
        self._started = time.monotonic()
        self._heard: dict[tuple[int, int], float] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is not finished."""
        if self.unread and self.opened is not None:
            self.opened.leave()

    async def steps(self) -> AsyncIterator[list[tuple[int, Output]]]:
        """Which prompt, and what is new of one of its choices, as much as has come, until all are finished. Raises
        OpenAIError: 503 when the engine stopped, 504 when the time was up."""
        request_ids = () if self.opened is None else self.opened.request_ids
        places = {request_id: place for place, request_id in enumerate(request_ids)}
        while self.unread:
            told: list[tuple[int, Output]] = []
            failure: OpenAIError | None = None
            for output in await self._heard_since():
                failure = _failure(output)
                if failure is not None:
                    break
                if output is not None:
                    self.unread -= output.finish_reason is not None
                    told.append((places[output.request_id], output))
                    self._measure(*told[-1])
            if told:
                yield told
            if failure is not None:
                raise failure

    async def news(self) -> AsyncIterator[tuple[int, Output]]:
        """As `steps`, one at a time."""
        async for step in self.steps():
            for one in step:
                yield one

    async def _heard_since(self) -> list[Output | None]:
        """All that waits to be read, at least one step's; None: the engine stopped."""
        stopped: list[Output | None] = [None]
        heard = [*(await self.queue.get() or stopped)]
        while not self.queue.empty():
            heard += self.queue.get_nowait() or stopped
        return heard

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
        loop: EngineClient,
        texts: Texts,
        *,
        timeout_s: float | None = None,
        replica: str = "",
    ) -> None:
        self.metrics = LLMMetrics(replica)
        self.name = name
        self.loop = loop
        self.texts = texts
        facts = loop.facts
        self.context = facts.context
        self.grammars = Grammars(texts.grammar_tokens, vocabulary=facts.vocabulary)
        self.ends = facts.ends
        self._timeout_s = timeout_s
        self._aside = ThreadPoolExecutor(max_workers=2, thread_name_prefix="rolecall-llm-text")
        told = f"{name}:{facts.vocabulary}:{facts.context}"
        self.fingerprint = "fp_" + hashlib.sha256(told.encode()).hexdigest()[:12]

    async def tokens(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text. Raises OpenAIError 400 for one that cannot fit."""
        self._check_length(len(text.encode()))
        return await self.aside(self.texts.prompt, text, special=special, long=len(text) >= LONG)

    async def all_tokens(self, prompts: Sequence[str | list[int]]) -> list[list[int]]:
        """Tokens of every prompt. Raises OpenAIError 400 for more of them than ever wait and run together, and for one
        that cannot fit."""
        limits = self.loop.facts.limits
        if len(prompts) > limits.max_waiting:
            told = f"got {len(prompts)} prompts; allowed: {limits.max_waiting} in one request"
            raise OpenAIError(400, told, param="prompt", code="invalid_value")
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        for text in texts:
            self._check_length(len(text.encode()))

        def made() -> list[list[int]]:
            return [prompt if isinstance(prompt, list) else self.texts.prompt(prompt) for prompt in prompts]

        return await self.aside(made, long=sum(map(len, texts)) >= LONG)

    async def chat_tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of a conversation. Raises OpenAIError 400 where it cannot fit or the model's template refuses it."""
        self._check_length(sum(len(message["content"].encode()) for message in messages))
        size = sum(len(message["content"]) + MARKS for message in messages)
        try:
            return await self.aside(self.texts.chat, messages, long=size >= LONG)
        except ValueError as error:
            raise OpenAIError(400, str(error), param="messages", code="invalid_value") from error

    async def aside(self, work: Callable[..., T], *args: Any, long: bool, **options: Any) -> T:
        """Work for the CPU: where it is `long` on a thread of its own, so that the event loop goes on."""
        if not long:
            return work(*args, **options)
        return await asyncio.get_running_loop().run_in_executor(self._aside, partial(work, *args, **options))

    def _check_length(self, size: int) -> None:
        """No tokenizer makes fewer tokens of so many bytes; a normaliser may drop some, hence twice."""
        most = 2 * self.context * self.texts.longest
        if size > most:
            told = f"got {size} bytes of text; no text of more than {most} fits {self.context} tokens"
            raise OpenAIError(400, told, code="context_length_exceeded")

    async def open(self, asked: Asked) -> Running:
        """Queue requests, all or none. Raises OpenAIError: 400 with what is wrong, 429 when the queue is full, 503 when
        the engine is stopping."""
        running = Running(len(asked.prompts) * asked.parameters.n, self.metrics)
        try:
            running.opened = await self.loop.open(
                asked.prompts,
                asked.parameters,
                running.queue,
                priority=asked.priority,
                timeout_s=self._timeout_s,
                salt=asked.salt,
            )
        except Exception as error:
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
            return self.metrics.render(await self.loop.statistics())
        except EngineStoppedError:
            return b""

    def close(self, *, patience_s: float) -> None:
        """End the engine; what runs may end first."""
        self._aside.shutdown(wait=False, cancel_futures=True)
        self.loop.close(patience_s=patience_s)


def _failure(output: Output | None) -> OpenAIError | None:
    """What ends a whole request."""
    if output is None:
        return OpenAIError(503, "the engine stopped; the server's log says why", code="unavailable")
    if output.finish_reason == "deadline":
        return OpenAIError(504, "the time for this request was up (setting llm.timeout_s)", code="deadline")
    if output.finish_reason == "error":
        return OpenAIError(400, "bias and grammar of this request leave no token to choose", code="no_token")
    return None


def _refusal(error: Exception) -> Exception:
    """What a caller is told of why the engine did not take a request."""
    if isinstance(error, ContextOverflowError):
        return OpenAIError(400, str(error), code="context_length_exceeded")
    if isinstance(error, EngineBusyError):
        return OpenAIError(429, str(error), code="queue_full", retry_after_s=error.retry_after)
    if isinstance(error, EngineStoppedError):
        return OpenAIError(503, str(error), code="unavailable", retry_after_s=1)
    if isinstance(error, ValueError):
        return OpenAIError(400, str(error), code="invalid_value")
    return error


def reply_id(kind: str) -> str:
    """`chatcmpl-...` or `cmpl-...`."""
    return f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{_IDS.getrandbits(96):024x}"
