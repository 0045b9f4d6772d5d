"""Our words in vLLM's and back, with vLLM's own classes. No vLLM runs here: a stand-in says what it would say.

Skipped where vLLM does not import. Its wheel's Python files are enough, and a few small packages that they import:

    pip install --no-deps --target vllm-site vllm==0.33.0
    pip install msgspec cbor2 openai_harmony pybase64 cachetools gguf py-cpuinfo pyzmq
    PYTHONPATH=infra/import_root:vllm-site python -m pytest tests/serving/llm/test_vllm_engine.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.serving.llm.api.engine_client import EngineFacts, News
from rolecall.serving.llm.engine import EngineOptions
from rolecall.serving.llm.errors import ContextOverflowError, EngineBusyError
from rolecall.serving.llm.output import Output, joined
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.llm.vllm_engine.engine import VLLMEngine
from rolecall.serving.llm.vllm_engine.translation import sampling_params

vllm_outputs = pytest.importorskip("vllm.outputs", reason="vLLM is not installed", exc_type=ImportError)
Logprob = pytest.importorskip("vllm.logprobs", reason="vLLM is not installed", exc_type=ImportError).Logprob

FACTS = EngineFacts(
    vocabulary=50, context=40, ends=frozenset({0}), limits=EngineOptions(max_sequences=4, max_waiting=4)
)
PARAMETERS = st.builds(
    SamplingParameters,
    temperature=st.floats(0, 2),
    top_p=st.floats(0.1, 1),
    top_k=st.integers(0, 50),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.1, 2),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    seed=st.none() | st.integers(0, 2**62),
    logit_bias=st.dictionaries(st.integers(0, 49), st.floats(-100, 100), max_size=3),
    max_tokens=st.none() | st.integers(1, 30),
    stop=st.lists(st.text(min_size=1, max_size=4), max_size=3).map(tuple),
    stop_token_ids=st.lists(st.integers(0, 49), max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    logprobs=st.none() | st.integers(0, 5),
    prompt_logprobs=st.none() | st.integers(0, 5),
)


@settings(max_examples=50)
@given(PARAMETERS, st.integers(1, 3))
def test_every_parameter_arrives(parameters: SamplingParameters, choices: int) -> None:
    if parameters.temperature < 1e-2:  # vLLM takes what is nearly 0 for 0.01, and refuses n > 1 at 0
        parameters, choices = replace(parameters, temperature=0.0), 1
    parameters = replace(parameters, n=choices)
    made = sampling_params(parameters, room=30)
    same = {"n", "temperature", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed"}
    same |= {"min_tokens", "ignore_eos", "logprobs", "prompt_logprobs"}
    same |= set() if parameters.temperature == 0 else {"top_p", "top_k", "min_p"}
    assert {name: getattr(made, name) for name in same} == {name: getattr(parameters, name) for name in same}
    assert made.max_tokens == (30 if parameters.max_tokens is None else parameters.max_tokens)
    assert (tuple(made.stop), set(made.stop_token_ids)) == (parameters.stop, set(parameters.stop_token_ids))
    assert (made.logit_bias or {}) == parameters.logit_bias
    assert made.output_kind.name == "DELTA"
    assert made.include_stop_str_in_output is False


def test_what_vllm_lacks_is_refused_by_name() -> None:
    class Anything:
        def allowed(self, generated: Any) -> Any:
            raise NotImplementedError

    with pytest.raises(ValueError, match="max_tokens"):
        sampling_params(SamplingParameters(max_tokens=0), room=9)
    with pytest.raises(ValueError, match="response_format"):
        sampling_params(SamplingParameters(constraint=Anything()), room=9)


class Speaker:
    """What stands in for `AsyncLLM`: says so many tokens of each choice, one at a time, or never ends."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.errored = False
        self.aborted: list[str] = []
        self.asked: list[Any] = []

    async def generate(self, prompt: Any, params: Any, request_id: str, *, priority: int) -> AsyncIterator[Any]:
        self.asked.append((prompt, priority))
        try:
            for place in range(self.length):
                for index in range(params.n):
                    await asyncio.sleep(0)
                    yield self._said(prompt["prompt_token_ids"], params, request_id, index, place)
            if not self.length:
                await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted.append(request_id)
            raise

    def _said(self, prompt: list[int], params: Any, request_id: str, index: int, place: int) -> Any:
        token = 10 * (index + 1) + place
        scores = {token: Logprob(-0.5, 2), 3: Logprob(-0.25, 1)} if params.logprobs is not None else None
        one = vllm_outputs.CompletionOutput(
            index=index, text=f"<{token}>", token_ids=[token], cumulative_logprob=None,
            logprobs=None if scores is None else [scores],
            finish_reason="length" if place == self.length - 1 else None,
        )  # fmt: skip
        return vllm_outputs.RequestOutput(request_id, None, prompt, None, [one], False, num_cached_tokens=2)

    def shutdown(self) -> None:
        self.errored = True


class Letters:
    """A tokenizer that is not asked."""

    def decode(self, ids: Any) -> str:
        raise NotImplementedError


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.none() | st.integers(0, 2), st.integers(1, 3))
def test_news_adds_up_to_what_was_said(length: int, choices: int, logprobs: int | None, prompts: int) -> None:
    parameters = SamplingParameters(n=choices, max_tokens=length, logprobs=logprobs)

    async def work() -> None:
        speaker, queue = Speaker(length), News()
        engine = VLLMEngine(speaker, FACTS, Letters())
        opened = await engine.open([[1, 2, 3]] * prompts, parameters, queue, priority=5, salt="mine")
        found: list[Output] = []
        while sum(output.finish_reason is not None for output in found) < prompts * choices:
            found += await queue.get() or ()
        assert speaker.asked == [({"prompt_token_ids": [1, 2, 3], "cache_salt": "mine"}, 5)] * prompts
        for name in opened.request_ids:
            generation = joined(name, choices, [output for output in found if output.request_id == name])
            assert (generation.prompt_tokens, generation.cached_tokens) == (3, 2)
            for completion in generation.completions:
                ids = [10 * (completion.index + 1) + place for place in range(length)]
                assert completion.token_ids == ids
                assert completion.text == "".join(f"<{token}>" for token in ids)
                top = None if logprobs is None else [(3, -0.25), (ids[0], -0.5)][:logprobs]
                assert completion.tokens[0].logprob == (None if logprobs is None else -0.5)
                assert list(completion.tokens[0].top) == (top or [])
        assert all((output.timing is not None) == (output.finish_reason is not None) for output in found)
        engine.close()

    asyncio.run(work())


def test_leaving_and_the_end_of_the_time_abort_the_request() -> None:
    async def work() -> None:
        speaker, queue = Speaker(0), News()
        engine = VLLMEngine(speaker, FACTS, Letters())
        opened = await engine.open([[1]], SamplingParameters(n=2), queue, timeout_s=0.01)
        late = await queue.get()
        assert [(output.index, output.finish_reason) for output in late or ()] == [(0, "deadline"), (1, "deadline")]
        left = await engine.open([[1]], SamplingParameters(), queue)
        await asyncio.sleep(0)
        left.leave()
        while len(speaker.aborted) < 2:
            await asyncio.sleep(0)
        assert speaker.aborted == [*opened.request_ids, *left.request_ids]
        assert queue.empty()
        engine.close()
        assert not engine.alive

    asyncio.run(work())


def test_what_does_not_fit_is_refused_before_vllm_is_asked() -> None:
    async def work() -> None:
        speaker, queue = Speaker(0), News()
        engine = VLLMEngine(speaker, FACTS, Letters())
        with pytest.raises(ContextOverflowError):
            await engine.open([[1] * 41], SamplingParameters(), queue)
        with pytest.raises(ValueError, match="token 50"):
            await engine.open([[50]], SamplingParameters(), queue)
        with pytest.raises(EngineBusyError):
            await engine.open([[1]] * 5, SamplingParameters(), queue)
        assert (speaker.asked, (await engine.statistics())[""].waiting) == ([], 0)
        engine.close()

    asyncio.run(work())
