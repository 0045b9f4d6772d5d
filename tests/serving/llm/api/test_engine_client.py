"""One suite for engines wherever they run: on a thread of this process, or behind a handle of Ray Serve.

The handle here has no Ray behind it, and every message is pickled as it would be on the way;
tests/serving/test_llm_deployment.py asks a real one.
"""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rolecall.platform.settings import LLMSettings, Settings
from rolecall.serving.llm.api.engine_client import EngineClient, EngineFacts, EngineStoppedError, News, Opened
from rolecall.serving.llm.api.grammar import Grammars
from rolecall.serving.llm.api.opening import open_loop, open_texts
from rolecall.serving.llm.deployment.client import RemoteEngine, reach
from rolecall.serving.llm.deployment.replica import LLMReplica
from rolecall.serving.llm.errors import ContextOverflowError, EngineBusyError
from rolecall.serving.llm.output import Output, joined
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.llm.statistics import Statistics

PROMPT = list(range(3, 40))
GREEDY = SamplingParameters(temperature=0.0, max_tokens=12, ignore_eos=True)
ENDLESS = SamplingParameters(temperature=0.0, max_tokens=200, ignore_eos=True)
Use = Callable[[EngineClient], Awaitable[None]]


class Handle:
    """A deployment's handle with one replica in this process."""

    def __init__(self, replica: LLMReplica, name: str = "") -> None:
        self._replica, self._name = replica, name

    def __getattr__(self, name: str) -> Handle:
        return Handle(self._replica, name)

    def options(self, **_: Any) -> Handle:
        return self

    def remote(self, *arguments: Any) -> Any:
        made = getattr(self._replica, self._name)(*pickle.loads(pickle.dumps(arguments)))
        return made if asyncio.iscoroutine(made) else Answers(made)

    def broadcast(self, name: str) -> Handle:
        return Handle(self._replica, name)

    async def results_async(self, **_: Any) -> list[Any]:
        return [await self.remote()]


class Answers:
    """What a streaming call gives: cancelled, the generator behind it meets a CancelledError where it waits."""

    def __init__(self, made: AsyncIterator[Any]) -> None:
        self._ready: asyncio.Queue[Any] = asyncio.Queue()
        self._task = asyncio.create_task(self._pump(made))

    async def _pump(self, made: AsyncIterator[Any]) -> None:
        async for message in made:
            self._ready.put_nowait(pickle.dumps(message))
        self._ready.put_nowait(None)

    def __aiter__(self) -> Answers:
        return self

    async def __anext__(self) -> Any:
        message = await self._ready.get()
        if message is None:
            raise StopAsyncIteration
        return pickle.loads(message)

    def cancel(self) -> None:
        self._task.cancel()


@pytest.fixture(params=["inside", "deployment"])
def use(request: pytest.FixtureRequest, model_folder: Path) -> Callable[..., None]:
    """Runs a test's body with a fresh engine of some settings, and ends it."""

    async def inside(body: Use, settings: LLMSettings) -> None:
        loop, _ = await asyncio.to_thread(open_loop, settings)
        try:
            await body(loop)
        finally:
            loop.close()

    async def deployment(body: Use, settings: LLMSettings) -> None:
        replica = LLMReplica.__new__(LLMReplica)
        await replica.__init__(Settings(llm=settings), "r1")  # type: ignore[misc]  # as Serve does
        client = await reach(Handle(replica))
        try:
            await body(client)
        finally:
            client.close()
            replica.close()

    def run(body: Use, **options: Any) -> None:
        settings = LLMSettings(model=str(model_folder), compute="exact", **({"cache_mb": 1} | options))
        asyncio.run({"inside": inside, "deployment": deployment}[request.param](body, settings))

    return run


async def told(opened: Opened, queue: News, choices: int) -> dict[str, list[Output]]:
    """All outputs by request."""
    news: dict[str, list[Output]] = {name: [] for name in opened.request_ids}
    while choices:
        outputs = await asyncio.wait_for(queue.get(), 60)
        if outputs is None:
            raise EngineStoppedError
        for output in outputs:
            news[output.request_id].append(output)
            choices -= output.finish_reason is not None
    return news


async def tokens(engine: EngineClient, prompt: Sequence[int], parameters: SamplingParameters, **more: Any) -> list[int]:
    queue: News = asyncio.Queue()
    opened = await engine.open([prompt], parameters, queue, **more)
    (outputs,) = (await told(opened, queue, 1)).values()
    return joined("r", 1, outputs).completions[0].token_ids


async def only(engine: EngineClient) -> Statistics:
    (counts,) = (await engine.statistics()).values()
    return counts


async def idle(engine: EngineClient) -> Statistics:
    """Once nothing waits or runs. Asking yields to the engine's thread: no time is waited out."""
    while (counts := await only(engine)).running or counts.waiting:
        await asyncio.sleep(0)
    return counts


def test_prompts_of_one_request_are_answered_together_each_by_its_own_id(use: Callable[..., None]) -> None:
    async def body(engine: EngineClient) -> None:
        prompts = [PROMPT, PROMPT[5:], PROMPT[::-1]]
        alone = [await tokens(engine, prompt, GREEDY) for prompt in prompts]
        queue: News = asyncio.Queue()
        parameters = SamplingParameters(temperature=0.0, max_tokens=12, ignore_eos=True, n=2, logprobs=1)
        opened = await engine.open(prompts, parameters, queue)
        news = await told(opened, queue, 6)
        made = [joined("r", 2, news[name]) for name in opened.request_ids]
        assert [[one.token_ids for one in each.completions] for each in made] == [[a, a] for a in alone]
        assert all(token.logprob is not None for each in made for one in each.completions for token in one.tokens)

    use(body)


def test_what_cannot_be_served_is_refused_with_its_reason_and_leaves_nothing(use: Callable[..., None]) -> None:
    async def body(engine: EngineClient) -> None:
        queue: News = asyncio.Queue()
        before = await only(engine)
        too_long = SamplingParameters(max_tokens=100_000)
        with pytest.raises(ContextOverflowError, match="100000"):
            await engine.open([PROMPT], too_long, queue)
        with pytest.raises(ValueError, match="empty prompt"):
            await engine.open([PROMPT, []], GREEDY, queue)
        with pytest.raises(ValueError, match="allowed: 0 to"):
            await engine.open([[engine.facts.vocabulary]], GREEDY, queue)
        counts = await idle(engine)
        assert counts.blocks_free == counts.blocks
        assert counts.generated_tokens == before.generated_tokens
        assert queue.empty()

    use(body)


def test_a_full_queue_refuses_all_prompts_of_a_request_or_none(use: Callable[..., None]) -> None:
    async def body(engine: EngineClient) -> None:
        queue: News = asyncio.Queue()
        running = [await engine.open([PROMPT], ENDLESS, queue) for _ in range(2)]
        with pytest.raises(EngineBusyError) as refused:
            await engine.open([PROMPT] * 8, ENDLESS, queue)
        assert refused.value.retry_after >= 1
        counts = await only(engine)
        assert counts.running + counts.waiting <= len(running)
        for opened in running:
            opened.leave()
        counts = await idle(engine)
        assert counts.blocks_free == counts.blocks

    use(body, max_waiting_requests=2, max_sequences=1)


@pytest.mark.parametrize("stage", ["asking", "waiting", "running"])
def test_who_leaves_sets_memory_free_at_every_stage(use: Callable[..., None], stage: str) -> None:
    async def body(engine: EngineClient) -> None:
        queue: News = asyncio.Queue()
        if stage == "asking":
            asking = asyncio.create_task(engine.open([PROMPT] * 3, ENDLESS, queue))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        else:
            first = await engine.open([PROMPT], ENDLESS, queue)
            waits = await engine.open([PROMPT[1:]], ENDLESS, queue)
            await queue.get()
            (waits if stage == "waiting" else first).leave()
            (first if stage == "waiting" else waits).leave()
            first.leave()
        counts = await idle(engine)
        assert counts.blocks_free == counts.blocks
        assert counts.generated_tokens < 2 * ENDLESS.max_tokens  # type: ignore[operator]

    use(body, max_sequences=1)


def test_the_more_urgent_goes_first_and_the_late_are_told(use: Callable[..., None]) -> None:
    async def body(engine: EngineClient) -> None:
        first: News = asyncio.Queue()
        holding = await engine.open([PROMPT], ENDLESS, first)
        shared: News = asyncio.Queue()
        calm = await engine.open([PROMPT[1:]], GREEDY, shared, priority=5)
        urgent = await engine.open([PROMPT[2:]], GREEDY, shared, priority=-5)
        late: News = asyncio.Queue()
        opened = await engine.open([PROMPT[3:]], GREEDY, late, timeout_s=0.0)
        (outputs,) = (await told(opened, late, 1)).values()
        assert outputs[-1].finish_reason == "deadline"
        holding.leave()
        order: list[str] = []
        while len(order) < 2:
            for output in await shared.get() or ():
                if output.request_id not in order:
                    order.append(output.request_id)
        assert order == [*urgent.request_ids, *calm.request_ids]

    use(body, max_sequences=1)


def test_a_prefix_is_shared_within_a_salt_alone(use: Callable[..., None]) -> None:
    async def body(engine: EngineClient) -> None:
        seen = []
        for salt in ("a", "a", "b"):
            await tokens(engine, PROMPT, GREEDY, salt=salt)
            seen.append((await only(engine)).cached_tokens)
        assert 0 == seen[0] < seen[1] == seen[2]

    use(body)


def test_a_grammar_binds_where_the_engine_runs(use: Callable[..., None], model_folder: Path) -> None:
    async def body(engine: EngineClient) -> None:
        texts = open_texts(LLMSettings(model=str(model_folder)), engine.facts)
        schema = {"type": "object", "properties": {"a": {"enum": ["yes", "no"]}}, "required": ["a"]}
        constraint = Grammars(texts.grammar_tokens, vocabulary=engine.facts.vocabulary).json(
            schema | {"additionalProperties": False}
        )
        parameters = SamplingParameters(temperature=1.0, seed=1, max_tokens=40, constraint=constraint)
        made = await tokens(engine, PROMPT, parameters)
        assert json.loads(texts.text([token for token in made if token not in engine.facts.ends]))["a"] in ("yes", "no")

    use(body)


def test_once_closed_nothing_is_taken(use: Callable[..., None]) -> None:
    async def body(engine: EngineClient) -> None:
        assert engine.alive
        engine.close()
        assert not engine.alive
        with pytest.raises(EngineStoppedError):
            await engine.open([PROMPT], GREEDY, asyncio.Queue())

    use(body)


class HungHandle:
    """A handle to replicas of which one stops answering after it told its counts once."""

    def __init__(self) -> None:
        self.generate, self.told = self, [[("r1", "one"), ("r2", "two")]]

    def options(self, **_: Any) -> HungHandle:
        return self

    def broadcast(self, _: str) -> HungHandle:
        return self

    async def results_async(self, **_: Any) -> list[Any]:
        if not self.told:
            raise TimeoutError
        return self.told.pop()


def test_a_replica_that_hangs_takes_no_counts_of_others_with_it() -> None:
    engine = RemoteEngine(HungHandle(), EngineFacts.__new__(EngineFacts))
    first, later = asyncio.run(engine.statistics()), asyncio.run(engine.statistics())
    assert later == first == {"r1": "one", "r2": "two"}
