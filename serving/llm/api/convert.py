"""From a request's fields to what the engine samples by."""

from __future__ import annotations

from rolecall.serving.llm.api.errors import OpenAIError
from rolecall.serving.llm.api.grammar import ANY_OBJECT, Grammars
from rolecall.serving.llm.api.requests import (
    ChatRequest,
    CompletionRequest,
    PlainFormat,
    ResponseFormat,
    SchemaFormat,
)
from rolecall.serving.llm.request import SEEDS, Constraint, SamplingParameters

Sampled = ChatRequest | CompletionRequest


def chat_parameters(request: ChatRequest, grammars: Grammars) -> SamplingParameters:
    """Raises OpenAIError 400 for a schema that cannot be enforced."""
    wanted = None if not request.logprobs else request.top_logprobs or 0
    return _parameters(
        request,
        max_tokens=request.most_tokens,
        logprobs=wanted,
        constraint=_constraint(request.response_format, grammars),
    )


def text_parameters(request: CompletionRequest) -> SamplingParameters:
    """`echo` with `logprobs` scores the prompt too."""
    return _parameters(
        request,
        max_tokens=request.max_tokens,
        logprobs=request.logprobs,
        prompt_logprobs=request.logprobs if request.echo else None,
    )


def _parameters(
    request: Sampled,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
    constraint: Constraint | None = None,
) -> SamplingParameters:
    return SamplingParameters(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=max(request.top_k or 0, 0),
        min_p=request.min_p or 0.0,
        repetition_penalty=1.0 if request.repetition_penalty is None else request.repetition_penalty,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        seed=None if request.seed is None else request.seed % SEEDS,
        logit_bias={int(token): bias for token, bias in (request.logit_bias or {}).items()},
        max_tokens=max_tokens,
        stop=request.stops,
        stop_token_ids=tuple(request.stop_token_ids or ()),
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        n=request.choices,
        constraint=constraint,
    )


def _constraint(wanted: ResponseFormat | None, grammars: Grammars) -> Constraint | None:
    if wanted is None or isinstance(wanted, PlainFormat):
        return None
    schema = wanted.json_schema.definition if isinstance(wanted, SchemaFormat) else ANY_OBJECT
    try:
        return grammars.json(schema)
    except ValueError as error:
        raise OpenAIError(
            400, f"the schema cannot be enforced: {error}", param="response_format", code="invalid_schema"
        ) from error
