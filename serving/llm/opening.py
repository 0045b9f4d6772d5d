"""From a loaded model to an engine that serves it."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rolecall.serving.llm.admission import Words
from rolecall.serving.llm.cache_plan import SHARE, CachePlan, free_bytes, plan_cache
from rolecall.serving.llm.draft import PromptLookup
from rolecall.serving.llm.engine import EngineOptions, LLMEngine
from rolecall.serving.llm.loading import LoadedModel
from rolecall.serving.llm.model_runner import ModelRunner


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


def open_engine(model: LoadedModel, plan: CachePlan, options: EngineOptions) -> LLMEngine:
    """An engine over the model with a cache as planned."""
    words = Words(
        vocabulary=model.config.vocabulary,
        context=plan.context,
        eos=model.eos_ids,
        tokenizer=None if model.tokenizer is None else PlainText(model.tokenizer),
    )
    runner = ModelRunner(model, blocks=plan.blocks, block_size=plan.block_size)
    return LLMEngine(runner, words, options, draft=PromptLookup() if options.draft_tokens else None)
