"""A refusal names the field by the path that the client wrote, and comes before the work it saves."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from rolecall.serving.llm.api.service import LLMService

HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a"}}
CHAT: list[tuple[dict[str, Any], str]] = [
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"messages": [*HELLO, {"role": "user"}]}, "messages.1.content"),
    ({"messages": [*HELLO, {"role": "tool", "content": "x"}]}, "messages.1.role"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]}, "messages.0.content.0.type"),
    ({"messages": [HELLO[0] | {"audio": 1}]}, "messages.0.audio"),
    ({"messages": HELLO, "stop": 5}, "stop"),
    ({"messages": HELLO, "stop": ["a", 5]}, "stop.1"),
    ({"messages": HELLO, "logit_bias": {"1": 5, "x": 1}}, "logit_bias.x"),
    ({"messages": HELLO, "response_format": {"type": "xml"}}, "response_format"),
    ({"messages": HELLO, "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {}}},
     "response_format.json_schema.name"),
    ({"messages": HELLO, "response_format": SCHEMA | {"strict": True}}, "response_format.strict"),
    ({"messages": HELLO, "stream": True, "stream_options": {"include_all": True}}, "stream_options.include_all"),
    ({"messages": HELLO, "x" * 500: 1}, "x" * 64),
    ({}, "messages"),
]  # fmt: skip
TEXT: list[tuple[Any, str]] = [
    (5, "prompt"),
    ([], "prompt"),
    ([1, "a"], "prompt.1"),
    (["a", 1], "prompt.1"),
    ([[1, 2], [3, "a"]], "prompt.1.1"),
    ([[1], []], "prompt.1"),
]


def refusal(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps({"model": "little"} | body).encode()
    reply = httpx.post(f"{url}/{path}", content=content, headers={"content-type": "application/json"}, timeout=60)
    assert reply.status_code == 400, reply.text
    error: dict[str, Any] = reply.json()["error"]
    return error


@pytest.mark.parametrize(("body", "field"), CHAT)
def test_a_field_of_a_chat_is_named_as_it_was_written(url: str, body: dict[str, Any], field: str) -> None:
    error = refusal(url, "chat/completions", body)
    assert error["param"] == field
    assert field in error["message"]


def test_a_name_that_is_no_text_is_refused(url: str) -> None:
    assert refusal(url, "chat/completions", {"messages": HELLO, "\ud800": 1})["code"] == "invalid_value"


@pytest.mark.parametrize(("prompt", "field"), TEXT)
def test_of_a_prompts_kinds_the_one_is_told_that_was_meant(url: str, prompt: Any, field: str) -> None:
    assert refusal(url, "completions", {"prompt": prompt})["param"] == field


@pytest.mark.parametrize("shape", [lambda ids: ids, lambda ids: [[1], ids]], ids=["one", "several"])
def test_token_ids_beyond_the_context_are_refused_before_any_is_looked_at(
    url: str, service: LLMService, shape: Any
) -> None:
    fits = refusal(url, "completions", {"prompt": shape([-1] * service.context)})
    beyond = refusal(url, "completions", {"prompt": shape([-1] * (service.context + 1))})
    assert (fits["code"], beyond["code"]) == ("invalid_value", "context_length_exceeded")
    assert beyond["param"] == "prompt"
