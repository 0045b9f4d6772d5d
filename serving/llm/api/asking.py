"""From a body that was validated to an answer under way: what HTTP and files of requests share."""

from __future__ import annotations

from typing import Literal

from rolecall.serving.llm.api.answering import Answer, Wanted
from rolecall.serving.llm.api.convert import chat_parameters, text_parameters
from rolecall.serving.llm.api.replies import Envelope
from rolecall.serving.llm.api.requests import ChatRequest, CompletionRequest
from rolecall.serving.llm.api.service import Asked, LLMService, Running, reply_id


async def open_answer(service: LLMService, body: ChatRequest | CompletionRequest) -> tuple[Running, Answer]:
    """Queue what a body asks for. Leaving the `Running` cancels it. Raises OpenAIError as `LLMService.open`."""
    kind: Literal["chat", "text"] = "chat" if isinstance(body, ChatRequest) else "text"
    asked, wanted = await (_chat(service, body) if isinstance(body, ChatRequest) else _text(service, body))
    envelope = Envelope(
        kind=kind,
        id=reply_id(kind),
        model=service.name,
        fingerprint=service.fingerprint,
        with_usage=bool(body.stream_options and body.stream_options.include_usage),
    )
    running = await service.open(asked)
    return running, Answer(running, service.texts, envelope, wanted)


async def _chat(service: LLMService, body: ChatRequest) -> tuple[Asked, Wanted]:
    prompt = await service.chat_tokens([message.plain() for message in body.messages])
    parameters = await service.aside(chat_parameters, body, service.grammars, long=body.response_format is not None)
    asked = Asked(prompts=[prompt], parameters=parameters, priority=body.priority or 0, salt=body.cache_salt or "")
    return asked, Wanted(choices=body.choices, scored=bool(body.logprobs), ends=service.ends, prompts=[prompt])


async def _text(service: LLMService, body: CompletionRequest) -> tuple[Asked, Wanted]:
    prompts = await service.all_tokens(body.prompts)
    asked = Asked(
        prompts=prompts, parameters=text_parameters(body), priority=body.priority or 0, salt=body.cache_salt or ""
    )
    return asked, Wanted(
        choices=body.choices,
        scored=body.logprobs is not None,
        ends=service.ends,
        prompts=prompts,
        echoed=[p if isinstance(p, str) else service.texts.text(p) for p in body.prompts] if body.echo else None,
    )
