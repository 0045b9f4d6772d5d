"""Causal attention over a paged key-value cache: decoding, and prefill in chunks behind a cached prefix.

Decoding: one query a sequence, q_BHD. Prefill: q_THD with q_starts [B + 1]; sequence b's n queries are its last n
tokens, already written to the cache. Sequence b has lengths[b] keys in the pages block_tables[b] names; query i of n
sees keys up to lengths[b] - n + i, with a window w only the last w of them. Dtypes: q float16, bfloat16, float32
(float64 through torch); cache as in `paged_cache`; scores and sums float32. A query without keys gets zeros.

The queries of the H / G heads that share a key head form one tile, so a page is read once for all of them. A
decoded sequence is cut into splits of SPLIT keys that different programs fold into (m, l, z), as in `attention`;
a second kernel joins them, in order: M = max m_i, o = sum e^(m_i - M) z_i / sum e^(m_i - M) l_i. A split that sees
nothing has m = -inf, l = 0; one beyond the sequence is never read. Splits are as long for every sequence, whatever else
is in the batch, so a sequence alone has the bits it has in any batch. Flash-Decoding: Dao et al., 2023; pages: Kwon
et al., arXiv:2309.06180. Bytes: 2 G D entries a key. Keys that no query sees are not loaded: a recycled page's NaN
cannot reach a sum.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rolecall.kernels import attention
from rolecall.kernels.attention import LOG2_E, compute_type, fold, normalized, softmax_scale
from rolecall.kernels.configurations import Configuration, blocks, configuration, power_of_two
from rolecall.kernels.cpp import build
from rolecall.kernels.cpp.recording import Recording
from rolecall.kernels.dispatch import (
    INTERPRETED,
    Pointer,
    Scalar,
    choose,
    compiling,
    constexpr,
    jit,
    register,
    tl,
    triton,
)
from rolecall.kernels.paged_cache import PagedCache
from rolecall.kernels.rows import FLOATS, output, written


def reference(
    q: Tensor,
    cache: PagedCache,
    block_tables: Tensor,
    lengths: Tensor,
    *,
    q_starts: Tensor | None = None,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """[T, H, D] in q's dtype, each sequence by `attention.reference` over keys in float32 (float64 for such a q)."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    parts = [
        attention.reference(queries.to(wide), keys, values, causal=True, window=window, scale=scale)
        for queries, keys, values in _sequences(q, cache, block_tables, lengths, q_starts, wide)
    ]
    return torch.cat(parts).to(q.dtype) if parts else torch.zeros_like(q)


def partial_state(scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(m, l, z) of one split: scores [M], values [M, D]; (-inf, 0, 0) for none."""
    m = scores.max() if len(scores) else scores.new_tensor(-math.inf)
    weights = torch.exp(scores - m)
    return m, weights.sum(), weights @ values


def join_states(states: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The output [D] of the splits together; zeros if all are empty."""
    peak = torch.stack([m for m, _, _ in states]).max()
    if peak == -math.inf:
        return torch.zeros_like(states[0][2])
    shares = [torch.exp(m - peak) for m, _, _ in states]
    total = torch.stack([share * state[1] for share, state in zip(shares, states, strict=True)]).sum()
    return torch.stack([share * state[2] for share, state in zip(shares, states, strict=True)]).sum(0) / total


def _sequences(
    q: Tensor, cache: PagedCache, block_tables: Tensor, lengths: Tensor, q_starts: Tensor | None, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    starts = list(range(len(lengths) + 1)) if q_starts is None else q_starts.tolist()
    for row, length in enumerate(lengths.tolist()):
        keys, values = cache.gather(block_tables[row], length, dtype)
        yield q[starts[row] : starts[row + 1]], keys, values


@jit
def _kernel(
    q_ptr: Pointer,
    k_ptr: Pointer,
    v_ptr: Pointer,
    k_scale_ptr: Pointer,
    v_scale_ptr: Pointer,
    o_ptr: Pointer,
    z_ptr: Pointer,
    state_ptr: Pointer,
    tables_ptr: Pointer,
    lengths_ptr: Pointer,
    starts_ptr: Pointer,
    group: Scalar,
    splits: Scalar,
    scale: Scalar,
    window: Scalar,
    q_token: Scalar,
    q_head: Scalar,
    o_token: Scalar,
    o_head: Scalar,
    k_page: Scalar,
    k_slot: Scalar,
    k_head: Scalar,
    v_page: Scalar,
    v_slot: Scalar,
    v_head: Scalar,
    ks_page: Scalar,
    ks_slot: Scalar,
    ks_head: Scalar,
    vs_page: Scalar,
    vs_slot: Scalar,
    vs_head: Scalar,
    table_stride: Scalar,
    PREFILL: constexpr,
    DIRECT: constexpr,
    WINDOW: constexpr,
    SCALED: constexpr,
    COMPUTE: constexpr,
    D: constexpr,
    WIDTH: constexpr,
    GROUP: constexpr,
    PAGE: constexpr,
    ROWS: constexpr,
    QUERIES: constexpr,
    KEYS: constexpr,
    SPLIT: constexpr,
) -> None:
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    part = tl.program_id(2)
    length = tl.load(lengths_ptr + sequence)
    row = tl.arange(0, ROWS)
    query, member = row // GROUP, row % GROUP
    if PREFILL:
        q_first = tl.load(starts_ptr + sequence)
        n = tl.load(starts_ptr + sequence + 1) - q_first
        query += part * QUERIES
        first, end = 0, tl.minimum(length, tl.maximum(length - n + part * QUERIES + QUERIES, 0))
        busy = part * QUERIES < n
    else:
        q_first = sequence
        n = 1
        first, end = part * SPLIT, tl.minimum(part * SPLIT + SPLIT, length)
        busy = (first < end) | (part == 0)
    if busy:
        valid = (query < n) & (member < group) & (row < QUERIES * GROUP)
        last = length - n + query
        d = tl.arange(0, WIDTH)
        inside = valid[:, None] & (d < D)[None, :]
        token = (q_first + query).to(tl.int64)
        heads = head * group + member
        q = tl.load(q_ptr + token[:, None] * q_token + heads[:, None] * q_head + d[None, :], mask=inside, other=0.0).to(
            COMPUTE
        )
        lowest = 0
        if WINDOW:
            lowest = tl.maximum(length - n - window + 1, 0)
            if PREFILL:
                lowest = tl.maximum(length - n + part * QUERIES - window + 1, 0)
            first = tl.maximum(first, lowest // KEYS * KEYS)
        z = tl.zeros([ROWS, WIDTH], tl.float32)
        peak = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        for start in tl.range(first, end, KEYS):
            keys = start + tl.arange(0, KEYS)
            known = (keys < end) & (keys >= lowest)
            there = known[:, None] & (d < D)[None, :]
            page = tl.load(tables_ptr + sequence.to(tl.int64) * table_stride + keys // PAGE, mask=known, other=0)
            page, slot = page.to(tl.int64), keys % PAGE
            k = tl.load(
                k_ptr + (page * k_page + slot * k_slot + head * k_head)[:, None] + d[None, :], mask=there, other=0.0
            )
            scores = tl.dot(q, tl.trans(k.to(COMPUTE)), input_precision="ieee") * scale
            v_scale = peak
            if SCALED:
                k_scale = tl.load(k_scale_ptr + page * ks_page + slot * ks_slot + head * ks_head, mask=known, other=0.0)
                v_scale = tl.load(v_scale_ptr + page * vs_page + slot * vs_slot + head * vs_head, mask=known, other=0.0)
                scores *= k_scale[None, :]
            seen = known[None, :] & (keys[None, :] <= last[:, None])
            if WINDOW:
                seen = seen & (keys[None, :] > last[:, None] - window)
            scores = tl.where(seen, scores, float("-inf"))
            v = tl.load(
                v_ptr + (page * v_page + slot * v_slot + head * v_head)[:, None] + d[None, :], mask=there, other=0.0
            )
            z, peak, total = fold(z, peak, total, scores, v.to(COMPUTE), v_scale, SCALED)
        if DIRECT:
            o = normalized(z, total)
            o_row = o_ptr + token[:, None] * o_token + heads[:, None] * o_head
            tl.store(o_row + d[None, :], o.to(o_ptr.dtype.element_ty), mask=inside)
        else:
            place = (token * (tl.num_programs(1) * group) + heads) * splits + part
            tl.store(z_ptr + place[:, None] * D + d[None, :], z, mask=inside)
            tl.store(state_ptr + place * 2, peak, mask=valid)
            tl.store(state_ptr + place * 2 + 1, total, mask=valid)


@jit
def _join_kernel(
    z_ptr: Pointer,
    state_ptr: Pointer,
    o_ptr: Pointer,
    lengths_ptr: Pointer,
    splits: Scalar,
    o_token: Scalar,
    o_head: Scalar,
    D: constexpr,
    WIDTH: constexpr,
    SPLIT: constexpr,
) -> None:
    """One program a sequence and head."""
    sequence, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = (sequence * tl.num_programs(1) + head) * splits
    d = tl.arange(0, WIDTH)
    z = tl.zeros([WIDTH], tl.float32)
    peak, total = float("-inf"), 0.0
    for part in tl.range(0, tl.cdiv(tl.load(lengths_ptr + sequence), SPLIT)):
        theirs = tl.load(state_ptr + (place + part) * 2)
        higher = tl.maximum(peak, theirs)
        level = tl.where(higher == float("-inf"), 0.0, higher)
        mine, share = tl.exp2(peak - level), tl.exp2(theirs - level)
        z = z * mine + share * tl.load(z_ptr + (place + part) * D + d, mask=d < D, other=0.0)
        total = total * mine + share * tl.load(state_ptr + (place + part) * 2 + 1)
        peak = higher
    o = tl.where(total == 0.0, 0.0, z / tl.where(total == 0.0, 1.0, total))
    tl.store(o_ptr + sequence * o_token + head * o_head + d, o.to(o_ptr.dtype.element_ty), mask=d < D)


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where splits leave (z, m, l): `z` float32 [B, H, splits, D], `states` float32 [B, H, splits, 2]."""

    z: Tensor
    states: Tensor


def workspace_for(q: Tensor, cache: PagedCache, block_tables: Tensor) -> Workspace:
    """What decoding these queries [B, H, D] with tables this wide needs; a decode loop keeps it."""
    splits = triton.cdiv(block_tables.shape[1] * cache.page_size, _decode_configuration(q).blocks["SPLIT"])
    B, H, D = q.shape
    return Workspace(
        z=torch.empty(B, H, splits, D, device=q.device), states=torch.empty(B, H, splits, 2, device=q.device)
    )


def _decode_configuration(q: Tensor) -> Configuration:
    default = Configuration(blocks=blocks(KEYS=64, SPLIT=256), warps=4, stages=3)
    if INTERPRETED:
        default = Configuration(blocks=blocks(KEYS=16, SPLIT=32))
    return configuration("paged_decode", f"d{q.shape[-1]}", q, default)


def _prefill_configuration(q: Tensor) -> Configuration:
    default = Configuration(blocks=blocks(KEYS=64, ROWS=64), warps=4, stages=3)
    if INTERPRETED:
        default = Configuration(blocks=blocks(KEYS=16, ROWS=16))
    return configuration("paged_prefill", f"d{q.shape[-1]}", q, default)


def _launch(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    block_tables: Tensor,
    lengths: Tensor,
    q_starts: Tensor | None,
    longest: int,
    window: int,
    scale: float,
    out: Tensor,
    z: Tensor,
    states: Tensor,
) -> None:
    B, G, D = lengths.shape[0], keys.shape[2], keys.shape[3]
    H = q.shape[1]
    if q.numel() == 0 or B == 0:
        return
    group, width = H // G, max(16, power_of_two(D))
    packed = power_of_two(group)
    prefill = q_starts is not None
    chosen = _prefill_configuration(q) if prefill else _decode_configuration(q)
    rows = max(16, packed, chosen.blocks["ROWS"] if prefill else 1)
    queries = rows // packed if prefill else 1
    split = 0 if prefill else chosen.blocks["SPLIT"]
    splits = 1 if prefill else z.shape[2]
    parts = triton.cdiv(longest, queries) if prefill else splits
    ks, vs = (keys[..., 0] if s is None else s for s in (key_scales, value_scales))
    _kernel[(B, G, parts)](
        *(q, keys, values, ks, vs, out, z, states, block_tables, lengths, lengths if q_starts is None else q_starts),
        *(group, splits, scale * LOG2_E, window, *q.stride()[:2], *out.stride()[:2]),
        *(*keys.stride()[:3], *values.stride()[:3], *ks.stride()[:3], *vs.stride()[:3], block_tables.stride(0)),
        PREFILL=prefill,
        DIRECT=splits == 1,
        WINDOW=window > 0,
        SCALED=key_scales is not None,
        COMPUTE=compute_type(q.dtype),
        D=D,
        WIDTH=width,
        GROUP=packed,
        PAGE=keys.shape[1],
        **{**chosen.launch, "ROWS": rows, "QUERIES": queries, "SPLIT": split},
    )
    if splits > 1:
        _join_kernel[(B, H)](
            z, states, out, lengths, splits, *out.stride()[:2], D=D, WIDTH=width, SPLIT=split, num_warps=1
        )


_Strides = ctypes.c_int64 * 11
COMPILED_WIDTHS = (16, 32, 64, 96, 128, 256)
_BRIEF = 1 << 14  # queries' heads times sequences' widest table: below, about 100 microseconds, Python's lock is kept


def attention_into(
    q: Tensor,
    cache: PagedCache,
    block_tables: Tensor,
    lengths: Tensor,
    *,
    q_starts: Tensor | None,
    longest: int,
    window: int,
    scale: float,
    out: Tensor,
    threads: int,
    recording: Recording | None = None,
) -> None:
    """The compiled operator and nothing else, made or noted in `recording`: for a loop that has checked its shapes.

    Float32 on the CPU, heads' elements side by side, heads as wide as one of `COMPILED_WIDTHS`, int32 `lengths` and
    `q_starts` contiguous; only where `build.available()`.
    """
    T, H, D = q.shape
    keys, values = cache.keys, cache.values
    brief = T * H * block_tables.shape[1] * keys.shape[1] <= _BRIEF
    (recording or build.functions(brief=brief)).paged_attention(
        *(x.data_ptr() for x in (q, keys, values, out, block_tables, lengths)),
        None if q_starts is None else q_starts.data_ptr(),
        _Strides(
            *(*q.stride()[:2], *out.stride()[:2], *keys.stride()[:3], *values.stride()[:3], block_tables.stride(0))
        ),
        *(lengths.shape[0], H, keys.shape[2], D, keys.shape[1], longest, window, scale, threads),
    )


PAGED_ATTENTION = register("paged_attention", _launch, writes=("out", "z", "states"))


def paged_attention(
    q: Tensor,
    cache: PagedCache,
    block_tables: Tensor,
    lengths: Tensor,
    *,
    q_starts: Tensor | None = None,
    longest: int | None = None,
    window: int | None = None,
    scale: float | None = None,
    out: Tensor | None = None,
    workspace: Workspace | None = None,
    backend: str | None = None,
) -> Tensor:
    """[B, H, D] of one query a sequence, or [T, H, D] of the chunks that `q_starts` [B + 1] bounds.

    block_tables: int32 [B, pages]; lengths: int32 [B], keys including those of the queries. `longest`: the most queries
    of a chunk, to spare reading it from the device. `scale`: 1 / sqrt(D) unless given. With `out` and `workspace` (see
    `workspace_for`) a decode step allocates nothing. Page numbers are not checked. Raises ValueError for what does not
    fit.
    """
    _check(q, cache, block_tables, lengths, q_starts, window)
    takes = q.dtype in FLOATS and q.stride(2) == 1 and (cache.quantized or cache.keys.dtype == q.dtype)
    wide = q.dtype == cache.keys.dtype == torch.float32 and q.shape[2] in COMPILED_WIDTHS and q.stride(2) == 1
    plain = lengths.is_contiguous() and (q_starts is None or q_starts.is_contiguous()) and not compiling()
    plain = plain and (out is None or out.stride(2) == 1) and (q_starts is None or q_starts.dtype == torch.int32)
    chosen = choose("paged_attention", q, backend, cpp=build.available if wide and plain else None, triton_takes=takes)
    if chosen == "torch":
        return written(_through_torch(q, cache, block_tables, lengths, q_starts, window, scale), out)
    o = output(q, out)
    if q_starts is not None:
        longest = int(q_starts.diff().max()) if longest is None and len(lengths) else longest or 0
    if chosen == "cpp":
        attention_into(
            q,
            cache,
            block_tables,
            lengths,
            q_starts=q_starts,
            longest=longest or 1,
            window=window or 0,
            scale=softmax_scale(q, scale),
            out=o,
            threads=torch.get_num_threads(),
        )
        return o
    if q_starts is not None:
        z = states = q.new_empty(1, dtype=torch.float32)
    else:
        workspace = workspace or workspace_for(q, cache, block_tables)
        z, states = workspace.z, workspace.states
    (PAGED_ATTENTION if compiling() else _launch)(
        q,
        cache.keys,
        cache.values,
        cache.key_scales,
        cache.value_scales,
        block_tables,
        lengths,
        q_starts,
        longest or 1,
        window or 0,
        softmax_scale(q, scale),
        o,
        z,
        states,
    )
    return o


def _through_torch(
    q: Tensor,
    cache: PagedCache,
    block_tables: Tensor,
    lengths: Tensor,
    q_starts: Tensor | None,
    window: int | None,
    scale: float | None,
) -> Tensor:
    parts = [
        attention.one_sequence(queries, keys, values, True, window, scale)
        for queries, keys, values in _sequences(q, cache, block_tables, lengths, q_starts, q.dtype)
    ]
    return torch.cat(parts) if parts else torch.zeros_like(q)


def _check(
    q: Tensor,
    cache: PagedCache,
    block_tables: Tensor,
    lengths: Tensor,
    q_starts: Tensor | None,
    window: int | None,
) -> None:
    G, D = cache.keys.shape[2:]
    if q.ndim != 3 or not q.is_floating_point() or q.shape[2] != D or G == 0 or q.shape[1] % G:
        raise ValueError(
            f"got q {tuple(q.shape)} {q.dtype} for a cache of {G} heads {D} wide; "
            f"allowed: floating-point [tokens, a multiple of {G}, {D}]"
        )
    sequences = lengths.shape[0] if lengths.ndim == 1 else -1
    tables_fit = block_tables.ndim == 2 and block_tables.shape[0] == sequences and block_tables.stride(1) == 1
    if not tables_fit or block_tables.dtype != torch.int32 or lengths.dtype != torch.int32:
        raise ValueError(
            f"got block tables {tuple(block_tables.shape)} {block_tables.dtype} and lengths {tuple(lengths.shape)} "
            f"{lengths.dtype}; allowed: int32 [B, pages] and int32 [B]"
        )
    starts_fit = q.shape[0] == sequences if q_starts is None else q_starts.shape == (sequences + 1,)
    if not starts_fit:
        raise ValueError(f"got {q.shape[0]} queries for {sequences} sequences; allowed: one each, or q_starts [B + 1]")
    if window is not None and window < 1:
        raise ValueError(f"got window {window}; allowed: at least 1, or None")
