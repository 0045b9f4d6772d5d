"""From a loaded model to an engine that serves it."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rolecall.serving.llm.admission import Words
from rolecall.serving.llm.cache_plan import SHARE, CachePlan, free_bytes, plan_cache
from rolecall.serving.llm.draft import Draft, PromptLookup
from rolecall.serving.llm.engine import EngineOptions, LLMEngine
from rolecall.serving.llm.first_layers import FirstLayers
from rolecall.serving.llm.loading import LoadedModel
from rolecall.serving.llm.model_runner import ModelRunner
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
    model: LoadedModel,
    options: EngineOptions,
    *,
    context: int = 0,
    cache_bytes: int | None = None,
    block_size: int = 16,
) -> CachePlan:
    """The cache a model gets: `cache_bytes`, else a share of the free memory.

    `context`: tokens one sequence may have; 0 for all that the model was trained for, which is the most. Raises
    ValueError where the cache is too small for one context.
    """
    weights = model.weights
    return plan_cache(
        token_bytes=model.config.cache_bytes(weights.dtype) // weights.ranks.size,
        context=min(model.context_length, context or model.context_length),
        budget=int(free_bytes(weights.device) * SHARE) if cache_bytes is None else cache_bytes,
        block_size=block_size,
        sequences=options.max_sequences,
    )


def words_of(model: LoadedModel, context: int = 0) -> Words:
    """What the engine needs to know of a model's tokens; `context` as for `plan_for`."""
    return Words(
        vocabulary=model.config.vocabulary,
        context=context or model.context_length,
        eos=model.eos_ids,
        tokenizer=None if model.tokenizer is None else PlainText(model.tokenizer),
    )


def open_engine(model: LoadedModel, plan: CachePlan, options: EngineOptions) -> LLMEngine:
    """An engine over the model with a cache as planned. Raises ValueError for more `draft_layers` than it has."""
    runner = ModelRunner(model, blocks=plan.blocks, block_size=plan.block_size)
    return LLMEngine(runner, words_of(model, plan.context), options, draft=_draft(runner, options))


def _draft(runner: ModelRunner, options: EngineOptions) -> Draft | None:
    lookup = PromptLookup() if options.draft in ("lookup", "both") else None
    if options.draft in ("none", "lookup"):
        return lookup
    layers, most = options.draft_layers, runner.model.config.layers
    if not 1 <= layers <= most:
        raise ValueError(f"draft_layers: got {layers}; allowed: 1 to {most}, which the model has")
    return FirstLayers(runner.run, Sampler(runner.model.eos_ids), layers=layers, lookup=lookup)
