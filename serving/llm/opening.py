"""From a loaded model to an engine that serves it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from rolecall.serving.llm.admission import Words
from rolecall.serving.llm.cache_plan import SHARE, CachePlan, free_bytes, plan_cache
from rolecall.serving.llm.draft import Draft, PromptLookup
from rolecall.serving.llm.engine import EngineOptions, LLMEngine, Runner
from rolecall.serving.llm.first_layers import FirstLayers
from rolecall.serving.llm.loading import ModelInfo, default_dtype
from rolecall.serving.llm.sampler import Sampler


class PlainText:
    """A model's tokenizer as the engine uses it: special tokens have no text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


def plan_for(
    model: ModelInfo,
    options: EngineOptions,
    *,
    device: torch.device | str = "cpu",
    ranks: int = 1,
    context: int = 0,
    cache_bytes: int | None = None,
    block_size: int = 16,
) -> CachePlan:
    """The cache a model gets, each of its `ranks`: `cache_bytes`, else a share of the free memory of `device`.

    `context`: tokens one sequence may have; 0 for all that the model was trained for, which is the most. Raises
    ValueError where the cache is too small for one context.
    """
    return plan_cache(
        token_bytes=model.config.cache_bytes(default_dtype(device)) // ranks,
        context=min(model.context_length, context or model.context_length),
        budget=int(free_bytes(torch.device(device)) * SHARE) if cache_bytes is None else cache_bytes,
        block_size=block_size,
        sequences=options.max_sequences,
    )


def words_of(model: ModelInfo, context: int = 0) -> Words:
    """What the engine needs to know of a model's tokens; `context` as for `plan_for`."""
    return Words(
        vocabulary=model.config.vocabulary,
        context=context or model.context_length,
        eos=model.eos_ids,
        tokenizer=None if model.tokenizer is None else PlainText(model.tokenizer),
    )


def open_engine(model: ModelInfo, plan: CachePlan, options: EngineOptions, runner: Runner) -> LLMEngine:
    """An engine over the model, run by `runner`, whose cache is as planned. Raises ValueError for more `draft_layers`
    than it has."""
    return LLMEngine(runner, words_of(model, plan.context), options, draft=_draft(model, options, runner))


def _draft(model: ModelInfo, options: EngineOptions, runner: Runner) -> Draft | None:
    lookup = PromptLookup() if options.draft in ("lookup", "both") else None
    if options.draft in ("none", "lookup"):
        return lookup
    layers, most = options.draft_layers, model.config.layers
    if not 1 <= layers <= most:
        raise ValueError(f"draft_layers: got {layers}; allowed: 1 to {most}, which the model has")
    return FirstLayers(runner.run, Sampler(model.eos_ids), layers=layers, lookup=lookup)
