"""The asking side of the deployment: engines behind a handle of Ray Serve, as one `EngineClient`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rolecall.serving.llm.api.engine_client import EngineFacts, EngineStoppedError, News, Opened
from rolecall.serving.llm.api.grammar import GrammarConstraint
from rolecall.serving.llm.deployment.order import Order
from rolecall.serving.llm.errors import EngineBusyError
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.llm.statistics import Statistics

SCRAPE_S = 5.0
"""How long metrics wait for a replica."""
_LOG = logging.getLogger("rolecall.serving.llm")


async def reach(handle: Any) -> RemoteEngine:
    """The engines behind a deployment's handle, once one of them is ready."""
    return RemoteEngine(handle, await handle.facts.remote())


class RemoteEngine:
    """One streaming call for each `open`: the replica is chosen by the deployment's router, and to cancel the call is
    to cancel the requests. `handle`: of Ray Serve, or what behaves like it."""

    def __init__(self, handle: Any, facts: EngineFacts) -> None:
        self._handle = handle
        # Plain pickles over gRPC: half the cost of a message by cloudpickle, a tenth of one through Ray's object store.
        self._generate = handle.generate.options(
            stream=True, _by_reference=False, request_serialization="pickle", response_serialization="pickle"
        )
        self._facts = facts
        self._closed = False
        self._hearing: set[asyncio.Task[None]] = set()
        self._told: dict[str, Statistics] = {}

    @property
    def facts(self) -> EngineFacts:
        """As the replicas told; they run the same model by the same settings."""
        return self._facts

    @property
    def alive(self) -> bool:
        """Whether requests are taken. Replicas that end are replaced by Serve, which is no matter of this side."""
        return not self._closed

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
        """As `EngineClient.open`. Where every replica is full or gone, EngineBusyError or EngineStoppedError."""
        if self._closed:
            raise EngineStoppedError("the engine is stopping")
        constraint = parameters.constraint
        if constraint is not None and not isinstance(constraint, GrammarConstraint):
            raise ValueError(f"constraint: got a {type(constraint).__name__}; allowed: one of Grammars")
        order = Order(
            prompts=prompts,
            parameters=replace(parameters, constraint=None),
            grammar=None if constraint is None else constraint.grammar,
            priority=priority,
            timeout_s=timeout_s,
            salt=salt,
        )
        answers = self._generate.remote(order)
        try:
            first = await anext(answers)
        except asyncio.CancelledError:
            answers.cancel()
            raise
        except Exception as error:
            raise _told(error) from error
        if isinstance(first, Exception):
            raise first
        hearing = asyncio.create_task(_hear(answers, queue))
        self._hearing.add(hearing)
        hearing.add_done_callback(self._hearing.discard)

        def leave() -> None:
            answers.cancel()
            hearing.cancel()

        return Opened(request_ids=first, leave=leave)

    async def statistics(self) -> Mapping[str, Statistics]:
        """Of all replicas; what they told last where one of them does not answer soon, until Serve has replaced it."""
        try:
            asked = self._handle.broadcast("statistics")
            told = await asked.results_async(timeout_s=SCRAPE_S, return_exceptions=True)
        except TimeoutError:
            return self._told
        except Exception as error:
            raise _told(error) from error
        self._told = dict(sorted(one for one in told if not isinstance(one, BaseException)))
        return self._told

    def close(self, *, patience_s: float = 0.0) -> None:
        """Take no more requests. The engines are other processes, which Serve ends."""
        self._closed = True


async def _hear(answers: Any, queue: News) -> None:
    try:
        async for outputs in answers:
            queue.put_nowait(outputs)
    except Exception:  # noqa: BLE001 - of Ray's many: whatever broke, no more comes, and the caller is told so
        _LOG.exception("a replica of the language model ended amid an answer")
        queue.put_nowait(None)


def _told(error: Exception) -> Exception:
    """Ray's errors in the words of `EngineClient`."""
    from ray.serve.exceptions import BackPressureError

    if isinstance(error, BackPressureError):
        return EngineBusyError("every replica of the language model is full", retry_after=1.0)
    _LOG.warning("no replica of the language model answers: %s", error)
    return EngineStoppedError("no replica of the language model answers; the server's log says why")
