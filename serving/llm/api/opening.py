"""From settings to a language model that answers: loaded, its cache planned, warm."""

from __future__ import annotations

import logging
from pathlib import Path

from rolecall.platform.errors import InputError, NotFoundError, UnavailableError
from rolecall.platform.settings import LLMSettings
from rolecall.serving.llm.api.engine_client import EngineClient, EngineFacts
from rolecall.serving.llm.api.loop import EngineLoop
from rolecall.serving.llm.api.service import LLMService
from rolecall.serving.llm.api.texts import Texts
from rolecall.serving.llm.cache_plan import MIB, CachePlan
from rolecall.serving.llm.engine import EngineOptions, LLMEngine, Runner
from rolecall.serving.llm.errors import RankError
from rolecall.serving.llm.loading import LoadedModel, ModelInfo, describe_model, load_model
from rolecall.serving.llm.model_runner import ModelRunner
from rolecall.serving.llm.opening import open_engine, plan_for
from rolecall.serving.llm.request import SamplingParameters

_LOG = logging.getLogger("rolecall.serving.llm")


def open_llm(settings: LLMSettings, *, replica: str = "") -> LLMService:
    """The model of these settings, in this process. Raises as `open_loop`, and where `backend` is not installed."""
    if settings.backend == "vllm":
        from rolecall.serving.llm.vllm_engine.opening import open_vllm

        return serve(settings, *open_vllm(settings, replica=replica), replica=replica)
    loop, texts = open_loop(settings, replica=replica)
    return serve(settings, loop, texts, replica=replica)


def serve(settings: LLMSettings, loop: EngineClient, texts: Texts, *, replica: str = "") -> LLMService:
    """Answers over an engine, by the name that clients call its model."""
    name = settings.name or Path(settings.model).name
    return LLMService(name, loop, texts, timeout_s=settings.timeout_s, replica=replica)


def open_loop(settings: LLMSettings, *, replica: str = "") -> tuple[EngineLoop, Texts]:
    """The model of these settings, warm, and its tokens. Blocks for seconds. Raises NotFoundError where there is none,
    InputError where its files are wrong, it has no tokenizer, its sizes do not divide among the ranks, or the cache is
    too small for one request, UnavailableError where a rank finds no room or is lost."""
    if settings.backend != "rolecall":
        raise InputError(f"llm.backend {settings.backend} in a deployment of its own", "llm.placement: inside")
    try:
        model = _open_model(settings)
        if model.tokenizer is None:
            raise ValueError(f"model {model.name} has no tokenizer")
        texts = Texts(model.tokenizer, vocabulary=model.config.vocabulary, end_ids=sorted(model.eos_ids))
        engine = _open_engine(model, settings)
    except FileNotFoundError as error:
        raise NotFoundError(str(error), "a model's path or package", "correct llm.model") from error
    except RankError as error:
        allowed = "room on the cluster for every rank"
        raise UnavailableError(str(error), allowed, "add nodes, or lower llm.tensor_parallel") from error
    except ValueError as error:
        raise InputError(str(error), "a model that fits", "correct the settings below llm") from error
    return EngineLoop(engine, threads=settings.threads, replica=replica), texts


def open_texts(settings: LLMSettings, facts: EngineFacts) -> Texts:
    """The tokens of a model that is loaded elsewhere: of its files only the tokenizer is read."""
    words = describe_model(settings.model).tokenizer
    if words is None:
        raise InputError(f"model {settings.model} has no tokenizer", "a model that fits", "correct llm.model")
    return Texts(words, vocabulary=facts.vocabulary, end_ids=sorted(facts.ends))


def _open_model(settings: LLMSettings) -> ModelInfo:
    """With its weights, unless they are for the ranks to load."""
    if settings.tensor_parallel > 1:
        return describe_model(settings.model)
    return load_model(
        settings.model, compute=settings.compute, adapter=settings.adapter or None, device=settings.device
    )


def _open_runner(model: ModelInfo, plan: CachePlan, settings: LLMSettings) -> Runner:
    if isinstance(model, LoadedModel):
        return ModelRunner(model, blocks=plan.blocks, block_size=plan.block_size)
    from rolecall.serving.llm.parallel.rank import Shared
    from rolecall.serving.llm.parallel.runner import ParallelRunner

    shared = Shared(
        path=settings.model,
        size=settings.tensor_parallel,
        blocks=plan.blocks,
        block_size=plan.block_size,
        compute=settings.compute,
        adapter=settings.adapter or None,
        device=settings.device,
    )
    return ParallelRunner(shared, cpus=settings.threads or 1)


def _open_engine(model: ModelInfo, settings: LLMSettings) -> LLMEngine:
    """An engine over the model, after one request. Raises ValueError where the cache is too small."""
    options = EngineOptions(
        token_budget=settings.step_tokens,
        max_sequences=settings.max_sequences,
        max_waiting=settings.max_waiting_requests,
        max_waiting_tokens=settings.max_waiting_tokens,
        draft=settings.draft,
        draft_tokens=settings.draft_tokens,
        draft_layers=settings.draft_layers,
        overlap=settings.overlap,
    )
    plan = plan_for(
        model,
        options,
        device=settings.device,
        ranks=settings.tensor_parallel,
        context=settings.context_tokens,
        cache_bytes=settings.cache_mb * MIB,
        block_size=settings.block_tokens,
    )
    _LOG.info("%s, each of %d ranks: %s", model.name, settings.tensor_parallel, plan)
    runner = _open_runner(model, plan, settings)
    try:
        engine = open_engine(model, plan, options, runner)
        first = sorted(model.eos_ids)[0] if model.eos_ids else 0
        once = SamplingParameters(temperature=0.0, max_tokens=2, ignore_eos=True)
        engine.generate([[first] * min(32, plan.context - 2)], once)
    except BaseException:
        runner.close()
        raise
    return engine
