"""OpenAI's paths, over one language model.

app.include_router(LLMRoutes(lambda: service).router())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.params import Depends
from starlette.responses import Response

from rolecall.serving.llm.api.answering import Answer
from rolecall.serving.llm.api.asking import open_answer
from rolecall.serving.llm.api.errors import OpenAIError
from rolecall.serving.llm.api.requests import ChatRequest, CompletionRequest, TokenizeRequest, most_ids
from rolecall.serving.llm.api.service import LLMService, Running
from rolecall.serving.llm.api.streaming import ClientLeftError, EventStream, until_left

Provider = Callable[[], LLMService | None]
CLIENT_LEFT = 499


class LLMRoutes:
    """The handlers. `service`: None while no model is loaded, which is answered 503; `created`: when it was, in
    seconds since 1970; `note`: told of texts that are personal."""

    def __init__(self, service: Provider, *, created: int = 0, note: Callable[..., None] = lambda *texts: None) -> None:
        self._provider = service
        self._created = created
        self._note = note

    def router(self, dependencies: Sequence[Depends] = ()) -> APIRouter:
        """All routes, under /v1."""
        router = APIRouter(prefix="/v1", dependencies=list(dependencies), tags=["language model"])
        refused: dict[int | str, dict[str, Any]] = {
            code: {"description": "OpenAI's error object"} for code in (400, 401, 404, 429, 503)
        }
        add = partial(router.add_api_route, responses=refused, response_model=None)
        add("/chat/completions", self.chat, methods=["POST"], summary="The next turn of a conversation")
        fits = [Depends(self.check_ids)]
        add("/completions", self.complete, methods=["POST"], summary="How a text goes on", dependencies=fits)
        add("/models", self.models, methods=["GET"], summary="The models that are served")
        add("/models/{name:path}", self.model, methods=["GET"], summary="One model")
        add("/tokenize", self.tokenize, methods=["POST"], summary="A text as the model's tokens")
        return router

    async def chat(self, request: Request, body: ChatRequest) -> Response:
        """As OpenAI's chat completions; whatever is not supported is refused by name."""
        self._note(*(message.plain()["content"] for message in body.messages))
        return await self._answer(request, body)

    async def check_ids(self, request: Request) -> None:
        """Refuse token ids that cannot fit before each of them is looked at, which would hold up everybody."""
        service = self._provider()
        if service is None:
            return
        try:
            count = most_ids(await request.json())
        except ValueError:  # not JSON: the body's own check says so
            return
        if count > service.context:
            told = f"got {count} prompt tokens; allowed: {service.context} together with those to come"
            raise OpenAIError(400, told, param="prompt", code="context_length_exceeded")

    async def complete(self, request: Request, body: CompletionRequest) -> Response:
        """As OpenAI's (legacy) completions, with `echo` and log-probabilities of the prompt."""
        self._note(*(prompt for prompt in body.prompts if isinstance(prompt, str)))
        return await self._answer(request, body)

    async def models(self) -> Response:
        """One: the model of this server."""
        return _json({"object": "list", "data": [self._card(self._service())]})

    async def model(self, name: str) -> Response:
        """404 for another name."""
        return _json(self._card(self._service(name)))

    async def tokenize(self, body: TokenizeRequest) -> Response:
        """`count`, `tokens`, and `max_model_len`, the most tokens that fit."""
        service = self._service(body.model)
        if body.messages is not None:
            tokens = await service.chat_tokens([message.plain() for message in body.messages])
        else:
            tokens = await service.tokens(body.prompt or "", special=body.add_special_tokens)
        told: dict[str, Any] = {"count": len(tokens), "max_model_len": service.context, "tokens": tokens}
        if body.return_token_strs:
            told["token_strs"] = [service.texts.shown(token) for token in tokens]
        return _json(told)

    async def _answer(self, request: Request, body: ChatRequest | CompletionRequest) -> Response:
        running, answer = await open_answer(self._service(body.model), body)
        if body.stream:
            return EventStream(answer.events(), running.close)
        return await _gathered(request, running, answer)

    def _service(self, name: str | None = None) -> LLMService:
        service = self._provider()
        if service is None:
            raise OpenAIError(503, "no language model is loaded", code="unavailable", retry_after_s=1)
        if name is not None:
            service.check_model(name)
        return service

    def _card(self, service: LLMService) -> dict[str, Any]:
        return {
            "id": service.name,
            "object": "model",
            "created": self._created,
            "owned_by": "rolecall",
            "max_model_len": service.context,
        }


async def _gathered(request: Request, running: Running, answer: Answer) -> Response:
    async with running:
        try:
            return _json(await until_left(request, answer.whole()))
        except ClientLeftError:
            return Response(status_code=CLIENT_LEFT)


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
