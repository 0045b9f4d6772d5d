"""The formulas count what the operators' own tensors hold, and what their arithmetic does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rolecall.kernels import attention, dispatch, intensity, rms_norm, rope
from rolecall.kernels.int8_topk import int8_topk
from rolecall.kernels.intensity import Work
from rolecall.kernels.paged_cache import PagedCache, empty_cache
from rolecall.kernels.quantization import QuantizedRows, quantize_rows
from rolecall.kernels.weight_formats import FORMATS, Format, quantize_weight, tile_weight

from .oracle import DTYPES, random

SIZES = st.integers(1, 70)


def held(*tensors: Tensor | None) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def moved(work: Work) -> tuple[int, int]:
    return work.bytes_read, work.bytes_written


@pytest.mark.parametrize("dtype", DTYPES)
@given(rows=SIZES, width=SIZES)
def test_rows_move_their_tensors(dtype: torch.dtype, rows: int, width: int) -> None:
    x, w = torch.zeros(rows, width, dtype=dtype), torch.zeros(width, dtype=dtype)
    codes = rms_norm.rms_norm_quantized(x, w, backend="torch")
    assert moved(intensity.rms_norm(rows, width, dtype)) == (held(x, w), held(x))
    assert moved(intensity.add_rms_norm(rows, width, dtype)) == (held(x, x, w), held(x, x))
    assert moved(intensity.rms_norm_quantized(rows, width, dtype)) == (held(x, w), held(codes.codes, codes.scales))
    assert moved(intensity.quantize_rows(rows, width, dtype)) == (held(x), held(codes.codes, codes.scales))
    assert moved(intensity.layer_norm(rows, width, dtype)) == (held(x, w, w), held(x))
    assert moved(intensity.bias_relu(rows, width, dtype)) == (held(x, w), held(x))
    assert moved(intensity.gate(rows, width, dtype)) == (held(x, x), held(x))
    assert moved(intensity.softmax(rows, width, dtype)) == (held(x), held(x))
    assert moved(intensity.softmax_backward(rows, width, dtype)) == (held(x, x), held(x))


@pytest.mark.parametrize("entries", [torch.bfloat16, torch.int8, torch.float8_e4m3fn])
@given(tokens=SIZES, heads=st.integers(1, 9), groups=st.integers(1, 3), half=st.integers(1, 40))
def test_rope_moves_its_heads_its_angles_and_its_entries(
    entries: torch.dtype, tokens: int, heads: int, groups: int, half: int
) -> None:
    width = 2 * half
    q = torch.zeros(tokens, heads, width, dtype=torch.bfloat16)
    k = torch.zeros(tokens, groups, width, dtype=torch.bfloat16)
    positions = torch.arange(tokens)
    angles = [table[positions] for table in rope.rope_tables(tokens, width)]
    cache = empty_cache(pages=tokens, page_size=1, heads=groups, width=width, dtype=entries)
    assert moved(intensity.rope(tokens, heads, width, q.dtype)) == (held(q, positions, *angles), held(q))
    assert moved(intensity.rope_pair(tokens, heads, groups, width, q.dtype)) == (
        held(q, k, positions, *angles),
        held(q, k),
    )
    assert moved(intensity.rope_cache(tokens, heads, groups, width, q.dtype, entries)) == (
        held(q, k, k, positions, positions, *angles),
        held(q, cache.keys, cache.values, cache.key_scales, cache.value_scales),
    )


@given(
    queries=st.integers(0, 20),
    keys=st.integers(0, 20),
    causal=st.booleans(),
    window=st.none() | st.integers(1, 25),
)
def test_visible_pairs_are_those_of_the_mask(queries: int, keys: int, causal: bool, window: int | None) -> None:
    window = window if causal else None
    mask = attention.visible(queries, keys, causal=causal, window=window, device=torch.device("cpu"))
    assert intensity.visible_pairs(queries, keys, causal=causal, window=window) == int(mask.sum())


def test_attention_moves_its_tensors_and_does_the_operations_torch_counts() -> None:
    q, k = torch.zeros(2, 7, 6, 16), torch.zeros(2, 9, 2, 16)
    work = intensity.attention(2, 7, 9, 6, 2, 16, torch.float32)
    with FlopCounterMode(display=False) as counted:
        for b in range(2):
            attention.reference(q[b], k[b], k[b])
    assert moved(work) == (held(q, k, k), held(q))
    assert work.operations == {"fp32": counted.get_total_flops()}


@pytest.mark.parametrize("entries", [torch.float32, torch.int8])
def test_decoding_reads_the_keys_of_its_lengths_once(entries: torch.dtype) -> None:
    lengths = [1, 16, 17, 40]
    whole = empty_cache(pages=sum(lengths), page_size=1, heads=2, width=16, dtype=entries)
    tables = torch.zeros(sum(-(-length // 16) for length in lengths), dtype=torch.int32)
    q, starts = torch.zeros(len(lengths), 6, 16), torch.zeros(len(lengths) + 1, dtype=torch.int32)
    work = intensity.paged_attention(lengths, 6, 2, 16, torch.float32, cache=entries)
    read = held(q, tables, starts[1:]) + cache_bytes(whole)
    assert moved(work) == (read, held(q))
    assert work.operations == {"fp32": 4 * sum(lengths) * 6 * 16}
    chunk = intensity.paged_attention(lengths[1:], 6, 2, 16, torch.float32, cache=entries, queries=3)
    pairs = sum(intensity.visible_pairs(3, length, causal=True) for length in lengths[1:])
    assert chunk.operations == {"fp32": 4 * pairs * 6 * 16}


def cache_bytes(cache: PagedCache) -> int:
    return held(cache.keys, cache.values, cache.key_scales, cache.value_scales)


@given(m=SIZES, n=SIZES, k=SIZES)
def test_products_move_codes_and_scales(m: int, n: int, k: int) -> None:
    a, b = (QuantizedRows(codes=torch.zeros(r, k, dtype=torch.int8), scales=torch.zeros(r)) for r in (m, n))
    y = torch.zeros(m, n, dtype=torch.bfloat16)
    work = intensity.quantized_gemm(m, n, k, out=torch.bfloat16)
    assert moved(work) == (held(a.codes, a.scales, b.codes, b.scales), held(y))
    with FlopCounterMode(display=False) as counted:
        torch.mm(a.codes.float(), b.codes.float().t())
    assert work.operations == {"int8": counted.get_total_flops()}


@pytest.mark.parametrize("format", FORMATS)
@given(n=SIZES, k=SIZES)
def test_a_weight_has_the_bytes_of_its_tiles(format: Format, n: int, k: int) -> None:
    weight = tile_weight(quantize_weight(random(n, k), format))
    x, y = torch.zeros(3, k), torch.zeros(3, n)
    assert moved(intensity.weight_only_linear(3, n, k, format)) == (held(weight.tiles, x), held(y))
    assert intensity.weight_only_linear(3, n, k, format, fast=True).operations == {"int8": 6 * n * k}


@given(queries=st.integers(1, 4), items=st.integers(20, 70), width=st.integers(2, 40), k=st.integers(0, 5))
def test_topk_reads_each_item_once_and_writes_the_best(queries: int, items: int, width: int, k: int) -> None:
    q, rows = quantize_rows(random(queries, width)), quantize_rows(random(items, width))
    best = int8_topk(q, rows, k, backend="torch")
    work = intensity.int8_topk(queries, items, width, k)
    assert moved(work) == (held(q.codes, q.scales, rows.codes, rows.scales), held(best.scores, best.rows))
    half = width // 2
    less = intensity.int8_topk(queries, items, width, k, prefix=half, oversample=2)
    again = 2 * k * queries * (width + 4)
    assert less.bytes_read == work.bytes_read - items * (width - half) + again
    masked = intensity.int8_topk(queries, items, width, k, masks=queries)
    assert masked.bytes_read == work.bytes_read + held(torch.zeros(queries, items, dtype=torch.bool))


@given(rows=SIZES, vocabulary=SIZES, drafts=st.integers(1, 5))
def test_sampling_reads_its_logits_and_what_it_draws_by(rows: int, vocabulary: int, drafts: int) -> None:
    logits, integers = torch.zeros(rows, vocabulary, dtype=torch.bfloat16), torch.zeros(rows, dtype=torch.int64)
    numbers, probabilities = torch.zeros(rows), torch.zeros(rows, vocabulary)
    assert moved(intensity.sample(rows, vocabulary, logits.dtype)) == (
        held(logits, numbers, integers, integers),
        held(integers),
    )
    entries = logits[:, 0]
    assert moved(intensity.penalties(rows, rows, logits.dtype)) == (
        held(entries, *[integers] * 3, *[numbers] * 3),
        held(entries),
    )
    assert moved(intensity.speculative_accept(rows, drafts, vocabulary)) == (
        held(*[probabilities] * (2 * drafts + 1), *[integers] * (drafts + 3)),
        held(*[integers] * (drafts + 2)),
    )


def test_works_add_up_and_know_their_intensity() -> None:
    small, large = intensity.rope(1, 1, 2, torch.float32), intensity.int8_topk(1, 1000, 64, 1)
    both = small + large
    assert both.bytes == small.bytes + large.bytes
    assert both.operations == {"fp32": 6, "int8": 128_000}
    assert both.access == "read"
    assert both.intensity == pytest.approx(128_006 / both.bytes)


def test_every_registered_operator_has_a_formula() -> None:
    sources = [path.read_text() for path in Path(dispatch.__file__).parent.glob("*.py")]
    names = {name for source in sources for name in re.findall(r'register\(\s*"(\w+)"', source)}
    assert "rms_norm" in names
    assert names - set(intensity.FORMULAS) == set()
