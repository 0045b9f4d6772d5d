"""The compiled operators of a decode step: as exact as torch, the same bits however tokens are batched or chunked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rolecall.kernels import gates, paged_attention, rms_norm, rope_cache
from rolecall.kernels.cpp import build
from rolecall.kernels.cpp.recording import Recording
from rolecall.kernels.paged_cache import PagedCache, empty_cache
from rolecall.kernels.rope import rope_tables

from .oracle import assert_as_exact_as_torch, random

pytestmark = pytest.mark.skipif(not build.available(), reason="needs a C++ compiler")


def filled(pages: int, page: int, heads: int, width: int, lengths: list[int], seed: int) -> tuple[PagedCache, Tensor]:
    """A cache of NaN but for the keys and values that `lengths` say are there, and the tables of their pages."""
    cache = empty_cache(pages=pages, page_size=page, heads=heads, width=width, dtype=torch.float32)
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    tables = torch.randperm(pages, generator=torch.Generator().manual_seed(seed)).int()
    tables = tables[: pages // len(lengths) * len(lengths)].view(len(lengths), -1).contiguous()
    for row, length in enumerate(lengths):
        places = torch.arange(length)
        at = tables[row].long()[places // page], places % page
        cache.keys[at] = random(length, heads, width, seed=seed + row)
        cache.values[at] = random(length, heads, width, seed=seed + row + 50)
    return cache, tables


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(1, 70), st.booleans(), st.booleans())
def test_normalisation(rows: int, width: int, residual: bool, weighted: bool) -> None:
    x, r = random(rows, width + 3)[:, :width], random(rows, width, seed=1)
    w = random(width, seed=2) if weighted else None
    h = x + r if residual else x
    got = rms_norm.add_rms_norm(x, r, w, backend="cpp")[0] if residual else rms_norm.rms_norm(x, w, backend="cpp")
    exact = rms_norm.reference(h.double(), None if w is None else w.double())
    assert_as_exact_as_torch(got, exact, rms_norm.reference(h, w))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(1, 70), st.sampled_from([1.0, 30.0]))
def test_gates(rows: int, width: int, scale: float) -> None:
    both = random(rows, 2 * width, scale=scale)
    g, u = both[:, :width], both[:, width:]
    got = gates.swiglu(g, u, backend="cpp")
    assert_as_exact_as_torch(got, gates.reference(g.double(), u.double()), gates.reference(g, u))
    assert torch.equal(gates.swiglu(g, u, out=both[:, :width], backend="cpp"), got)


def test_extremes_of_gates_are_those_of_torch() -> None:
    g = torch.tensor([[torch.nan, torch.inf, -torch.inf, -1e30, 1e30, -104.0, -88.0, 89.0, 0.0]])
    u = torch.ones_like(g)
    assert torch.allclose(gates.swiglu(g, u, backend="cpp"), gates.reference(g, u), equal_nan=True, atol=1e-37)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("width", [6, 64])
def test_rotation_and_the_write_of_the_cache(width: int, interleaved: bool) -> None:
    cos, sin = rope_tables(40, width - 2)
    q, k, v = (random(5, heads, width, seed=heads) for heads in (6, 2, 3))
    v = v[:, :2]
    positions, slots = torch.tensor([3, 0, 39, 7, 8]), torch.tensor([5, -1, 0, 15, 2])
    outs = []
    for backend in ("cpp", "torch"):
        cache = empty_cache(pages=4, page_size=4, heads=2, width=width, dtype=torch.float32)
        cache.keys.zero_()
        cache.values.zero_()
        y = rope_cache.rope_and_cache(
            q, k, v, positions, cos, sin, slots, cache, interleaved=interleaved, backend=backend
        )
        outs.append((y, cache.keys, cache.values))
    for ours, theirs in zip(*outs, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=1, max_size=4),
    st.sampled_from([16, 32, 64]),
    st.sampled_from([None, 1, 7, 30]),
    st.integers(0, 99),
)
def test_attention(sizes: list[tuple[int, int]], width: int, window: int | None, seed: int) -> None:
    lengths, counts = [before + n for before, n in sizes], [n for _, n in sizes]
    cache, tables = filled(len(sizes) * 8, 8, 2, width, lengths, seed)
    starts = torch.tensor([0, *counts]).cumsum(0).int()
    q = random(sum(counts), 6, width, seed=seed + 9)
    length = torch.tensor(lengths).int()
    got = paged_attention.paged_attention(q, cache, tables, length, q_starts=starts, window=window, backend="cpp")
    exact = paged_attention.reference(q.double(), cache, tables, length, q_starts=starts, window=window)
    torchs = paged_attention.reference(q, cache, tables, length, q_starts=starts, window=window)
    assert_as_exact_as_torch(got, exact, torchs, ulps=16)


def test_a_token_decoded_alone_has_the_bits_it_has_in_a_chunk_and_in_a_batch_on_any_threads() -> None:
    cache, tables = filled(60, 8, 2, 64, [90, 70, 33], seed=3)
    q = random(90 + 70 + 33, 6, 64)
    starts, lengths = torch.tensor([0, 90, 160, 193]).int(), torch.tensor([90, 70, 33]).int()
    before = torch.get_num_threads()
    try:
        wholes = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            wholes.append(paged_attention.paged_attention(q, cache, tables, lengths, q_starts=starts, backend="cpp"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(wholes[0], wholes[1])
    assert torch.equal(wholes[0], wholes[2])
    last = q[[89, 159, 192]]
    batch = paged_attention.paged_attention(last, cache, tables, lengths, backend="cpp")
    assert torch.equal(batch, wholes[0][[89, 159, 192]])
    alone = paged_attention.paged_attention(last[1:2], cache, tables[1:2], lengths[1:2], backend="cpp")
    assert torch.equal(alone[0], batch[1])
    middle = paged_attention.paged_attention(
        q[40:41], cache, tables[:1], torch.tensor([41]).int(), q_starts=None, backend="cpp"
    )
    assert torch.equal(middle[0], wholes[0][40])


def test_a_recording_makes_the_same_calls_again_on_what_its_tensors_hold_then() -> None:
    recording = Recording()
    x, w, y, z = random(3, 40), random(40, seed=1), torch.zeros(3, 40), torch.zeros(3, 20)
    rms_norm.norm_into(x, None, w, 1e-5, y, None, 2, recording)
    gates.swiglu_into(y[:, :20], y[:, 20:], z, 2, recording)
    assert not y.any()
    for seed in (0, 7):
        x.copy_(random(3, 40, seed=seed))
        recording.replay()
        normed = rms_norm.rms_norm(x, w, eps=1e-5, backend="cpp")
        assert torch.equal(y, normed)
        assert torch.equal(z, gates.swiglu(normed[:, :20], normed[:, 20:], backend="cpp"))


def test_only_operators_can_be_recorded() -> None:
    with pytest.raises(AttributeError, match="allowed: weight_only_linear"):
        Recording().int8_topk(1)
