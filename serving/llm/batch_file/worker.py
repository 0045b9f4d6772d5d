"""One engine in a Ray Data actor: lines by their places in, answers out, all lines under way batched together."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pyarrow as pa

from rolecall.platform.errors import RoleCallError
from rolecall.platform.settings import LLMSettings
from rolecall.serving.llm.api.asking import open_answer
from rolecall.serving.llm.api.errors import OpenAIError
from rolecall.serving.llm.api.opening import open_llm
from rolecall.serving.llm.api.service import LLMService
from rolecall.serving.llm.batch_file.line import LineError, Reply, custom_id_of, fields_of, no_request, request_of
from rolecall.serving.llm.batch_file.source import Source

REPLIES = pa.schema(
    {
        "line": pa.large_binary(),
        "answered": pa.bool_(),
        "prompt_tokens": pa.int64(),
        "completion_tokens": pa.int64(),
    }
)
UNAVAILABLE = 503
PATIENCE: dict[str, Any] = {
    # Nobody waits at the other end: what a server would refuse is queued, and nothing is cut short.
    "max_waiting_requests": 2**31,
    "max_waiting_tokens": 2**31,
    "timeout_s": 86_400.0,
}


class LineAnswerer:
    """The actor. Its calls share the engine: while one table's last lines are answered, the next one's begin."""

    def __init__(self, source: Source, settings: LLMSettings) -> None:
        self._source = source
        self._service: LLMService | RoleCallError
        try:
            self._service = open_llm(settings.model_copy(update=PATIENCE))
        except RoleCallError as error:  # of an actor that dies at its birth Ray tells the text alone
            self._service = error

    async def __call__(self, places: pa.Table) -> pa.Table:
        """REPLIES to the lines at PLACES, in order. Raises RuntimeError where the engine stopped, and as `open_llm`."""
        if isinstance(self._service, RoleCallError):
            raise self._service
        texts = await asyncio.to_thread(self._source.read, places)
        numbers = places["number"].to_pylist()
        replies = await asyncio.gather(*map(partial(self._reply, self._service), numbers, texts))
        usage = [reply.body.get("usage", {}) if reply.answered else {} for reply in replies]
        return pa.table(
            {
                "line": [reply.line() for reply in replies],
                "answered": [reply.answered for reply in replies],
                "prompt_tokens": [used.get("prompt_tokens", 0) for used in usage],
                "completion_tokens": [used.get("completion_tokens", 0) for used in usage],
            },
            schema=REPLIES,
        )

    async def _reply(self, service: LLMService, number: int, text: bytes) -> Reply:
        name = None
        try:
            fields = fields_of(text)
            name = custom_id_of(fields, number)
            body = request_of(fields, service.name)
            service.check_model(body.model)
            running, answer = await open_answer(service, body)
            async with running:
                return Reply(number=number, custom_id=name, status=200, body=await answer.whole())
        except LineError as error:
            return no_request(number, name, str(error))
        except OpenAIError as error:
            if error.status == UNAVAILABLE:
                raise RuntimeError(f"line {number}: {error.message}") from error
            return Reply(number=number, custom_id=name, status=error.status, body=error.body())
