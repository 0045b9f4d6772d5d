"""One model over two Ray actors: the engine says what it says with one process, and ends where a rank does."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from rolecall.platform.ray_runtime import environment, ray_session
from rolecall.platform.settings import LLMSettings, RaySettings
from rolecall.serving.llm.admission import Words
from rolecall.serving.llm.api.loop import News
from rolecall.serving.llm.api.opening import open_llm
from rolecall.serving.llm.draft import PromptLookup
from rolecall.serving.llm.engine import EngineOptions, LLMEngine, Runner
from rolecall.serving.llm.errors import RankError
from rolecall.serving.llm.loading import load_model
from rolecall.serving.llm.model_runner import ModelRunner
from rolecall.serving.llm.parallel.rank import Shared
from rolecall.serving.llm.parallel.runner import ParallelRunner
from rolecall.serving.llm.request import SamplingParameters

from . import tiny

pytestmark = pytest.mark.slow

EOS = 127
GREEDY = SamplingParameters(temperature=0, max_tokens=24, ignore_eos=True)
DRAWN = SamplingParameters(temperature=0.8, top_p=0.95, top_k=40, seed=11, max_tokens=24)
STEM = random.Random(5).choices(range(100), k=40)
PROMPTS = [[*STEM, 9, 7], STEM + [1] * 12, STEM[:32], STEM[:32], [7], STEM[:5] * 4]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in environment(RaySettings(haproxy=False), Path("/h")):
            patch.setenv(name, os.environ.get(name, ""))
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session(RaySettings(haproxy=False, object_store_mb=80), tmp_path_factory.mktemp("ray")):
            yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("llama")
    biases = {"attention_bias": True, "mlp_bias": True}
    tiny.llama(3, initializer_range=0.3, vocab_size=128, max_position_embeddings=96, **biases).save_pretrained(place)
    return place


def two(folder: Path, timeout_s: float) -> ParallelRunner:
    return ParallelRunner(
        Shared(path=str(folder), size=2, blocks=18, block_size=8, compute="exact", timeout_s=timeout_s), start_s=60
    )


def engine(runner: Runner) -> LLMEngine:
    """Chunks, a prefix cache, guesses, and too few blocks for all."""
    options = EngineOptions(token_budget=16, max_sequences=6, draft_tokens=60)
    words = Words(vocabulary=128, context=96, eos=frozenset({EOS}), tokenizer=None)
    return LLMEngine(runner, words, options, draft=PromptLookup(shortest=1), randomness=random.Random(1))


def tokens(made: LLMEngine, wishes: SamplingParameters) -> list[list[int]]:
    return [generation.completions[0].token_ids for generation in made.generate(PROMPTS, wishes)]


def test_two_ranks_say_what_one_says_hold_half_of_it_each_and_none_outlives_one_that_hangs(
    cluster: None, folder: Path
) -> None:
    one = ModelRunner(load_model(folder, compute="exact"), blocks=18, block_size=8)
    with closing(two(folder, timeout_s=10)) as ranks:
        for wishes in (GREEDY, DRAWN):
            made, alone = engine(ranks), engine(one)
            for _ in range(2):  # the second time what can be cached is
                assert tokens(made, wishes) == tokens(alone, wishes)
            stats = made.stats()
            assert min(stats.preemptions, stats.cached_tokens, stats.drafted_tokens) > 0
        whole = one.model.weights.weight_bytes + one.cache_bytes
        assert all(0.5 * whole <= held < 0.6 * whole for held in ranks.rank_bytes)
        os.kill(ranks.processes[1], signal.SIGSTOP)
        assert_ends(made, ranks)


def test_a_server_whose_rank_is_killed_takes_no_requests_and_leaves_nothing_behind(
    cluster: None, tmp_path: Path
) -> None:
    path = tiny.write_gguf(tiny.llama(), tmp_path / "model.gguf", "Q8_0")
    service = open_llm(LLMSettings(model=str(path), tensor_parallel=2, cache_mb=4, max_sequences=2))
    processes = psutil.process_iter(["cmdline"])
    ranks = [p for p in processes if (p.info["cmdline"] or [""])[0].startswith("ray::Rank")]
    assert len(ranks) == 2

    async def ask() -> list[int]:
        queue: News = asyncio.Queue()
        await service.loop.open([PROMPTS[4]], GREEDY, queue)
        said: list[int] = []
        while (news := await queue.get()) is not None:
            said += [token.token for output in news for token in output.tokens]
            if any(output.finish_reason for output in news):
                break
        return said

    one = engine(ModelRunner(load_model(path), blocks=18, block_size=8))
    assert asyncio.run(ask()) == one.generate([PROMPTS[4]], GREEDY)[0].completions[0].token_ids
    ranks[1].kill()
    assert len(asyncio.run(ask())) < GREEDY.max_tokens
    assert not service.loop.alive
    assert not psutil.wait_procs(ranks, timeout=30)[1]


def assert_ends(made: LLMEngine, ranks: ParallelRunner) -> None:
    with pytest.raises(RankError, match=r"rank"):
        tokens(made, GREEDY)
    gone, alive = psutil.wait_procs([psutil.Process(p) for p in ranks.processes if psutil.pid_exists(p)], timeout=30)
    assert not alive, gone
    with pytest.raises(RankError, match="have ended"):
        tokens(made, GREEDY)


def test_what_a_rank_refuses_and_what_finds_no_room_is_raised_here(cluster: None, tmp_path: Path) -> None:
    missing = Shared(path=str(tmp_path / "missing.gguf"), size=1, blocks=1, block_size=8)
    with pytest.raises(FileNotFoundError, match=r"missing\.gguf"):
        ParallelRunner(missing, start_s=60)
    with pytest.raises(RankError, match="no room"):
        ParallelRunner(missing, cpus=999, start_s=0.1)
