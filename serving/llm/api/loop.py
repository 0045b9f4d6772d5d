"""The engine on a thread of its own, answering event loops.

The engine belongs to that thread: requests and cancellations wait in an inbox that it empties between steps, which
is where the scheduler could first see them anyway. News goes back to an event loop in one call a step.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from rolecall.serving.llm.api.engine_client import EngineFacts, EngineStoppedError, News, Opened
from rolecall.serving.llm.engine import LLMEngine
from rolecall.serving.llm.output import Output
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.llm.statistics import Statistics

T = TypeVar("T")
_LOG = logging.getLogger("rolecall.serving.llm")


@dataclass(kw_only=True, eq=False)
class Stream:
    """One request under way. `unfinished` choices, as the engine's thread knows them."""

    request_id: str
    unfinished: int
    loop: asyncio.AbstractEventLoop
    queue: News


class EngineLoop:
    """Steps an engine while it has work, from the moment it is made until it is closed. `threads` that it computes on;
    0: as many as the process was given. `replica`: the name of this process."""

    def __init__(self, engine: LLMEngine, *, threads: int = 0, replica: str = "") -> None:
        self._engine = engine
        self._threads = threads
        self._replica = replica
        self._inbox: deque[Callable[[bool], object]] = deque()  # called with whether the engine still serves
        self._streams: dict[str, Stream] = {}
        self._wake = threading.Condition()
        self._closing = self._ended = False
        self._numbers = itertools.count(1)
        self._stepped = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="rolecall-llm", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests are taken."""
        return not (self._closing or self._ended)

    @property
    def facts(self) -> EngineFacts:
        """Of the engine's model."""
        words = self._engine.words
        return EngineFacts(
            vocabulary=words.vocabulary,
            context=self._engine.admission.context,
            ends=words.eos,
            limits=self._engine.options,
        )

    def busy_s(self) -> float:
        """How long the step under way has been running; 0 where there is nothing to do."""
        return time.monotonic() - self._stepped if self._streams else 0.0

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
        """Queue a request for each prompt, all or none; their news comes to `queue`. Raises as `LLMEngine.add`, and
        EngineStoppedError."""
        loop = asyncio.get_running_loop()
        names = [f"stream-{next(self._numbers)}" for _ in prompts]
        streams = [Stream(request_id=name, unfinished=parameters.n, loop=loop, queue=queue) for name in names]
        opened = Opened(request_ids=names, leave=partial(self._leave, names))

        def admit() -> Opened:
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            try:
                for prompt, stream in zip(prompts, streams, strict=True):
                    self._engine.add(
                        prompt,
                        parameters,
                        priority=priority,
                        deadline=deadline,
                        salt=salt,
                        request_id=stream.request_id,
                    )
                    self._streams[stream.request_id] = stream
            except Exception:
                for name in names:
                    self._drop(name)
                raise
            return opened

        try:
            return await self._ask(admit)
        except asyncio.CancelledError:
            opened.leave()
            raise

    async def stats(self) -> Statistics:
        """The engine's counts between two steps."""
        return await self._ask(self._engine.stats)

    async def statistics(self) -> Mapping[str, Statistics]:
        """`stats` of this process."""
        return {self._replica: await self.stats()}

    def close(self, *, patience_s: float = 0.0) -> None:
        """Take no more requests, let those under way end for `patience_s`, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(patience_s)
        with self._wake:
            self._ended = True
            self._wake.notify()
        self._thread.join()

    async def _ask(self, what: Callable[[], T]) -> T:
        """What the engine's thread answers between two steps."""
        answer: Future[T] = Future()

        def errand(serving: bool) -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                if not serving:
                    raise EngineStoppedError("the engine is stopping")
                answer.set_result(what())
            except Exception as error:  # noqa: BLE001 - raised where the answer is awaited
                answer.set_exception(error)

        self._post(errand)
        return await asyncio.wrap_future(answer)

    def _leave(self, names: Sequence[str]) -> None:
        with contextlib.suppress(EngineStoppedError):
            self._post(lambda _: self._drop(*names))

    def _drop(self, *names: str) -> None:
        for name in names:
            if self._streams.pop(name, None) is not None:
                self._engine.cancel(name)

    def _post(self, errand: Callable[[bool], object]) -> None:
        with self._wake:
            if self._ended or (self._closing and not self._streams):
                raise EngineStoppedError("the engine is stopping")
            self._inbox.append(errand)
            self._wake.notify()

    def _run(self) -> None:
        try:
            if self._threads:
                torch.set_num_threads(self._threads)
            while self._wait():
                while self._inbox:
                    self._inbox.popleft()(not self._closing)
                self._stepped = time.monotonic()
                with torch.inference_mode():
                    news = self._engine.step()
                self._tell(news)
        except Exception:  # noqa: BLE001 - the end of a thread: callers are told below, the log has the reason
            _LOG.exception("the LLM engine stopped")
        finally:
            with self._wake:
                self._ended = True
            while self._inbox:
                self._inbox.popleft()(False)
            self._deliver([(stream, None) for stream in self._streams.values()])
            self._streams.clear()
            self._engine.close()

    def _wait(self) -> bool:
        """Sleep until there is something to do. False: the thread is to end."""
        with self._wake:
            self._wake.wait_for(lambda: self._inbox or self._engine.busy or self._closing or self._ended)
            return not self._ended and not (self._closing and not self._streams)

    def _tell(self, outputs: Sequence[Output]) -> None:
        news: dict[str, list[Output]] = {}
        for output in outputs:
            news.setdefault(output.request_id, []).append(output)
        mine = [(self._streams[name], told) for name, told in news.items() if name in self._streams]
        for stream, told in mine:
            stream.unfinished -= sum(output.finish_reason is not None for output in told)
            if not stream.unfinished:
                del self._streams[stream.request_id]
        self._deliver(mine)

    def _deliver(self, told: Sequence[tuple[Stream, list[Output] | None]]) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Stream, list[Output] | None]]] = {}
        for stream, outputs in told:
            loops.setdefault(stream.loop, []).append((stream, outputs))
        for loop, mine in loops.items():
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens
                loop.call_soon_threadsafe(_put, mine)


def _put(told: Sequence[tuple[Stream, list[Output] | None]]) -> None:
    for stream, outputs in told:
        stream.queue.put_nowait(outputs)
