"""From settings to a `VLLMEngine`. Like the engine it has never run: see there."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from rolecall.platform.errors import InputError, NotFoundError
from rolecall.platform.settings import LLMSettings
from rolecall.serving.llm.api.engine_client import EngineFacts
from rolecall.serving.llm.api.texts import Texts
from rolecall.serving.llm.engine import EngineOptions
from rolecall.serving.llm.loading import describe_model
from rolecall.serving.llm.opening import PlainText
from rolecall.serving.llm.vllm_engine.engine import VLLMEngine


def open_vllm(settings: LLMSettings, *, replica: str = "") -> tuple[VLLMEngine, Texts]:
    """vLLM over the model of these settings. Blocks for a minute or more. Raises NotFoundError where vLLM is not
    installed, InputError for settings that it does not take and for a model without tokenizer."""
    if importlib.util.find_spec("vllm") is None:
        raise NotFoundError("llm.backend is vllm, which is not installed", "llm.backend: rolecall", "pip install vllm")
    if settings.adapter:
        raise InputError("llm.adapter with llm.backend vllm", "a model without adapter, or llm.backend: rolecall")
    model = describe_model(settings.model)
    if model.tokenizer is None:
        raise InputError(f"model {settings.model} has no tokenizer", "a model that fits", "correct llm.model")
    arguments: Any = importlib.import_module("vllm.engine.arg_utils")
    engine = importlib.import_module("vllm.v1.engine.async_llm").AsyncLLM.from_engine_args(
        arguments.AsyncEngineArgs(
            model=settings.model,
            max_model_len=min(model.context_length, settings.context_tokens or model.context_length),
            max_num_seqs=settings.max_sequences,
            tensor_parallel_size=settings.tensor_parallel,
            enable_prefix_caching=True,
            scheduling_policy="priority",
        )
    )
    facts = EngineFacts(
        vocabulary=model.config.vocabulary,
        context=int(engine.model_config.max_model_len),
        ends=model.eos_ids,
        limits=EngineOptions(
            max_sequences=settings.max_sequences,
            max_waiting=settings.max_waiting_requests,
            max_waiting_tokens=settings.max_waiting_tokens,
        ),
    )
    texts = Texts(model.tokenizer, vocabulary=facts.vocabulary, end_ids=sorted(facts.ends))
    return VLLMEngine(engine, facts, PlainText(model.tokenizer), replica=replica), texts
