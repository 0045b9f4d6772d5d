"""The runner: however a text's tokens are cut up, batched, copied or computed, the same logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.kernels.cpp import build
from rolecall.kernels.dispatch import INTERPRETED
from rolecall.serving.llm.batch import Batch, Chunk
from rolecall.serving.llm.loading import Compute, LoadedModel, load_model
from rolecall.serving.llm.model_runner import ModelRunner, _Graph, _Recording

from . import tiny

CUDA = torch.cuda.is_available()
compiled = pytest.mark.skipif(not build.available(), reason="needs a C++ compiler")
TOKENS = [int(t) for t in torch.randint(0, 96, (70,), generator=torch.Generator().manual_seed(2))]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_gguf(tiny.llama(), tmp_path_factory.mktemp("model") / "model.gguf", "Q4_1")


@pytest.fixture(scope="module", params=["exact", "fast"])
def model(request: pytest.FixtureRequest, file: Path) -> LoadedModel:
    compute: Compute = request.param
    return load_model(file, compute=compute)


def runner(model: LoadedModel) -> ModelRunner:
    made = ModelRunner(model, blocks=32, block_size=8)
    for cache in made.caches:  # what recycled memory may hold
        cache.keys.fill_(torch.nan)
        cache.values.fill_(torch.nan)
    return made


@compiled
@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, 69)), others=st.integers(0, 3), seed=st.integers(0, 9))
def test_chunks_and_company_change_no_bit(model: LoadedModel, cuts: set[int], others: int, seed: int) -> None:
    whole = tiny.logits(runner(model), TOKENS)
    made, rows = runner(model), []
    table = torch.randperm(32, generator=torch.Generator().manual_seed(seed)).tolist()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(TOKENS)], strict=True):
        company = [tiny.chunk(TOKENS[i : i + 9], 0, table[9 + 2 * i : 11 + 2 * i], wants=[8]) for i in range(others)]
        chunks = (tiny.chunk(TOKENS[start:end], start, table[:9]), *company)
        rows.append(made.run(Batch(chunks=chunks))[: end - start])
    assert torch.equal(torch.cat(rows), whole)


@compiled
def test_a_copied_block_continues_as_the_one_it_was_copied_from(model: LoadedModel) -> None:
    made = runner(model)
    made.run(Batch(chunks=(tiny.chunk(TOKENS[:12], 0, [0, 1]),)))
    first = tiny.chunk(TOKENS[12:14], 12, [0, 1])
    other = tiny.chunk(TOKENS[20:22], 12, [0, 5])
    forked = Chunk(
        sequence=other.sequence,
        start=12,
        tokens=other.tokens,
        block_table=(0, 5),
        wants_logits=(0, 1),
        copies=((1, 5),),
    )
    rows = made.run(Batch(chunks=(first, forked)))
    assert torch.equal(rows[:2], tiny.logits(runner(model), TOKENS[:14])[12:])
    assert torch.equal(rows[2:], tiny.logits(runner(model), [*TOKENS[:12], *TOKENS[20:22]])[12:])


@pytest.mark.parametrize("layers", [None, 1])
@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cpu", marks=compiled),
        pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="needs a CUDA device")]),
    ],
)
def test_a_kept_decode_step_is_the_eager_one_and_its_filling_writes_nothing(
    file: Path, device: str, layers: int | None
) -> None:
    """On a CPU the calls noted for more sequences than there are, on a GPU the graph captured for them."""
    loaded = load_model(file, compute="exact", device=device)
    ours, theirs = (ModelRunner(loaded, blocks=32, block_size=8, graphs=False) for _ in range(2))
    for cache in (*ours.caches, *theirs.caches):
        cache.keys.zero_()
        cache.values.zero_()
    with torch.inference_mode():
        kept = (_Graph if device == "cuda" else _Recording)(ours, 8, 8, layers)
        for count in (3, 1, 8, 7, 3):
            prompts = [TOKENS[i : i + 9 + i] for i in range(count)]
            tables = [range(4 * i, 4 * i + 4) for i in range(count)]
            for made in (ours, theirs):
                parts = zip(prompts, tables, strict=True)
                made.run(Batch(chunks=tuple(tiny.chunk(p, 0, table[:3], wants=[]) for p, table in parts)))
            parts = zip(prompts, tables, strict=True)
            step = Batch(chunks=tuple(tiny.chunk([5], len(p), table) for p, table in parts), layers=layers)
            got, expected = loaded.weights.logits(kept.run(ours.step(step))[:count]), theirs.run(step)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 if device == "cpu" else 1e-3)
            for mine, other in zip(ours.caches, theirs.caches, strict=True):
                torch.testing.assert_close((mine.keys, mine.values), (other.keys, other.values), rtol=0, atol=1e-3)


def test_only_wanted_rows_come_back_in_the_order_of_the_chunks(model: LoadedModel) -> None:
    made = runner(model)
    whole = tiny.logits(made, TOKENS[:20])
    chunks = (tiny.chunk(TOKENS[:20], 0, [4, 5, 6], wants=[3, 19]), tiny.chunk(TOKENS[:20], 0, [7, 8, 9], wants=[]))
    assert torch.allclose(made.run(Batch(chunks=chunks)), whole[[3, 19]], atol=1e-5)
    assert made.run(Batch(chunks=())).shape == (0, 96)


@pytest.mark.skipif(not INTERPRETED, reason="needs Triton's interpreter")
@pytest.mark.parametrize("compute", ["exact", pytest.param("fast", marks=pytest.mark.slow)])
def test_every_operator_through_its_triton_kernel_gives_the_same_tokens(tmp_path: Path, compute: Compute) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    small = tiny.llama(**sizes, vocab_size=96)
    path = tiny.write_gguf(small, tmp_path / "model.gguf", "Q8_0")
    prompts = [[1, 2], [5]]
    made = [
        tiny.greedy(ModelRunner(load_model(path, compute=compute, backend=backend), blocks=4, block_size=4), prompts, 2)
        for backend in ("triton", None, "torch")
    ]
    assert made[0] == made[1] == made[2]
