"""OpenAI's Python client against our server: every endpoint and parameter, replies parsed by its own types."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rolecall.serving.llm.api.service import LLMService

MODEL = "little"
HELLO: list[Any] = [{"role": "user", "content": "What does a welder do?"}]
FEW = {"model": MODEL, "max_tokens": 8, "temperature": 0.0}


def chat(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**({"messages": HELLO} | FEW | more))


def complete(client: openai.OpenAI, **more: Any) -> Any:
    return client.completions.create(**({"prompt": "A welder joins"} | FEW | more))


def test_models_are_listed_and_found_by_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "rolecall"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-4")
    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"


def test_a_reply_counts_what_it_used(client: openai.OpenAI, service: LLMService) -> None:
    reply = chat(client)
    prompt = len(service.texts.chat([{"role": "user", "content": HELLO[0]["content"]}]))
    assert reply.usage.prompt_tokens == prompt
    assert reply.usage.total_tokens == prompt + reply.usage.completion_tokens
    assert 1 <= reply.usage.completion_tokens <= 8
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.choices[0].message.role == "assistant"


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**40),
    temperature=st.floats(0, 2),
    top_p=st.floats(0.1, 1),
    penalties=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    choices=st.integers(1, 3),
    stops=st.lists(st.sampled_from(["e", "th", "\n", "a b"]), max_size=3),
    logprobs=st.none() | st.integers(0, 5),
)
def test_what_is_streamed_is_what_is_answered_at_once(
    client: openai.OpenAI,
    seed: int,
    temperature: float,
    top_p: float,
    penalties: tuple[float, float],
    choices: int,
    stops: list[str],
    logprobs: int | None,
) -> None:
    wishes: dict[str, Any] = {
        "seed": seed,
        "temperature": temperature,
        "top_p": top_p,
        "presence_penalty": penalties[0],
        "frequency_penalty": penalties[1],
        "n": choices,
        "stop": stops,
    }
    if logprobs is not None:
        wishes |= {"logprobs": True, "top_logprobs": logprobs}
    whole = chat(client, **wishes)
    texts, reasons, scores = [""] * choices, [None] * choices, [[] for _ in range(choices)]
    opened: set[int] = set()
    *chunks, last = chat(client, stream=True, stream_options={"include_usage": True}, **wishes)
    for chunk in chunks:
        assert chunk.usage is None
        choice = chunk.choices[0]
        assert reasons[choice.index] is None, "nothing follows the end of a choice"
        if choice.index not in opened:
            assert choice.delta.role == "assistant"
            assert choice.finish_reason is None
            opened.add(choice.index)
        if choice.finish_reason is not None:
            assert choice.delta.content is None
        texts[choice.index] += choice.delta.content or ""
        reasons[choice.index] = choice.finish_reason
        scores[choice.index] += choice.logprobs.content if choice.logprobs else []
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert not any(stop in text for text in texts for stop in stops)
    if logprobs is not None:
        assert scores == [choice.logprobs.content for choice in whole.choices]
        assert all(len(token.top_logprobs) == logprobs for tokens in scores for token in tokens)


def test_the_same_seed_says_the_same_and_another_does_not(client: openai.OpenAI) -> None:
    said = [chat(client, temperature=1.5, seed=seed, max_tokens=24).choices[0].message.content for seed in (1, 1, 2, 3)]
    assert said[0] == said[1]
    assert len(set(said)) > 1


def test_a_bias_forces_and_forbids(client: openai.OpenAI, service: LLMService) -> None:
    (wanted,) = service.texts.prompt("A", special=False)
    assert complete(client, logit_bias={str(wanted): 100}, max_tokens=4).choices[0].text == "AAAA"
    best = chat(client, max_tokens=1, logprobs=True, top_logprobs=1).choices[0].logprobs.content[0]
    (likeliest,) = [token for token in range(service.texts.size) if list(service.texts.raw(token)) == best.bytes]
    other = chat(client, max_tokens=1, logprobs=True, logit_bias={str(likeliest): -100}).choices[0]
    assert other.logprobs.content[0].bytes != best.bytes


def test_an_echo_scores_the_prompt(client: openai.OpenAI, service: LLMService) -> None:
    prompt = "The nurse works nights"
    reply = complete(client, prompt=prompt, echo=True, logprobs=2, max_tokens=3).choices[0]
    count = len(service.texts.prompt(prompt))
    assert reply.text.startswith(prompt)
    assert "".join(reply.logprobs.tokens) == reply.text
    assert reply.logprobs.token_logprobs[0] is None
    assert all(x <= 0 for x in reply.logprobs.token_logprobs[1:])
    assert reply.logprobs.text_offset == [len("".join(reply.logprobs.tokens[:n])) for n in range(count + 3)]
    only = complete(client, prompt=prompt, echo=True, logprobs=0, max_tokens=0).choices[0]
    assert only.text == prompt
    assert len(only.logprobs.tokens) == count
    assert only.logprobs.token_logprobs[1:] == pytest.approx(reply.logprobs.token_logprobs[1:count], abs=1e-3)


def test_prompts_may_be_several_and_may_be_tokens(client: openai.OpenAI, service: LLMService) -> None:
    texts = ["A welder", "The driver by day"]
    alone = [complete(client, prompt=text).choices[0].text for text in texts]
    together = complete(client, prompt=texts, n=2)
    assert [choice.index for choice in together.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in together.choices] == [alone[0], alone[0], alone[1], alone[1]]
    tokens = [service.texts.prompt(text) for text in texts]
    assert [choice.text for choice in complete(client, prompt=tokens).choices] == alone
    assert complete(client, prompt=tokens[0]).choices[0].text == alone[0]


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"age": {"type": "integer", "maximum": 99}}, "required": ["age"]},
    {"type": "object", "properties": {"kind": {"enum": ["day", "night"]}}, "required": ["kind"],
     "additionalProperties": False},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_schema_is_kept_to(client: openai.OpenAI, schema: dict[str, Any], temperature: float) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    reply = chat(client, response_format=wanted, max_tokens=120, temperature=temperature, seed=5).choices[0]
    if reply.finish_reason == "stop":
        jsonschema.validate(json.loads(reply.message.content), schema)
    else:
        assert reply.finish_reason == "length"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"temperature": 3.0}, "temperature"),
    ({"n": 0}, "n"),
    ({"reasoning_effort": "low"}, "reasoning_effort"),
    ({"logit_bias": {"999999": 1}}, None),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages"),
    ({"extra_body": {"what_is_this": 1}}, "what_is_this"),
    ({"max_tokens": 100_000}, None),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}},
     "response_format"),
]  # fmt: skip


@pytest.mark.parametrize(("wishes", "param"), REFUSED)
def test_what_is_not_supported_is_refused_by_name(
    client: openai.OpenAI, wishes: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **wishes)
    assert refused.value.type == "invalid_request_error"
    assert (refused.value.param or "").startswith(param or "")


def test_a_conversation_longer_than_the_context_is_refused_not_cut(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, messages=[{"role": "user", "content": "welder " * 400}])
    assert refused.value.code == "context_length_exceeded"
