"""The whole engine on a two-layer Llama of random weights: what it says does not depend on how it is computed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rolecall.kernels.cpp import build
from rolecall.serving.llm.admission import Words
from rolecall.serving.llm.draft import Draft, PromptLookup
from rolecall.serving.llm.engine import EngineOptions, LLMEngine
from rolecall.serving.llm.errors import ContextOverflowError, EngineBusyError
from rolecall.serving.llm.first_layers import FirstLayers
from rolecall.serving.llm.loading import LoadedModel, load_model
from rolecall.serving.llm.model_runner import ModelRunner
from rolecall.serving.llm.output import Generation, Output
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.llm.sampler import Sampler, scored

from . import tiny

VOCABULARY, CONTEXT, EOS = 128, 96, 127
GREEDY = SamplingParameters(temperature=0, max_tokens=24)
DRAWN = SamplingParameters(temperature=0.8, top_p=0.95, top_k=40, seed=11, max_tokens=24)


class Letters:
    """A tokenizer whose tokens are the ASCII characters."""

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("ascii")


@pytest.fixture(scope="module")
def oracle() -> Any:
    """Its logits are far from uniform, so that no two of a row are nearly equal."""
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "eos_token_id": EOS}
    return tiny.llama(3, initializer_range=0.3, **sizes)


@pytest.fixture(scope="module")
def model(oracle: Any, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = tmp_path_factory.mktemp("llama")
    oracle.save_pretrained(folder)
    return load_model(folder, compute="exact")


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Some that share beginnings, one that ends on a block's border, one of a single token."""
    chosen = random.Random(5)
    stem = [chosen.randrange(100) for _ in range(40)]
    tails = [[chosen.randrange(100) for _ in range(chosen.randrange(1, 20))] for _ in range(5)]
    return [*(stem + tail for tail in tails), stem[:32], stem[:32], [7], stem[:5] * 4]


def engine(model: LoadedModel, *, blocks: int = 200, **options: Any) -> LLMEngine:
    runner = ModelRunner(model, blocks=blocks, block_size=8)
    words = Words(vocabulary=VOCABULARY, context=CONTEXT, eos=frozenset({EOS}), tokenizer=Letters())
    chosen = EngineOptions(**{"draft": "none", "draft_layers": 1} | options)
    lookup = PromptLookup(shortest=1) if chosen.draft in ("lookup", "both") else None
    draft: Draft | None = lookup
    if chosen.draft in ("layers", "both"):
        draft = FirstLayers(runner.run, Sampler(words.eos), layers=chosen.draft_layers, lookup=lookup)
    return LLMEngine(runner, words, chosen, draft=draft, randomness=random.Random(1))


def texts(generations: list[Generation]) -> list[list[list[int]]]:
    return [[completion.token_ids for completion in generation.completions] for generation in generations]


@pytest.fixture(scope="module")
def alone(model: LoadedModel, prompts: list[list[int]]) -> dict[SamplingParameters, list[list[list[int]]]]:
    """What each prompt gets when nothing else is there and nothing is shared."""
    return {
        wishes: [texts(engine(model, prefix_cache=False).generate([prompt], wishes))[0] for prompt in prompts]
        for wishes in (GREEDY, DRAWN)
    }


@pytest.mark.parametrize("wishes", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize(
    "options",
    [
        {"prefix_cache": False},
        {},
        {"token_budget": 5, "max_sequences": 4},
        {"blocks": 14},
        {"blocks": 14, "overlap": True},
        {"draft": "lookup", "draft_tokens": 60},
        {"draft": "layers", "draft_tokens": 60},
        {"draft": "both", "draft_tokens": 60, "blocks": 18, "token_budget": 16, "max_sequences": 6, "overlap": True},
    ],
    ids=["batched", "prefix cache", "chunks", "preemption", "overlap", "lookup", "first layers", "all together"],
)
def test_the_same_tokens_as_alone(
    model: LoadedModel,
    prompts: list[list[int]],
    alone: dict[SamplingParameters, list[list[list[int]]]],
    wishes: SamplingParameters,
    options: dict[str, Any],
) -> None:
    made = engine(model, **options)
    assert texts(made.generate(prompts, wishes)) == alone[wishes]
    assert texts(made.generate(prompts, wishes)) == alone[wishes]  # now what can be cached is
    stats = made.stats()
    assert stats.blocks_free == stats.blocks
    assert (stats.preemptions > 0) == ("blocks" in options)
    assert (stats.drafted_tokens > 0) == ("draft" in options)
    assert (stats.kept_tokens > 0) == ("draft" in options) or wishes is DRAWN
    assert (stats.cached_tokens > 0) == options.get("prefix_cache", True)


@pytest.mark.skipif(not build.available(), reason="needs a C++ compiler")
@pytest.mark.parametrize("wishes", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_fast_gives_the_same_tokens_as_alone(
    oracle: Any, prompts: list[list[int]], wishes: SamplingParameters, tmp_path: Path
) -> None:
    """Activations in 8 bits are scaled row by row, so a row's numbers do not depend on its company."""
    file = tiny.write_gguf(oracle, tmp_path / "model.gguf", "Q4_1")
    fast = load_model(file, compute="fast")
    alone = [texts(engine(fast, prefix_cache=False).generate([prompt], wishes))[0] for prompt in prompts]
    for options in ({}, {"draft": "both", "draft_tokens": 60, "blocks": 18, "token_budget": 16, "max_sequences": 6}):
        made = engine(fast, **options)
        for _ in range(2):
            assert texts(made.generate(prompts, wishes)) == alone
        assert (made.stats().preemptions > 0) == (made.stats().drafted_tokens > 0) == bool(options)


@pytest.mark.parametrize("wishes", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_draft_of_all_layers_is_always_right(
    model: LoadedModel, prompts: list[list[int]], wishes: SamplingParameters
) -> None:
    whole = engine(model, draft="layers", draft_layers=model.config.layers, draft_tokens=30)
    whole.generate(prompts, replace(wishes, n=2, repetition_penalty=1.3))
    assert whole.stats().drafted_tokens > 100
    assert whole.stats().acceptance == 1


def test_greedy_is_what_transformers_says(
    oracle: Any, prompts: list[list[int]], alone: dict[SamplingParameters, list[list[list[int]]]]
) -> None:
    for prompt, [ours] in zip(prompts, alone[GREEDY], strict=True):
        theirs = oracle.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False, pad_token_id=EOS)
        assert theirs[0, len(prompt) :].tolist() == ours


def test_a_prompt_that_is_cached_whole_still_computes_a_token(model: LoadedModel, prompts: list[list[int]]) -> None:
    made, prompt = engine(model), prompts[5]
    first, second = made.generate([prompt], GREEDY)[0], made.generate([prompt], GREEDY)[0]
    assert first.completions == second.completions
    assert (first.cached_tokens, second.cached_tokens) == (0, len(prompt) - 8)


def test_tenants_share_no_cache(model: LoadedModel, prompts: list[list[int]]) -> None:
    made = engine(model)
    for salt in "ab":
        outputs = list(made.stream(made.add(prompts[0], GREEDY, salt=salt)))
        assert outputs[-1].cached_tokens == 0


def test_choices_differ_and_the_first_is_that_of_one_choice(
    model: LoadedModel, prompts: list[list[int]], alone: dict[SamplingParameters, list[list[list[int]]]]
) -> None:
    made = engine(model)
    for prompt, [single] in zip(prompts, alone[DRAWN], strict=True):
        [choices] = texts(made.generate([prompt], replace(DRAWN, n=3)))
        assert choices[0] == single
        assert len({tuple(choice) for choice in choices}) == 3
    assert made.stats().computed_tokens < sum(len(prompt) + 3 * 24 for prompt in prompts)


def test_cancelling_at_any_step_frees_everything_and_disturbs_nobody(
    model: LoadedModel, prompts: list[list[int]], alone: dict[SamplingParameters, list[list[list[int]]]]
) -> None:
    made = engine(model, token_budget=8, max_sequences=5, blocks=20)
    for steps in range(14):
        kept = made.add(prompts[0], GREEDY)
        doomed = [made.add(prompts[1], replace(DRAWN, n=3)), made.add(prompts[2], GREEDY)]
        told = [output for _ in range(steps) for output in made.step()]
        for request in doomed:
            made.cancel(request)
            made.cancel(request)
        told += made.stream(kept)
        assert [token.token for output in told if output.request_id == kept for token in output.tokens] == alone[
            GREEDY
        ][0][0]
        assert not made.busy
        assert made.stats().blocks_free == 20


class Visitors:
    """Random requests that come, leave and run out of time at given steps, however the engine computes."""

    def __init__(self, made: LLMEngine, prompts: list[list[int]], seed: int) -> None:
        self.engine, self.steps, self.told = made, 0, dict[tuple[str, int], list[Output]]()
        self.gone: set[str] = set()
        made._clock = lambda: float(self.steps)
        chosen = random.Random(seed)
        while self.steps < 60 or made.busy:
            for number in range(chosen.choice((0, 0, 0, 1, 2)) if self.steps < 60 else 0):
                self.arrive(f"{self.steps}-{number}", prompts, chosen)
            if self.steps < 60 and chosen.random() < 0.1:
                self.gone.add(left := f"{chosen.randrange(self.steps + 1)}-0")
                made.cancel(left)
            for output in made.step():
                self.told.setdefault((output.request_id, output.index), []).append(output)
            self.steps += 1

    def arrive(self, name: str, prompts: list[list[int]], chosen: random.Random) -> None:
        most = chosen.choice((0, 1, 7, 24))
        wishes = SamplingParameters(
            temperature=chosen.choice((0.0, 0.9)),
            seed=chosen.randrange(99),
            max_tokens=most,
            min_tokens=min(most, chosen.choice((0, 0, 3))),
            n=chosen.choice((1, 1, 3)),
            stop=chosen.choice(((), ("a", "zz"), ("Q", "R", "S"))),
            prompt_logprobs=chosen.choice((None, None, 1)),
            repetition_penalty=chosen.choice((1.0, 1.2)),
            logit_bias=chosen.choice(({}, {EOS: 4.0})),
        )
        deadline = chosen.choice((None, None, None, self.steps + 9.0))
        priority = chosen.choice((0, 0, 1))
        self.engine.add(chosen.choice(prompts), wishes, deadline=deadline, priority=priority, request_id=name)

    def ends(self) -> dict[tuple[str, int], tuple[list[int], str, str | None]]:
        return {
            choice: (
                [token.token for output in outputs for token in output.tokens],
                "".join(output.text for output in outputs),
                outputs[-1].finish_reason,
            )
            for choice, outputs in self.told.items()
        }


@pytest.mark.parametrize(("draft", "seed"), [("none", 1), ("none", 2), ("both", 3), ("lookup", 4)])
def test_overlap_changes_no_token_no_text_and_no_end(
    model: LoadedModel, prompts: list[list[int]], draft: str, seed: int
) -> None:
    options: dict[str, Any] = {"blocks": 18, "token_budget": 16, "max_sequences": 6, "draft_tokens": 12}
    plain, overlapped = (
        Visitors(engine(model, draft=draft, overlap=overlap, **options), prompts, seed) for overlap in (False, True)
    )
    ours, theirs = overlapped.ends(), plain.ends()
    whole = [{choice for choice, (_, _, end) in ends.items() if end in ("stop", "length")} for ends in (ours, theirs)]
    same = sorted(whole[0] & whole[1])
    assert [ours[choice] for choice in same] == [theirs[choice] for choice in same]
    assert {end for _, _, end in (ours[choice] for choice in same)} == {"stop", "length"}
    for choice in {*ours, *theirs} - {*same}:  # cut short by the clock or by its caller, a step sooner or later
        mine, other = (ends.get(choice, ([], "", None)) for ends in (ours, theirs))
        assert choice[0] in plain.gone or "deadline" in (mine[2], other[2])
        assert mine[0][: len(other[0])] == other[0][: len(mine[0])]
    assert len(same) > 30
    for visitors in (plain, overlapped):
        assert visitors.engine.stats().blocks_free == 18
        assert visitors.engine.stats().preemptions > 0


def test_a_deadline_ends_every_choice_with_what_there_is(model: LoadedModel, prompts: list[list[int]]) -> None:
    now = [0.0]
    made = engine(model, token_budget=16, max_sequences=4)
    made._clock = lambda: now[0]
    made.add(prompts[0], replace(DRAWN, n=3), deadline=5.0)
    told: list[Output] = []
    while made.busy:
        now[0] += 1.0
        told += made.step()
    assert [output.finish_reason for output in told if output.finish_reason] == ["deadline"] * 3
    assert {output.index for output in told} == {0, 1, 2}
    assert made.stats().blocks_free == made.stats().blocks


def test_better_priority_takes_the_place_of_those_that_run(
    model: LoadedModel, prompts: list[list[int]], alone: dict[SamplingParameters, list[list[list[int]]]]
) -> None:
    made = engine(model, max_sequences=1)
    order = [made.add(prompt, GREEDY) for prompt in prompts[:2]]
    made.step()
    made.step()
    order.insert(0, made.add(prompts[2], GREEDY, priority=-1))
    told: list[Output] = []
    while made.busy:
        told += made.step()
    assert [output.request_id for output in told if output.finish_reason] == order
    again = made.generate([prompts[0]], GREEDY)
    assert texts(again) == alone[GREEDY][:1]
    assert made.stats().preemptions == 1


def test_refusals_say_why(model: LoadedModel) -> None:
    made = engine(model, max_waiting=2, max_sequences=8)
    with pytest.raises(ContextOverflowError, match=r"90 prompt tokens and max_tokens 10; allowed: 96"):
        made.add([1] * 90, replace(GREEDY, max_tokens=10))
    with pytest.raises(ContextOverflowError):
        made.add([1] * 96, replace(GREEDY, max_tokens=None))
    for wrong in ([], [VOCABULARY], [-1]):
        with pytest.raises(ValueError, match="allowed"):
            made.add(wrong, GREEDY)
    with pytest.raises(ValueError, match="n: got 9"):
        made.add([1], replace(GREEDY, n=9))
    for _ in range(2):
        made.add([1], GREEDY)
    with pytest.raises(EngineBusyError) as busy:
        made.add([1], GREEDY)
    assert busy.value.retry_after >= 1
    while made.busy:
        made.step()
    assert made.stats().requests == made.stats().finished == 2


def test_generate_takes_more_prompts_than_may_wait(model: LoadedModel) -> None:
    made = engine(model, max_waiting=2, max_sequences=2, token_budget=4)
    assert len(made.generate([[token] for token in range(9)], GREEDY)) == 9
    with pytest.raises(ContextOverflowError):
        made.generate([[1], [1] * 99], GREEDY)
    assert not made.busy


@pytest.mark.parametrize("field", ["temperature", "min_p", "presence_penalty", "seed", "max_tokens", "n", "top_p"])
def test_parameters_out_of_range_are_refused_by_name(field: str) -> None:
    wrong: dict[str, Any] = {field: -3}
    with pytest.raises(ValueError, match=field):
        SamplingParameters(**wrong)


def test_logprobs_are_those_of_the_model(oracle: Any, model: LoadedModel, prompts: list[list[int]]) -> None:
    wishes = replace(DRAWN, logprobs=3, prompt_logprobs=2, logit_bias={5: 3.0})
    made = engine(model, token_budget=7, max_sequences=4)
    for generation, prompt in zip(made.generate(prompts, wishes), prompts, strict=True):
        ids = generation.completions[0].token_ids
        with torch.no_grad():
            expected = torch.log_softmax(oracle(torch.tensor([prompt + ids])).logits[0].double(), dim=1)
        assert generation.prompt_logprobs is not None
        assert generation.prompt_logprobs[0] is None
        reported = [*generation.prompt_logprobs[1:], *generation.completions[0].tokens]
        assert len(reported) == len(prompt) + len(ids) - 1
        for place, token in enumerate(reported):
            assert token is not None
            assert token.token == (prompt + ids)[place + 1]
            assert token.logprob == pytest.approx(float(expected[place, token.token]), abs=1e-4)
            best = expected[place].topk(2 if place < len(prompt) - 1 else 3)
            assert [one for one, _ in token.top] == best.indices.tolist()
            assert [value for _, value in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_as_many_alternatives_as_there_are_words_may_be_asked_for() -> None:
    logits = torch.arange(6.0).view(1, 6)
    [token] = scored(logits, [2], [100])
    assert [word for word, _ in token.top] == [5, 4, 3, 2, 1, 0]


def test_a_prompt_can_be_scored_without_generating(model: LoadedModel, prompts: list[list[int]]) -> None:
    made = engine(model)
    wishes = SamplingParameters(max_tokens=0, prompt_logprobs=0, n=2)
    for prompt in (prompts[0], prompts[7]):
        for _ in range(2):  # the second time the prompt is cached, and scored all the same
            [generation] = made.generate([prompt], wishes)
            assert generation.prompt_logprobs is not None
            assert len(generation.prompt_logprobs) == len(prompt)
            assert [(c.token_ids, c.finish_reason) for c in generation.completions] == [([], "length")] * 2


def test_bias_forces_and_forbids(model: LoadedModel, prompts: list[list[int]]) -> None:
    made = engine(model)
    [forced] = made.generate(prompts[:1], replace(GREEDY, logit_bias={9: 100.0}))
    assert forced.completions[0].token_ids == [9] * 24
    usual = texts(made.generate(prompts[:1], GREEDY))[0][0]
    [other] = texts(made.generate(prompts[:1], replace(DRAWN, logit_bias=dict.fromkeys(set(usual), -100.0))))
    assert not set(other[0]) & set(usual)


def test_penalties_keep_tokens_from_coming_back(model: LoadedModel, prompts: list[list[int]]) -> None:
    made = engine(model, draft="both", draft_tokens=4)
    loop = replace(GREEDY, logit_bias={9: 80.0, 10: 60.0})
    assert texts(made.generate(prompts[:1], loop)) == [[[9] * 24]]
    counted = texts(made.generate(prompts[:1], replace(loop, frequency_penalty=2.0)))[0][0]
    assert set(counted) == {9, 10}
    assert counted[:4] == [9] * 4
    [once] = texts(made.generate(prompts[:1], replace(GREEDY, repetition_penalty=90.0)))[0]
    assert len(set(once)) == len(once)
    assert not set(once) & set(prompts[0])


def test_the_end_token_ends_not_before_its_time(model: LoadedModel, prompts: list[list[int]]) -> None:
    made = engine(model, draft="both")
    eager = replace(GREEDY, logit_bias={EOS: 100.0})
    [ended] = made.generate(prompts[:1], eager)
    assert (ended.completions[0].token_ids, ended.completions[0].finish_reason) == ([EOS], "stop")
    assert ended.completions[0].text == ""
    [late] = made.generate(prompts[:1], replace(eager, min_tokens=5))
    assert late.completions[0].token_ids.index(EOS) == 5
    [never] = made.generate(prompts[:1], replace(eager, ignore_eos=True))
    assert (never.completions[0].token_ids, never.completions[0].finish_reason) == ([EOS] * 24, "length")
    [named] = made.generate(prompts[:1], replace(GREEDY, logit_bias={9: 100.0}, stop_token_ids=(9,)))
    assert named.completions[0].finish_reason == "stop"


def test_text_ends_before_the_stop_string_and_so_do_the_tokens(model: LoadedModel, prompts: list[list[int]]) -> None:
    for draft in ("none", "both"):
        made = engine(model, draft=draft)
        for prompt in prompts:
            [plain] = made.generate([prompt], GREEDY)
            text = plain.completions[0].text
            stop = text[1:4] or text
            [cut] = made.generate([prompt], replace(GREEDY, stop=(stop, "not there")))
            completion = cut.completions[0]
            assert completion.text == text[: text.index(stop)]
            assert completion.finish_reason == "stop"
            assert completion.token_ids == plain.completions[0].token_ids[: text.index(stop) + len(stop)]


def test_a_constraint_is_kept(model: LoadedModel, prompts: list[list[int]]) -> None:
    class OddThenEven:
        def allowed(self, generated: Sequence[int]) -> NDArray[np.bool_]:
            return np.asarray(np.arange(VOCABULARY) % 2 == (len(generated) + 1) % 2)

    made = engine(model, draft="both")
    for tokens in texts(made.generate(prompts, replace(DRAWN, constraint=OddThenEven()))):
        assert [token % 2 for token in tokens[0][:-1]] == [(place + 1) % 2 for place in range(len(tokens[0]) - 1)]


def test_nothing_to_draw_from_ends_a_choice_and_not_the_engine(model: LoadedModel, prompts: list[list[int]]) -> None:
    class Nothing:
        def allowed(self, generated: Sequence[int]) -> NDArray[np.bool_]:
            return np.zeros(VOCABULARY, dtype=bool)

    made = engine(model)
    [stuck] = made.generate(prompts[:1], replace(DRAWN, constraint=Nothing()))
    assert (stuck.completions[0].token_ids, stuck.completions[0].finish_reason) == ([], "error")
    assert made.stats().blocks_free == made.stats().blocks


def test_time_is_accounted_for(model: LoadedModel, prompts: list[list[int]]) -> None:
    made = engine(model)
    outputs = list(made.stream(made.add(prompts[0], GREEDY)))
    stats, timing = made.stats(), outputs[-1].timing
    assert all(stats.seconds[part] > 0 for part in ("schedule", "model", "sample", "detokenise"))
    assert timing is not None
    assert timing.started is not None
    assert timing.first_token is not None
    assert timing.arrived <= timing.started <= timing.first_token <= timing.finished
    assert stats.decode_tokens == 23
    assert stats.speed(1000, 10).bytes_per_second > 0
