"""The fused rotation and cache write: equal to its two steps, every cache type, padding, compilation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rolecall.kernels.cpp import build
from rolecall.kernels.paged_attention import paged_attention
from rolecall.kernels.paged_cache import QUANTIZED, PagedCache, empty_cache
from rolecall.kernels.rope import reference as rope_reference
from rolecall.kernels.rope import rope_tables
from rolecall.kernels.rope_cache import ROPE_CACHE, quantize_entries, rope_and_cache

from .oracle import BACKENDS, DEVICE, LOOPING_BACKENDS, needs_triton, random

BACKEND = pytest.mark.parametrize("backend", BACKENDS)
ENTRIES = [torch.float32, torch.int8, torch.float8_e4m3fn]


def cache_of(dtype: torch.dtype, *, heads: int = 3, width: int = 10, pages: int = 4, page_size: int = 3) -> PagedCache:
    cache = empty_cache(pages=pages, page_size=page_size, heads=heads, width=width, dtype=dtype, device=DEVICE)
    for tensor in (cache.keys.view(torch.uint8), cache.values.view(torch.uint8)):
        tensor.zero_()
    for scales in (cache.key_scales, cache.value_scales):
        if scales is not None:
            scales.zero_()
    return cache


def inputs(tokens: int, *, heads: int = 5, groups: int = 3, width: int = 10) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q, k, v = random(tokens, heads, width), random(tokens, groups, width, seed=1), random(tokens, groups, width, seed=2)
    return q, k, v, torch.arange(tokens, device=DEVICE) * 3


def entries_at(cache: PagedCache, slots: Tensor) -> list[Tensor]:
    found = []
    for entries, scales in ((cache.keys, cache.key_scales), (cache.values, cache.value_scales)):
        rows = entries.flatten(0, 1).double()[slots]
        found.append(rows if scales is None else rows * scales.flatten(0, 1)[slots, :, None])
    return found


@BACKEND
@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotary", [10, 6])
def test_queries_are_turned_and_entries_are_as_near_as_their_type_allows(
    rotary: int, interleaved: bool, entries: torch.dtype, backend: str
) -> None:
    if entries == torch.float8_e4m3fn and backend == "triton" and DEVICE == "cpu":
        pytest.skip("the interpreter's cast to float8 loses a carry: 126.2 becomes 64")
    q, k, v, positions = inputs(4)
    cos, sin = rope_tables(16, rotary, device=DEVICE)
    cache, slots = cache_of(entries), torch.tensor([11, 0, 7, 4], device=DEVICE)
    y = rope_and_cache(q, k, v, positions, cos, sin, slots, cache, interleaved=interleaved, backend=backend)
    exact = rope_reference(q.double(), positions, cos, sin, interleaved=interleaved)
    assert torch.allclose(y.double(), exact, atol=1e-6)
    turned = rope_reference(k.double(), positions, cos, sin, interleaved=interleaved)
    for got, wanted in zip(entries_at(cache, slots), (turned, v.double()), strict=True):
        peak = wanted.abs().amax(dim=-1, keepdim=True)
        allowed = {torch.float32: 1e-6 * peak, torch.int8: peak / 254 * 1.001}.get(
            entries, wanted.abs() / 8 + peak / 448
        )
        assert bool(((got - wanted).abs() <= allowed).all())


@BACKEND
@pytest.mark.parametrize("entries", ENTRIES)
def test_a_padding_token_writes_nothing_and_other_slots_keep_what_they_held(entries: torch.dtype, backend: str) -> None:
    q, k, v, positions = inputs(3)
    cache, slots = cache_of(entries), torch.tensor([-1, 5, -1], device=DEVICE)
    rope_and_cache(q, k, v, positions, *rope_tables(16, 10, device=DEVICE), slots, cache, backend=backend)
    written = cache.keys.view(torch.uint8).flatten(0, 1).flatten(1).any(dim=1)
    assert written.nonzero().flatten().tolist() == [5]


@needs_triton
def test_int8_entries_are_those_of_the_reference() -> None:
    q, k, v, positions = inputs(3)
    slots, caches = torch.tensor([2, 9, 4], device=DEVICE), [cache_of(torch.int8), cache_of(torch.int8)]
    for cache, backend in zip(caches, ("torch", "triton"), strict=True):
        rope_and_cache(q, k, v, positions, *rope_tables(16, 10, device=DEVICE), slots, cache, backend=backend)
    assert torch.equal(caches[0].values, caches[1].values)
    assert int((caches[0].keys.int() - caches[1].keys.int()).abs().max()) <= 1


def test_zeros_and_empty_inputs_are_entries_too() -> None:
    for dtype in QUANTIZED:
        codes, scales = quantize_entries(torch.zeros(2, 3), dtype)
        assert scales is not None
        assert float(codes.float().abs().sum() + scales.sum()) == 0.0
        assert quantize_entries(torch.zeros(0, 3), dtype)[0].shape == (0, 3)


@pytest.mark.parametrize("backend", LOOPING_BACKENDS)
def test_a_written_token_is_what_decoding_then_reads(backend: str) -> None:
    q, k, v, _ = inputs(3, heads=6)
    cache, positions = cache_of(torch.float32), torch.arange(3, device=DEVICE)
    cos, sin = rope_tables(16, 10, device=DEVICE)
    y = rope_and_cache(q, k, v, positions, cos, sin, positions + 6, cache, backend=backend)  # page 2
    table = torch.tensor([[2]], dtype=torch.int32, device=DEVICE)
    length = torch.tensor([3], dtype=torch.int32, device=DEVICE)
    o = paged_attention(y[2:], cache, table, length, backend=backend)
    keys = rope_reference(k.double(), positions, cos, sin).repeat_interleave(2, 1)
    query = rope_reference(q.double(), positions, cos, sin)[2]
    weights = torch.softmax(torch.einsum("hd,mhd->hm", query, keys) / 10**0.5, dim=-1)
    assert torch.allclose(o[0].double(), torch.einsum("hm,mhd->hd", weights, v.double().repeat_interleave(2, 1)))


@BACKEND
def test_a_token_alone_has_the_bits_it_has_in_a_batch_also_in_place(backend: str) -> None:
    q, k, v, positions = inputs(8)
    cos, sin = rope_tables(32, 10, device=DEVICE)
    slots = torch.arange(8, device=DEVICE)
    together, alone = cache_of(torch.int8), cache_of(torch.int8)
    before = q.clone()
    y = rope_and_cache(q, k, v, positions, cos, sin, slots, together, out=q, backend=backend)
    assert y.data_ptr() == q.data_ptr()
    for row in (0, 7):
        one = slice(row, row + 1)
        single = rope_and_cache(
            before[one], k[one], v[one], positions[one], cos, sin, slots[one], alone, backend=backend
        )
        assert torch.equal(single[0], y[row])
        assert torch.equal(alone.keys.flatten(0, 1)[row], together.keys.flatten(0, 1)[row])


@needs_triton
def test_the_operator_is_registered_and_compiles_into_a_full_graph() -> None:
    q, k, v, positions = inputs(2)
    cos, sin = rope_tables(16, 10, device=DEVICE)
    slots, cache = torch.tensor([3, 1], device=DEVICE), cache_of(torch.int8)
    arguments = (q, k, v, positions, cos, sin, slots, False, torch.empty_like(q), cache.keys, cache.values)
    torch.library.opcheck(ROPE_CACHE, (*arguments, cache.key_scales, cache.value_scales))

    def step(q: Tensor) -> Tensor:
        return rope_and_cache(q, k, v, positions, cos, sin, slots, cache, backend="triton")

    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(q), step(q))


def test_what_does_not_fit_is_refused() -> None:
    q, k, v, positions = inputs(2)
    tables, slots = rope_tables(16, 10), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="k and v alike"):
        rope_and_cache(q, k[:, :2], v, positions, *tables, slots, cache_of(torch.float32))
    with pytest.raises(ValueError, match="slots"):
        rope_and_cache(q, k, v, positions, *tables, slots.int(), cache_of(torch.float32))


def test_places_with_gaps_between_them_are_those_that_are_meant() -> None:
    q, k, v, positions = inputs(4, width=16)
    tables, slots = rope_tables(16, 16, device=DEVICE), torch.tensor([3, 1, 7, 0], device=DEVICE)
    plain, strided = (cache_of(torch.float32, width=16) for _ in range(2))
    y = rope_and_cache(q, k, v, positions, *tables, slots, plain)
    twice = [x.repeat_interleave(2)[::2] for x in (positions, slots)]
    assert torch.equal(rope_and_cache(q, k, v, twice[0], *tables, twice[1], strided), y)
    assert torch.equal(strided.keys, plain.keys)


@pytest.mark.skipif(DEVICE != "cpu" or not build.available(), reason="the compiled operator's own check")
@pytest.mark.parametrize(("position", "slot"), [(16, 0), (-1, 0), (0, 12)])
def test_places_beyond_the_tables_or_the_cache_are_refused(position: int, slot: int) -> None:
    q, k, v, _ = inputs(1)
    places = torch.tensor([position]), torch.tensor([slot])
    with pytest.raises(ValueError, match="allowed: below"):
        rope_and_cache(q, k, v, places[0], *rope_tables(16, 10), places[1], cache_of(torch.float32), backend="cpp")
