"""Cases of the operators that work on heads: rotary embedding, attention, the paged cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rolecall.kernels import intensity
from rolecall.kernels.attention import attention
from rolecall.kernels.case import Case, Numbers, Scale, Sizes, working_dtype
from rolecall.kernels.dispatch import HAS_TRITON, INTERPRETED
from rolecall.kernels.paged_attention import Workspace, paged_attention, workspace_for
from rolecall.kernels.paged_cache import QUANTIZED, PagedCache
from rolecall.kernels.rope import rope_pair, rope_tables
from rolecall.kernels.rope_cache import rope_and_cache

PAGE = 16

# tokens, query heads, key heads, width
ROPES: Sizes = {"tiny": ((3, 4, 2, 16),), "cpu": ((1024, 9, 3, 64),), "gpu": ((16_384, 32, 8, 128),)}
# sequences, tokens, query heads, key heads, width
ATTENTIONS: Sizes = {"tiny": ((1, 24, 4, 2, 16),), "cpu": ((1, 1024, 9, 3, 64),), "gpu": ((1, 16_384, 16, 16, 128),)}
# sequences, keys, query heads, key heads, width
DECODES: Sizes = {
    "tiny": ((2, 40, 4, 2, 16),),
    "cpu": ((4, 2048, 9, 3, 64),),
    "gpu": ((64, 4096, 32, 8, 128), (16, 32_768, 32, 8, 128)),
}
CHUNK: Mapping[Scale, int] = {"tiny": 3, "cpu": 128, "gpu": 1024}  # queries of a prefill chunk


@dataclass(frozen=True, kw_only=True)
class Turned:
    """q_THD, k_TGD, v_TGD, their positions and angles, and where they go."""

    q: Tensor
    k: Tensor
    v: Tensor
    positions: Tensor
    cos: Tensor
    sin: Tensor
    slots: Tensor
    cache: PagedCache
    out: tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Heads:
    """q_BNHD, k_BMGD, v_BMGD and the output."""

    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Queries over a cache in pages; `length` keys a sequence; `starts` of the chunks, None where one token decodes."""

    q: Tensor
    cache: PagedCache
    tables: Tensor
    lengths: Tensor
    length: int
    starts: Tensor | None
    longest: int
    out: Tensor
    workspace: Workspace | None


OPS = ("rope", "rope_pair", "attention", "paged_decode", "paged_decode_int8", "paged_prefill")


def cases(op: str, scale: Scale, device: torch.device) -> list[Case]:
    """The cases of one of `OPS`. `rope` writes keys and values to the cache, as a step of a model does."""
    if op in ("rope", "rope_pair"):
        return [_turned(op, sizes, device) for sizes in ROPES[scale]]
    if op == "attention":
        return [_attention(sizes, device) for sizes in ATTENTIONS[scale]]
    return [_paged(op, sizes, CHUNK[scale], device) for sizes in DECODES[scale]]


def _turned(op: str, sizes: tuple[int, ...], device: torch.device) -> Case:
    T, H, G, D = sizes
    dtype = working_dtype(device)

    def inputs(seed: int) -> Turned:
        q, k, v = (
            Numbers(seed=seed + i, device=device).normal(T, heads, D, dtype=dtype) for i, heads in enumerate((H, G, G))
        )
        cos, sin = rope_tables(T, D, device=device)
        numbers = Numbers(seed=seed, device=device)
        pages = -(-T // PAGE)
        slots = (numbers.order(pages)[:, None] * PAGE + torch.arange(PAGE, device=device)).flatten()[:T]
        entries = [torch.empty(pages, PAGE, G, D, dtype=dtype, device=device) for _ in range(2)]
        return Turned(
            q=q,
            k=k,
            v=v,
            positions=torch.arange(T, device=device),
            cos=cos,
            sin=sin,
            slots=slots,
            cache=PagedCache(keys=entries[0], values=entries[1]),
            out=(torch.empty_like(q), torch.empty_like(k)),
        )

    def cached(i: Turned, backend: str | None) -> Tensor:
        return rope_and_cache(i.q, i.k, i.v, i.positions, i.cos, i.sin, i.slots, i.cache, out=i.out[0], backend=backend)

    def pair(i: Turned, backend: str | None) -> tuple[Tensor, Tensor]:
        return rope_pair(i.q, i.k, i.positions, i.cos, i.sin, out=i.out, backend=backend)

    formula = intensity.rope_cache if op == "rope" else intensity.rope_pair
    return Case(
        op=op,
        shape=f"{T} tokens, {H}/{G} heads of {D}",
        work=formula(T, H, G, D, dtype),
        inputs=inputs,
        run=cached if op == "rope" else pair,
    )


def _attention(sizes: tuple[int, ...], device: torch.device) -> Case:
    B, N, H, G, D = sizes
    dtype = working_dtype(device)

    def inputs(seed: int) -> Heads:
        q, k, v = (
            Numbers(seed=seed + i, device=device).normal(B, N, heads, D, dtype=dtype)
            for i, heads in enumerate((H, G, G))
        )
        return Heads(q=q, k=k, v=v, out=torch.empty_like(q))

    return Case(
        op="attention",
        shape=f"causal, {B} x {N} tokens, {H}/{G} heads of {D}",
        work=intensity.attention(B, N, N, H, G, D, dtype, causal=True),
        inputs=inputs,
        run=lambda i, backend: attention(i.q, i.k, i.v, causal=True, out=i.out, backend=backend),
    )


def _paged(op: str, sizes: tuple[int, ...], chunk: int, device: torch.device) -> Case:
    B, M, H, G, D = sizes
    dtype = working_dtype(device)
    entries = torch.int8 if op == "paged_decode_int8" else dtype
    queries = chunk if op == "paged_prefill" else 1

    def inputs(seed: int) -> Pages:
        q = Numbers(seed=seed, device=device).normal(B * queries, H, D, dtype=dtype)
        cache, tables = _cache(B, M, G, D, entries, Numbers(seed=seed, device=device))
        starts = torch.arange(B + 1, dtype=torch.int32, device=device) * queries if queries > 1 else None
        kernel = starts is None and HAS_TRITON and (q.is_cuda or INTERPRETED)
        return Pages(
            q=q,
            cache=cache,
            tables=tables,
            lengths=torch.full((B,), M, dtype=torch.int32, device=device),
            length=M,
            starts=starts,
            longest=queries,
            out=torch.empty_like(q),
            workspace=workspace_for(q, cache, tables) if kernel else None,
        )

    return Case(
        op=op,
        shape=f"{B} x {M} keys, {H}/{G} heads of {D}" + (f", chunks of {queries}" if queries > 1 else ""),
        work=intensity.paged_attention([M] * B, H, G, D, dtype, cache=entries, page_size=PAGE, queries=queries),
        inputs=inputs,
        run=lambda i, backend: paged_attention(
            i.q,
            i.cache,
            i.tables,
            i.lengths,
            q_starts=i.starts,
            longest=i.longest,
            out=i.out,
            workspace=i.workspace,
            backend=backend,
        ),
        waits=device.type != "cuda",
    )


def _cache(B: int, M: int, G: int, D: int, entries: torch.dtype, numbers: Numbers) -> tuple[PagedCache, Tensor]:
    """B sequences of M random keys and values in shuffled pages, and their block tables."""
    pages = -(-M // PAGE)
    shape = (B * pages, PAGE, G, D)
    tables = numbers.order(B * pages).to(torch.int32).view(B, pages)
    if entries not in QUANTIZED:
        keys, values = numbers.normal(*shape, dtype=entries), numbers.normal(*shape, dtype=entries)
        return PagedCache(keys=keys, values=values), tables
    scales = [numbers.scales(*shape[:3]) / QUANTIZED[entries] for _ in range(2)]
    cache = PagedCache(
        keys=numbers.codes(*shape), values=numbers.codes(*shape), key_scales=scales[0], value_scales=scales[1]
    )
    return cache, tables
