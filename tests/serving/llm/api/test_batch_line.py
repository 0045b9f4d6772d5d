"""Lines: what is a request, what is not, and what is told of either."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.serving.llm.api.errors import OpenAIError
from rolecall.serving.llm.api.requests import ChatRequest, CompletionRequest
from rolecall.serving.llm.batch_file.line import LineError, Reply, custom_id_of, fields_of, no_request, request_of

NAMES = st.sampled_from(["custom_id", "method", "url", "body", "prompt", "messages", "max_tokens", "stream", "what"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["POST", "GET", "/v1/completions", "/v1/chat/completions", "/v1/embeddings", "user", ""])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
BODIES = st.fixed_dictionaries(
    {"model": st.just("m"), "prompt": st.text(max_size=9)},
    optional={"max_tokens": st.integers(1, 9), "seed": st.integers(0, 9), "temperature": st.floats(0, 2)},
)


@settings(max_examples=60)
@given(st.binary(max_size=30) | st.dictionaries(NAMES, VALUES, max_size=5).map(lambda made: json.dumps(made).encode()))
def test_whatever_a_line_holds_it_is_a_request_or_refused_with_a_reason(text: bytes) -> None:
    refusal: LineError | OpenAIError | None = None
    try:
        fields = fields_of(text)
        custom_id_of(fields, 1)
        asked = request_of(fields, "m")
    except (LineError, OpenAIError) as error:
        refusal = error
    if refusal is None:
        assert isinstance(asked, ChatRequest | CompletionRequest)
    else:
        assert refusal.status == 400 if isinstance(refusal, OpenAIError) else str(refusal)


@given(BODIES)
def test_a_plain_line_asks_what_its_body_asks_in_an_envelope(body: dict[str, Any]) -> None:
    envelope = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
    plain = {name: value for name, value in body.items() if name != "model"}
    assert request_of(envelope, "other") == request_of(plain, "m") == CompletionRequest.model_validate(body)
    assert (custom_id_of(envelope, 7), custom_id_of(plain, 7)) == ("a", "line-7")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"method": "POST", "url": "/v1/completions", "body": {}}, "custom_id"),
        ({"custom_id": "a", "method": "GET", "url": "/v1/completions", "body": {}}, "method"),
        ({"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {}}, "url"),
        ({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": []}, "body"),
        ({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {}, "more": 1}, "more"),
        ({"custom_id": "a"}, "no body, prompt or messages"),
        ({"custom_id": 7, "prompt": "a"}, "custom_id"),
        ({"custom_id": "", "prompt": "a"}, "custom_id"),
    ],
)
def test_a_wrong_envelope_is_named(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(LineError, match=told):
        request_of(fields, "m")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "a", "stream": True}, "stream"),
        ({"prompt": "a", "tools": []}, "tools"),
        ({"prompt": "a", "temperature": 3}, "temperature"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role"),
    ],
)
def test_a_wrong_body_is_refused_as_over_http(body: dict[str, Any], param: str) -> None:
    with pytest.raises(OpenAIError) as refused:
        request_of(body, "m")
    assert (refused.value.status, refused.value.param) == (400, param)


def test_an_answer_has_a_response_or_an_error_never_both() -> None:
    made = Reply(number=3, custom_id="a", status=200, body={"id": "cmpl-1"})
    told = json.loads(made.line())
    assert set(told) == {"id", "custom_id", "response", "error"}
    assert set(told["response"]) == {"status_code", "request_id", "body"}
    assert told["error"] is None
    told = json.loads(no_request(3, None, "no JSON").line())
    assert (told["custom_id"], told["response"], told["error"]["line"]) == (None, None, 3)
