"""Whole files answered: by one actor's class alone, and by a pool of them in Ray Data."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from rolecall.platform.errors import InputError, NotFoundError
from rolecall.platform.ray_runtime import environment, ray_session
from rolecall.platform.settings import LLMSettings, RaySettings, Settings
from rolecall.serving.llm.api.routes import LLMRoutes
from rolecall.serving.llm.api.service import LLMService
from rolecall.serving.llm.batch_file.job import BatchJob, Progress, answer_batch, find_lines
from rolecall.serving.llm.batch_file.line import Reply
from rolecall.serving.llm.batch_file.source import open_source
from rolecall.serving.llm.batch_file.worker import LineAnswerer

GREEDY = {"model": "little", "temperature": 0.0, "max_tokens": 6}


def requests(count: int) -> list[dict[str, Any]]:
    """Chat and text in turn."""
    made: list[dict[str, Any]] = []
    for number in range(count):
        said = f"The nurse works {number} nights."
        chat = {"messages": [{"role": "user", "content": said}], **GREEDY}
        text = {"prompt": said, **GREEDY}
        url, body = ("/v1/chat/completions", chat) if number % 2 else ("/v1/completions", text)
        made.append({"custom_id": f"ask {number}", "method": "POST", "url": url, "body": body})
    return made


WRONG = [
    "no JSON",
    '{"custom_id": "other model", "method": "POST", "url": "/v1/completions", "body": {"model": "gpt", "prompt": "a"}}',
    '{"custom_id": "long", "prompt": "' + "ab " * 400 + '"}',
    '{"custom_id": "strange", "prompt": "a", "tools": []}',
]


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def said(body: dict[str, Any]) -> Any:
    """What a reply says, without what is of its moment: its id, and what happened to be cached."""
    choices = [
        (choice.get("text") or choice["message"]["content"], choice["finish_reason"]) for choice in body["choices"]
    ]
    return body["object"], body["model"], choices, body["usage"]["total_tokens"]


@pytest.fixture(scope="module")
def llm(model_folder: Path) -> LLMSettings:
    return LLMSettings(model=str(model_folder), name="little", compute="exact", cache_mb=1, max_sequences=4)


def test_an_actor_answers_as_the_server_does(service: LLMService, llm: LLMSettings, tmp_path: Path) -> None:
    asked = requests(12)
    source = open_source(str(write(tmp_path / "in.jsonl", [*asked[:6], *WRONG, *asked[6:]])), {})
    tables, _ = find_lines(source, set(), rows=5)
    answerer = LineAnswerer(source, llm)

    async def work() -> list[bytes]:
        made = await asyncio.gather(*map(answerer, tables))
        return [line for table in made for line in table["line"].to_pylist()]

    replies = [json.loads(line) for line in asyncio.run(work())]
    assert isinstance(answerer._service, LLMService)
    answerer._service.close(patience_s=0)
    assert [reply["custom_id"] for reply in replies] == [
        *(f"ask {number}" for number in range(6)),
        None, "other model", "long", "strange",
        *(f"ask {number}" for number in range(6, 12)),
    ]  # fmt: skip
    statuses = [reply["response"] and reply["response"]["status_code"] for reply in replies]
    assert statuses == [200] * 6 + [None, 404, 400, 400] + [200] * 6
    assert replies[6]["error"]["message"].startswith("line 7: no JSON")
    codes = [reply["response"]["body"]["error"]["code"] for reply in replies[7:10]]
    assert codes == ["model_not_found", "context_length_exceeded", "unsupported_parameter"]
    good = [said(reply["response"]["body"]) for reply in (*replies[:6], *replies[10:])]
    assert good == [said(body) for body in asyncio.run(over_http(service, asked))]


async def over_http(service: LLMService, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    app = FastAPI()
    app.include_router(LLMRoutes(lambda: service).router())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        return [(await client.post(line["url"], json=line["body"])).json() for line in asked]


@pytest.mark.slow
def test_a_file_is_gone_on_with_by_a_pool_of_engines(
    llm: LLMSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in environment(RaySettings(), Path("/h")):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    settings = Settings(home=tmp_path / "home", ray=RaySettings(haproxy=False, object_store_mb=80))
    asked = requests(20)
    source, target = write(tmp_path / "in.jsonl", [*asked, *WRONG]), tmp_path / "out.jsonl"
    before = [Reply(number=n, custom_id=f"ask {n}", status=200, body={}).line() for n in range(8)]
    target.write_bytes(b"".join(before)[:-9])
    job = BatchJob(source=str(source), target=str(target), llm=llm, engines=2, threads=1, resume=True)
    heard: list[Progress] = []
    with ray_session(settings.ray, settings.home):
        done = answer_batch(job, settings, heard.append)
        assert (done.lines, done.kept, done.answered, done.failed) == (24, 7, 13, 4)
        assert [step.answered + step.failed for step in heard] == [0, 4, 8, 12, 16, 17]
        assert target.read_bytes().startswith(b"".join(before[:7]))
        made = read(target)
        assert [line["custom_id"] for line in made[:20]] == [line["custom_id"] for line in asked]
        usage = [line["response"]["body"]["usage"] for line in made[7:20]]
        assert done.completion_tokens == sum(used["completion_tokens"] for used in usage) > 0
        with pytest.raises(InputError, match="so many has Ray"):
            answer_batch(replace(job, target=f"{target}2", threads=999), settings, heard.append)
        wrong = replace(job, target=f"{target}2", llm=llm.model_copy(update={"model": str(tmp_path / "no model")}))
        with pytest.raises(NotFoundError):
            answer_batch(wrong, settings, heard.append)
        assert not Path(wrong.target).exists()
