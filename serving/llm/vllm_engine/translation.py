"""Between the engine's own words and vLLM's. Written against vLLM 0.33.0; its classes are imported when asked for.

vLLM ends a text before its stop strings, keeps the end-of-text token among the tokens, leaves special tokens out of the
text and reports raw log-probabilities, as ours does: so most fields mean the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from rolecall.serving.llm.output import Output, Timing, Token
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.llm.sequence import FinishReason

_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop", "length": "length", "repetition": "stop", "abort": "cancelled", "error": "error",
}  # fmt: skip


def sampling_params(parameters: SamplingParameters, *, room: int) -> Any:
    """As a `vllm.SamplingParams` whose outputs come as differences. `room`: tokens that the context has left.

    Raises ValueError naming what vLLM cannot do, or what this translation does not reach.
    """
    vllm: Any = importlib.import_module("vllm.sampling_params")
    if parameters.constraint is not None:
        raise ValueError("response_format: constrained decoding is not supported with llm.backend vllm; leave it out")
    if parameters.max_tokens == 0:
        raise ValueError("max_tokens: got 0; vLLM makes at least 1 token (llm.backend vllm)")
    return vllm.SamplingParams(
        n=parameters.n,
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        top_k=parameters.top_k,
        min_p=parameters.min_p,
        repetition_penalty=parameters.repetition_penalty,
        presence_penalty=parameters.presence_penalty,
        frequency_penalty=parameters.frequency_penalty,
        seed=parameters.seed,
        logit_bias=dict(parameters.logit_bias) or None,
        max_tokens=room if parameters.max_tokens is None else parameters.max_tokens,
        min_tokens=parameters.min_tokens,
        stop=list(parameters.stop),
        stop_token_ids=list(parameters.stop_token_ids),
        ignore_eos=parameters.never_ends,
        logprobs=parameters.logprobs,
        prompt_logprobs=parameters.prompt_logprobs,
        output_kind=vllm.RequestOutputKind.DELTA,
    )


def outputs(request_id: str, news: Any, parameters: SamplingParameters, timings: Mapping[int, Timing]) -> list[Output]:
    """A `vllm.RequestOutput` as ours, one for each choice that has news; `timings`: of the choices that it ends."""
    prompt = news.prompt_token_ids or ()
    scores = None
    if news.prompt_logprobs and parameters.prompt_logprobs is not None:
        scores = tuple(map(_scored, prompt, news.prompt_logprobs, [parameters.prompt_logprobs] * len(prompt)))
    return [
        Output(
            request_id=request_id,
            index=one.index,
            tokens=_tokens(one.token_ids, one.logprobs, parameters.logprobs),
            text=one.text,
            finish_reason=None if one.finish_reason is None else _REASONS.get(one.finish_reason, "error"),
            prompt_tokens=len(prompt),
            cached_tokens=news.num_cached_tokens or 0,
            prompt_logprobs=scores if one.index == 0 else None,
            timing=timings.get(one.index),
        )
        for one in news.outputs
    ]


def _tokens(ids: Sequence[int], scores: Sequence[Any] | None, most: int | None) -> tuple[Token, ...]:
    if scores is None or most is None:
        return tuple(Token(token=token) for token in ids)
    found = (_scored(token, score, most) for token, score in zip(ids, scores, strict=True))
    return tuple(token for token in found if token is not None)


def _scored(token: int, scores: Mapping[int, Any] | None, most: int) -> Token | None:
    """A token at a place where these had the log-probabilities; None for the first of a prompt, which has none."""
    if scores is None:
        return None
    best = sorted(((other, float(one.logprob)) for other, one in scores.items()), key=lambda pair: -pair[1])
    return Token(token=token, logprob=float(scores[token].logprob), top=tuple(best[:most]))
