"""Paged attention: decoding and chunked prefill against float64, every cache type, recycled pages, invariance."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.kernels import attention
from rolecall.kernels.paged_attention import (
    PAGED_ATTENTION,
    join_states,
    paged_attention,
    partial_state,
    reference,
    workspace_for,
)
from rolecall.kernels.paged_cache import PagedCache, empty_cache

from .oracle import DEVICE, DTYPES, LOOPING_BACKENDS, assert_as_exact_as_torch, needs_loops, random
from .pages import filled_cache

BACKEND = pytest.mark.parametrize("backend", LOOPING_BACKENDS)
CACHES = [torch.float32, torch.int8, torch.float8_e4m3fn]


def test_the_golden_states_of_online_softmax() -> None:
    scores, values = torch.tensor([1.0, 3, 0, 2]).double(), torch.tensor([[1.0, 0], [0, 2], [-1, 1], [3, 1]]).double()
    m, total, z = first = partial_state(scores[:2], values[:2])
    assert float(m) == 3
    assert float(total) == pytest.approx(1.13533528, abs=1e-8)
    assert z.tolist() == pytest.approx([0.13533528, 2.0], abs=1e-8)
    nothing = partial_state(scores[:0], values[:0])
    output = join_states([nothing, first, partial_state(scores[2:], values[2:]), nothing])
    assert output.tolist() == pytest.approx([0.76573417, 1.55676994], abs=1e-8)
    assert join_states([nothing, nothing]).tolist() == [0.0, 0.0]


@BACKEND
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "groups", "width", "page_size"), [(1, 1, 8, 1), (6, 2, 20, 5), (3, 3, 64, 16)])
def test_decoding_is_as_exact_as_torch(
    heads: int, groups: int, width: int, page_size: int, dtype: torch.dtype, backend: str
) -> None:
    cache, tables, lengths = filled_cache([1, 40, 17], page_size=page_size, heads=groups, width=width, dtype=dtype)
    q = random(3, heads, width, dtype=dtype)
    exact = reference(q.double(), cache, tables, lengths)
    ours = paged_attention(q, cache, tables, lengths, backend=backend)
    assert_as_exact_as_torch(ours, exact, same_dtype(q, cache, tables, lengths))


def same_dtype(q: torch.Tensor, cache: PagedCache, tables: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Scores, softmax and sum in q's dtype."""
    rows = []
    for row, length in enumerate(lengths.tolist()):
        keys, values = cache.gather(tables[row], length, q.dtype)
        group = q.shape[1] // keys.shape[1]
        keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
        weights = torch.softmax(torch.einsum("hd,mhd->hm", q[row], keys) / math.sqrt(q.shape[2]), dim=-1)
        rows.append(torch.einsum("hm,mhd->hd", weights, values))
    return torch.stack(rows)


@BACKEND
@settings(max_examples=6, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 70), min_size=0, max_size=3),
    page_size=st.integers(1, 20),
    window=st.none() | st.integers(1, 40),
    entries=st.sampled_from(CACHES),
)
def test_any_lengths_pages_windows_and_caches(
    backend: str, lengths: list[int], page_size: int, window: int | None, entries: torch.dtype
) -> None:
    cache, tables, keys = filled_cache(lengths, page_size=page_size, heads=2, width=8, dtype=entries)
    q = random(len(lengths), 4, 8)
    exact = reference(q.double(), cache, tables, keys, window=window)
    ours = paged_attention(q, cache, tables, keys, window=window, backend=backend)
    assert torch.allclose(ours.double(), exact, atol=1e-5)
    assert all(bool((ours[row] == 0).all()) for row, length in enumerate(lengths) if length == 0)


@BACKEND
@settings(max_examples=6, deadline=None)
@given(
    chunks=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 30)), min_size=1, max_size=3),
    window=st.none() | st.integers(1, 20),
    entries=st.sampled_from(CACHES),
)
def test_a_chunk_behind_a_cached_prefix_sees_what_whole_attention_sees(
    backend: str, chunks: list[tuple[int, int]], window: int | None, entries: torch.dtype
) -> None:
    totals = [prefix + chunk for chunk, prefix in chunks]
    cache, tables, lengths = filled_cache(totals, page_size=4, heads=2, width=8, dtype=entries)
    starts = torch.tensor([0, *(chunk for chunk, _ in chunks)], device=DEVICE).cumsum(0).int()
    q = random(int(starts[-1]), 6, 8)
    ours = paged_attention(q, cache, tables, lengths, q_starts=starts, window=window, backend=backend)
    for row, (chunk, prefix) in enumerate(chunks):
        keys, values = cache.gather(tables[row], totals[row], torch.float64)
        queries = random(prefix + chunk, 6, 8, seed=9).double()
        queries[prefix:] = q[int(starts[row]) : int(starts[row + 1])].double()
        whole = attention.reference(queries, keys, values, causal=True, window=window)
        assert torch.allclose(ours[int(starts[row]) : int(starts[row + 1])].double(), whole[prefix:], atol=1e-5)


@BACKEND
def test_what_a_recycled_page_holds_beyond_a_sequence_changes_no_bit(backend: str) -> None:
    cache, tables, lengths = filled_cache([5, 37], page_size=8, heads=1, width=16)
    q = random(2, 2, 16)
    zeros = PagedCache(keys=cache.keys.nan_to_num(0.0), values=cache.values.nan_to_num(0.0))
    ours = paged_attention(q, cache, tables, lengths, backend=backend)
    assert bool(ours.isfinite().all())
    assert torch.equal(ours, paged_attention(q, zeros, tables, lengths, backend=backend))


@BACKEND
@pytest.mark.parametrize("entries", [torch.float16, torch.int8])
def test_a_sequence_alone_has_the_bits_it_has_in_a_batch_of_64(entries: torch.dtype, backend: str) -> None:
    sizes = [1 + (7 * row) % 40 for row in range(64)]
    cache, tables, lengths = filled_cache(sizes, page_size=8, heads=1, width=16, dtype=entries, spare=0)
    q = random(64, 1, 16, dtype=torch.float16)
    together = paged_attention(q, cache, tables, lengths, backend=backend)
    for row in (0, 17, 63):
        one = slice(row, row + 1)
        narrow = tables[one, : -(-sizes[row] // 8)]
        for table in (tables[one], narrow):
            assert torch.equal(paged_attention(q[one], cache, table, lengths[one], backend=backend)[0], together[row])


@needs_loops
def test_a_decode_step_writes_where_it_is_told_and_allocates_no_tensor() -> None:
    cache, tables, lengths = filled_cache([3, 40], page_size=8, heads=1, width=16)
    q = random(2, 2, 16)
    out, workspace = torch.empty_like(q), workspace_for(q, cache, tables)
    made = paged_attention(q, cache, tables, lengths, out=out, workspace=workspace, backend="triton")
    assert made is out
    assert torch.equal(out, paged_attention(q, cache, tables, lengths, backend="triton"))


@needs_loops
def test_the_operator_is_registered_and_compiles_into_a_full_graph() -> None:
    cache, tables, lengths = filled_cache([3, 40], page_size=8, heads=1, width=16)
    q = random(2, 2, 16)
    space = workspace_for(q, cache, tables)
    clean = PagedCache(keys=cache.keys.nan_to_num(0.0), values=cache.values.nan_to_num(0.0))
    arguments = (q, clean.keys, clean.values, None, None, tables, lengths, None, 1, 0, 0.25, torch.empty_like(q))
    torch.library.opcheck(PAGED_ATTENTION, (*arguments, space.z.zero_(), space.states.zero_()))

    def step(q: torch.Tensor) -> torch.Tensor:
        return paged_attention(q, cache, tables, lengths, workspace=space, backend="triton") + 1

    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(q), step(q))


def test_what_does_not_fit_is_refused() -> None:
    cache, tables, lengths = filled_cache([3, 40], page_size=8, heads=2, width=16)
    with pytest.raises(ValueError, match="a multiple of 2"):
        paged_attention(random(2, 3, 16), cache, tables, lengths)
    with pytest.raises(ValueError, match="int32"):
        paged_attention(random(2, 2, 16), cache, tables.long(), lengths)
    with pytest.raises(ValueError, match="one each"):
        paged_attention(random(3, 2, 16), cache, tables, lengths)
    with pytest.raises(ValueError, match="at least 1"):
        paged_attention(random(2, 2, 16), cache, tables, lengths, window=0)
    with pytest.raises(ValueError, match="two alike"):
        PagedCache(keys=cache.keys, values=cache.values[:1])
    codes = empty_cache(pages=1, page_size=2, heads=1, width=4, dtype=torch.int8)
    with pytest.raises(ValueError, match="got scales None"):
        PagedCache(keys=codes.keys, values=codes.values)
