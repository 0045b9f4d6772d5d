"""What crosses the wire, byte for byte, and what a client that leaves sets free."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from rolecall.serving.llm.api.service import LLMService
from rolecall.serving.llm.statistics import Statistics

LONG: dict[str, Any] = {
    "model": "little",
    "messages": [{"role": "user", "content": "tell"}],
    "temperature": 1.0,
    "ignore_eos": True,
    "max_tokens": 200,
}


def test_a_stream_is_server_sent_events_and_ends_in_done(url: str) -> None:
    body = LONG | {"stream": True, "max_tokens": 3}
    with httpx.stream("POST", f"{url}/chat/completions", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = "".join(reply.iter_text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"][0]["delta"] == {}
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_sets_its_memory_free(url: str, service: LLMService, stream: bool) -> None:
    """Also while it waits in the queue: more requests than run at once are left at the same moment."""
    before, after = asyncio.run(leave(url, service, stream))
    assert after.generated_tokens - before.generated_tokens < 4 * 4 * LONG["max_tokens"]
    assert after.blocks_free == after.blocks


async def leave(url: str, service: LLMService, stream: bool) -> tuple[Statistics, Statistics]:
    """The engine before requests came, and once none of those that were left runs or waits any more."""
    before = await service.loop.stats()
    async with httpx.AsyncClient(timeout=30) as client:
        asking = [
            asyncio.ensure_future(client.post(f"{url}/chat/completions", json=LONG | {"stream": stream, "n": 4}))
            for _ in range(4)
        ]
        while (await service.loop.stats()).running < 2:
            await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    while (after := await service.loop.stats()).running or after.waiting:
        await asyncio.sleep(0)
    return before, after


def test_a_full_queue_is_refused_with_the_time_to_come_back(url: str) -> None:
    replies = asyncio.run(flood(url, 16))
    refused = [reply for reply in replies if reply.status_code == 429]
    assert refused
    assert len(refused) < len(replies)
    for reply in refused:
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.json()["error"]["type"] == "rate_limit_error"
    assert all(len(reply.json()["choices"]) == 16 for reply in replies if reply.status_code == 200)


async def flood(url: str, requests: int) -> list[httpx.Response]:
    body = LONG | {"n": 16, "max_tokens": 100}
    async with httpx.AsyncClient(timeout=60) as client:
        return await asyncio.gather(*(client.post(f"{url}/chat/completions", json=body) for _ in range(requests)))


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"not json", 400), (b"[]", 400), (b"{}", 400), (b'{"model": 5}', 400), (b"\xff\xfe", 400)],
)
def test_a_body_that_cannot_be_read_is_answered_in_openais_shape(url: str, content: bytes, status: int) -> None:
    reply = httpx.post(f"{url}/chat/completions", content=content, headers={"content-type": "application/json"})
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_tokens_are_counted_as_they_will_be(url: str, service: LLMService) -> None:
    text = "The nurse works nights"
    told = httpx.post(f"{url}/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert told["count"] == len(told["tokens"])
    assert "".join(told["token_strs"]) == text
    messages = [{"role": "user", "content": text}]
    told = httpx.post(f"{url}/tokenize", json={"messages": messages}).json()
    assert told["tokens"] == service.texts.chat(messages)
    assert told["max_model_len"] == service.context
