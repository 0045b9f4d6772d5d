"""vLLM behind the interface of our own engine: `llm.backend: vllm`, where the package is installed.

Written against the source of vLLM 0.33.0 (`vllm.v1.engine.async_llm.AsyncLLM`). It has never run: no machine with vLLM
and a GPU was at hand. What is tested is the translation of parameters and outputs, where vLLM's classes import.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from rolecall.serving.llm.admission import Admission, Words
from rolecall.serving.llm.api.engine_client import EngineFacts, EngineStoppedError, News, Opened
from rolecall.serving.llm.output import Output, Timing
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.llm.statistics import Counters, Statistics
from rolecall.serving.llm.text import Tokenizer
from rolecall.serving.llm.vllm_engine.translation import outputs, sampling_params

_LOG = logging.getLogger("rolecall.serving.llm")
_PAUSE_S = 0.05


@dataclass(kw_only=True, eq=False)
class _Request:
    """One under way, as this side sees it. `unfinished`: choices without an end."""

    id: str
    prompt: Sequence[int]
    parameters: SamplingParameters
    priority: int
    salt: str
    arrived: float
    unfinished: set[int]
    first: float | None = None


class VLLMEngine:
    """An `AsyncLLM`. It belongs to the event loop that first calls `open`."""

    def __init__(self, engine: Any, facts: EngineFacts, tokenizer: Tokenizer, *, replica: str = "") -> None:
        self._engine = engine
        self._facts = facts
        self._replica = replica
        self._closing = False
        self._numbers = itertools.count(1)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, int] = {}  # prompt tokens of requests without a first token
        self._counters = Counters()
        self._admission = Admission(
            words=Words(vocabulary=facts.vocabulary, context=facts.context, eos=facts.ends, tokenizer=tokenizer),
            context=facts.context,
            max_sequences=facts.limits.max_sequences,
            max_waiting=facts.limits.max_waiting,
            max_waiting_tokens=facts.limits.max_waiting_tokens,
        )

    @property
    def facts(self) -> EngineFacts:
        """See EngineClient."""
        return self._facts

    @property
    def alive(self) -> bool:
        """See EngineClient."""
        return not (self._closing or self._engine.errored)

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
        """See EngineClient. Raises ValueError, too, for what vLLM cannot do, by name."""
        if not self.alive:
            raise EngineStoppedError("the engine is stopping")
        waiting, tokens = len(self._waiting), sum(self._waiting.values())
        params = []
        for prompt in prompts:
            self._admission.check(prompt, parameters)
            self._admission.check_load(waiting, tokens, len(prompt), 1.0)
            params.append(sampling_params(parameters, room=self._facts.context - len(prompt)))
            waiting, tokens = waiting + 1, tokens + len(prompt)
        requests = [self._request(prompt, parameters, priority, salt) for prompt in prompts]
        for request, chosen in zip(requests, params, strict=True):
            self._begin(request, chosen, queue, timeout_s)
        names = [request.id for request in requests]
        return Opened(request_ids=names, leave=partial(self._leave, names))

    async def statistics(self) -> Mapping[str, Statistics]:
        """See EngineClient. What this side counts: of blocks and times vLLM's own metrics tell."""
        if not self.alive:
            raise EngineStoppedError("the engine is stopping")
        counted = Statistics(
            waiting=len(self._waiting),
            waiting_tokens=sum(self._waiting.values()),
            running=len(self._tasks) - len(self._waiting),
            blocks=1,
            blocks_free=1,
            preemptions=0,
            **asdict(self._counters),
        )
        return {self._replica: counted}

    def close(self, *, patience_s: float = 0.0) -> None:
        """See EngineClient. Called on its own event loop it cannot wait: requests under way then end at once."""
        self._closing = True
        until = time.monotonic() + patience_s
        while self._tasks and time.monotonic() < until and not _on_a_loop():
            time.sleep(_PAUSE_S)
        self._engine.shutdown()

    def _request(self, prompt: Sequence[int], parameters: SamplingParameters, priority: int, salt: str) -> _Request:
        return _Request(
            id=f"request-{next(self._numbers)}",
            prompt=prompt,
            parameters=parameters,
            priority=priority,
            salt=salt,
            arrived=time.monotonic(),
            unfinished=set(range(parameters.n)),
        )

    def _begin(self, request: _Request, params: Any, queue: News, timeout_s: float | None) -> None:
        self._counters.requests += 1
        self._waiting[request.id] = len(request.prompt)
        task = asyncio.create_task(self._follow(request, params, queue, timeout_s), name=request.id)
        self._tasks[request.id] = task
        task.add_done_callback(lambda _: self._ended(request.id))

    def _ended(self, name: str) -> None:
        self._counters.finished += 1
        self._tasks.pop(name, None)
        self._waiting.pop(name, None)

    def _leave(self, names: Sequence[str]) -> None:
        """A task that is cancelled leaves `generate`, which then aborts the request in vLLM."""
        for name in names:
            if (task := self._tasks.get(name)) is not None:
                task.get_loop().call_soon_threadsafe(task.cancel)

    async def _follow(self, request: _Request, params: Any, queue: News, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                async for told in self._generate(request, params):
                    queue.put_nowait(told)
        except TimeoutError:
            queue.put_nowait(self._late(request))
        except Exception:  # noqa: BLE001 - the end of a task: the caller is told, the log has the reason
            _LOG.exception("vLLM failed at %s", request.id)
            queue.put_nowait(None)

    async def _generate(self, request: _Request, params: Any) -> AsyncIterator[list[Output]]:
        prompt: dict[str, Any] = {"prompt_token_ids": list(request.prompt)}  # vLLM's TokensPrompt
        if request.salt:
            prompt["cache_salt"] = request.salt
        async for news in self._engine.generate(prompt, params, request.id, priority=request.priority):
            yield self._read(request, news)

    def _read(self, request: _Request, news: Any) -> list[Output]:
        now = time.monotonic()
        if request.first is None:
            request.first = now
            self._waiting.pop(request.id, None)
            self._counters.cached_tokens += news.num_cached_tokens or 0
        ended = {one.index for one in news.outputs if one.finish_reason is not None}
        request.unfinished -= ended
        made = outputs(request.id, news, request.parameters, dict.fromkeys(ended, _timing(request, now)))
        self._counters.generated_tokens += sum(len(output.tokens) for output in made)
        return made

    def _late(self, request: _Request) -> list[Output]:
        """The end of every choice that has none, since the time is up."""
        return [
            Output(
                request_id=request.id,
                index=index,
                tokens=(),
                text="",
                finish_reason="deadline",
                prompt_tokens=len(request.prompt),
                cached_tokens=0,
                timing=_timing(request, time.monotonic()),
            )
            for index in sorted(request.unfinished)
        ]


def _timing(request: _Request, now: float) -> Timing:
    return Timing(arrived=request.arrived, started=None, first_token=request.first, finished=now)


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
