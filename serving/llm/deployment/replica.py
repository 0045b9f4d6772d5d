"""One replica of the deployment: an engine on a thread, warm before Serve sends it anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from rolecall.platform.errors import UnavailableError
from rolecall.platform.settings import Settings, load_settings
from rolecall.platform.telemetry import configure_logging
from rolecall.serving.llm.api.engine_client import EngineFacts, EngineStoppedError, News
from rolecall.serving.llm.api.grammar import Grammars
from rolecall.serving.llm.api.opening import open_loop
from rolecall.serving.llm.deployment.autoscaling import Load
from rolecall.serving.llm.deployment.order import Order
from rolecall.serving.llm.errors import EngineBusyError
from rolecall.serving.llm.output import Output
from rolecall.serving.llm.statistics import Statistics

REFUSALS = (ValueError, EngineBusyError, EngineStoppedError)
"""What an engine refuses a request by. They travel as answers: Serve would log each as a failure of the replica."""
Answer = Sequence[str] | Sequence[Output] | Exception | None
"""First the ids of the requests, or why they are refused; then what each step brought; None: the engine stopped."""


class LLMReplica:
    """`settings`: None reads this node's own."""

    async def __init__(self, settings: Settings | None, name: str = "") -> None:  # type: ignore[misc]  # Serve awaits it
        chosen = load_settings() if settings is None else settings
        configure_logging(chosen.log_level)
        self._settings = chosen.llm
        self._name = name or _replica_name()
        self._loop, texts = await asyncio.to_thread(open_loop, self._settings, replica=self._name)
        self._grammars = Grammars(texts.grammar_tokens, vocabulary=self._loop.facts.vocabulary)

    async def facts(self) -> EngineFacts:
        """What callers must know of the model."""
        return self._loop.facts

    async def statistics(self) -> tuple[str, Statistics]:
        """This replica's name and its engine's counts."""
        return self._name, await self._loop.stats()

    async def generate(self, order: Order) -> AsyncIterator[Answer]:
        """Answers to an order, a message a step. Closing the iterator cancels what is not finished."""
        queue: News = asyncio.Queue()
        try:
            opened = await self._open(order, queue)
        except REFUSALS as error:
            yield error
            return
        unread = len(order.prompts) * order.parameters.n
        try:
            yield opened.request_ids
            while unread:
                outputs = await _heard_since(queue)
                unread -= sum(output.finish_reason is not None for output in outputs or ())
                yield outputs
                if outputs is None:
                    return
        finally:
            if unread:
                opened.leave()

    async def check_health(self) -> None:
        """Raises UnavailableError, which has this replica replaced, where the engine ended or one step of it lasts
        longer than any answer may."""
        if not self._loop.alive:
            raise UnavailableError("the language model's engine has ended")
        if self._loop.busy_s() > self._settings.timeout_s:
            raise UnavailableError(f"one step of the engine has been running for {self._loop.busy_s():.0f} s")

    async def record_routing_stats(self) -> dict[str, float]:
        """For routers: choices that wait or run here."""
        counts = await self._loop.stats()
        return {"requests": float(counts.waiting + counts.running)}

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For the autoscaler: `Load`, by field."""
        return vars(Load.of(await self._loop.stats(), self._settings.max_sequences))

    def close(self) -> None:
        """End the engine. Serve has drained the replica before."""
        self._loop.close()

    def __del__(self) -> None:
        """Serve's name for it."""
        if hasattr(self, "_loop"):
            self.close()

    async def _open(self, order: Order, queue: News) -> Any:
        parameters = order.parameters
        if order.grammar is not None:
            constraint = await asyncio.to_thread(self._grammars.again, order.grammar)
            parameters = replace(parameters, constraint=constraint)
        return await self._loop.open(
            order.prompts,
            parameters,
            queue,
            priority=order.priority,
            timeout_s=order.timeout_s,
            salt=order.salt,
        )


async def _heard_since(queue: News) -> Sequence[Output] | None:
    """All that waits in the queue, at least one step's: a slow reader gets fewer, longer messages."""
    heard = await queue.get()
    while heard is not None and not queue.empty():
        more = queue.get_nowait()
        if more is None:
            queue.put_nowait(None)
            break
        heard = [*heard, *more]
    return heard


def _replica_name() -> str:
    from ray import serve

    return str(serve.get_replica_context().replica_id.unique_id)
