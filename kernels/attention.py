"""Multi-head attention, forward: softmax(s q k^T + mask) v without the matrix of scores.

Shapes: q_BNHD and k_BMGD, v_BMGD of B sequences, or packed q_THD, k_SGD, v_SGD with q_starts and k_starts [B + 1]
(sequence b is rows starts[b] to starts[b + 1]); H query heads share G key heads (H a multiple of G), any head width D.
Dtypes: float16, bfloat16, float32 (float64 through torch); scores and sums are float32, weights are rounded to the
values' dtype before they are multiplied.

Causal: query i of n sees keys up to i + m - n, so the last query sees all m keys. A window w keeps the last w of them.
A query that sees no key gets zeros. Online softmax over tiles of keys, from Milakov and Gimelshein (arXiv:1805.02867)
and Dao et al. (arXiv:2205.14135): (m, l, z) <- (m', l e^(m-m') + sum e^(s-m'), z e^(m-m') + e^(s-m') v), output z / l.
Operations: 4 H D for each visible pair. Tiles follow from D alone: a sequence alone has the bits it has in any batch.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from rolecall.kernels.configurations import Configuration, blocks, configuration, power_of_two
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
from rolecall.kernels.rows import FLOATS, output, written

LOG2_E = 1.4426950408889634


def reference(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, window: int | None = None, scale: float | None = None
) -> Tensor:
    """One sequence: q_NHD, k_MGD and v_MGD give [N, H, D] in q's dtype."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    group = q.shape[1] // k.shape[1]
    k, v = (t.to(wide).repeat_interleave(group, dim=1) for t in (k, v))
    scores = torch.einsum("nhd,mhd->hnm", q.to(wide), k) * softmax_scale(q, scale)
    seen = visible(q.shape[0], k.shape[0], causal=causal, window=window, device=q.device)
    scores = scores.masked_fill(~seen, -math.inf)
    blind = ~seen.any(dim=-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(blind, 0.0), dim=-1).masked_fill(~seen, 0.0)
    return torch.einsum("hnm,mhd->nhd", weights, v).to(q.dtype)


def visible(n: int, m: int, *, causal: bool, window: int | None, device: torch.device) -> Tensor:
    """bool [n, m]: which keys each query sees."""
    last = torch.arange(n, device=device)[:, None] + (m - n)
    keys = torch.arange(m, device=device)[None, :]
    seen = keys <= last if causal else torch.ones(n, m, dtype=torch.bool, device=device)
    return seen if window is None else seen & (keys > last - window)


def softmax_scale(q: Tensor, scale: float | None) -> float:
    """`scale`, or 1 / sqrt(D)."""
    return 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale


@jit
def fold(
    z: Scalar, peak: Scalar, total: Scalar, scores: Scalar, v: Scalar, v_scale: Scalar, SCALED: constexpr
) -> Scalar:
    """Take a tile of scores (base 2, -inf where unseen) and its values into the running (z, m, l)."""
    higher = tl.maximum(peak, tl.max(scores, axis=1))
    level = tl.where(higher == float("-inf"), 0.0, higher)
    weights = tl.exp2(scores - level[:, None])
    shrink = tl.exp2(peak - level)
    total = total * shrink + tl.sum(weights, axis=1)
    if SCALED:
        weights *= v_scale[None, :]
    z = z * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    return z, higher, total


@jit
def normalized(z: Scalar, total: Scalar) -> Scalar:
    """z / l, and zeros where nothing was seen."""
    empty = total == 0.0
    return tl.where(empty[:, None], 0.0, z / tl.where(empty, 1.0, total)[:, None])


@jit
def _tiles(
    z: Scalar,
    peak: Scalar,
    total: Scalar,
    q: Scalar,
    k_ptr: Pointer,
    v_ptr: Pointer,
    first: Scalar,
    end: Scalar,
    m: Scalar,
    last: Scalar,
    scale: Scalar,
    window: Scalar,
    k_token: Scalar,
    v_token: Scalar,
    EDGE: constexpr,
    CAUSAL: constexpr,
    WINDOW: constexpr,
    COMPUTE: constexpr,
    D: constexpr,
    WIDTH: constexpr,
    KEYS: constexpr,
) -> Scalar:
    """Fold the keys of [first, end) in; tiles at an EDGE of what is seen are masked."""
    d = tl.arange(0, WIDTH)
    for start in tl.range(first, end, KEYS):
        keys = start + tl.arange(0, KEYS)
        there = (keys < m)[:, None] & (d < D)[None, :]
        k = tl.load(k_ptr + keys.to(tl.int64)[:, None] * k_token + d[None, :], mask=there, other=0.0)
        scores = tl.dot(q, tl.trans(k.to(COMPUTE)), input_precision="ieee") * scale
        if EDGE:
            seen = (keys < m)[None, :]
            if CAUSAL:
                seen = seen & (keys[None, :] <= last[:, None])
            if WINDOW:
                seen = seen & (keys[None, :] > last[:, None] - window)
            scores = tl.where(seen, scores, float("-inf"))
        v = tl.load(v_ptr + keys.to(tl.int64)[:, None] * v_token + d[None, :], mask=there, other=0.0)
        z, peak, total = fold(z, peak, total, scores, v.to(COMPUTE), peak, False)
    return z, peak, total


@jit
def _kernel(
    q_ptr: Pointer,
    k_ptr: Pointer,
    v_ptr: Pointer,
    o_ptr: Pointer,
    q_starts: Pointer,
    k_starts: Pointer,
    n: Scalar,
    m: Scalar,
    group: Scalar,
    scale: Scalar,
    window: Scalar,
    q_batch: Scalar,
    q_token: Scalar,
    q_head: Scalar,
    k_batch: Scalar,
    k_token: Scalar,
    k_head: Scalar,
    v_batch: Scalar,
    v_token: Scalar,
    v_head: Scalar,
    o_batch: Scalar,
    o_token: Scalar,
    o_head: Scalar,
    PACKED: constexpr,
    CAUSAL: constexpr,
    WINDOW: constexpr,
    COMPUTE: constexpr,
    D: constexpr,
    WIDTH: constexpr,
    QUERIES: constexpr,
    KEYS: constexpr,
) -> None:
    tile = tl.num_programs(0) - 1 - tl.program_id(0)  # the longest causal rows first
    head = tl.program_id(1)
    sequence = tl.program_id(2).to(tl.int64)
    q_first, k_first = sequence * 0, sequence * 0
    if PACKED:
        q_first = tl.load(q_starts + sequence).to(tl.int64)
        k_first = tl.load(k_starts + sequence).to(tl.int64)
        n = (tl.load(q_starts + sequence + 1) - q_first).to(tl.int32)
        m = (tl.load(k_starts + sequence + 1) - k_first).to(tl.int32)
    if tile * QUERIES < n:
        queries = tile * QUERIES + tl.arange(0, QUERIES)
        d = tl.arange(0, WIDTH)
        inside = (queries < n)[:, None] & (d < D)[None, :]
        rows = q_first + queries
        q_ptr += sequence * q_batch + head * q_head
        k_ptr += sequence * k_batch + k_first * k_token + (head // group) * k_head
        v_ptr += sequence * v_batch + k_first * v_token + (head // group) * v_head
        q = tl.load(q_ptr + rows[:, None] * q_token + d[None, :], mask=inside, other=0.0).to(COMPUTE)
        last = queries + (m - n)
        first = 0
        end = m
        whole = (m // KEYS) * KEYS  # tiles up to here hide no key from any query of this block
        if CAUSAL:
            newest = tl.minimum(tile * QUERIES + QUERIES, n) - 1 + m - n
            end = tl.minimum(m, tl.maximum(newest + 1, 0))
            whole = tl.minimum(whole, tl.maximum(tile * QUERIES + m - n + 1, 0) // KEYS * KEYS)
        if WINDOW:
            first = tl.maximum(tile * QUERIES + m - n - window + 1, 0) // KEYS * KEYS
            whole = first
        z = tl.zeros([QUERIES, WIDTH], tl.float32)
        peak = tl.full([QUERIES], float("-inf"), tl.float32)
        total = tl.zeros([QUERIES], tl.float32)
        z, peak, total = _tiles(
            z, peak, total, q, k_ptr, v_ptr, first, whole, m, last, scale, window, k_token, v_token,
            False, CAUSAL, WINDOW, COMPUTE, D, WIDTH, KEYS,
        )  # fmt: skip
        z, peak, total = _tiles(
            z, peak, total, q, k_ptr, v_ptr, whole, end, m, last, scale, window, k_token, v_token,
            True, CAUSAL, WINDOW, COMPUTE, D, WIDTH, KEYS,
        )  # fmt: skip
        o = normalized(z, total)
        o_ptr += sequence * o_batch + head * o_head
        tl.store(o_ptr + rows[:, None] * o_token + d[None, :], o.to(o_ptr.dtype.element_ty), mask=inside)


def compute_type(dtype: torch.dtype) -> Any:
    """What is multiplied: the tensors' dtype, except that bfloat16 products are wrong in the interpreter."""
    if dtype == torch.float32 or (INTERPRETED and dtype == torch.bfloat16):
        return tl.float32
    return tl.float16 if dtype == torch.float16 else tl.bfloat16


def default_configuration(width: int, itemsize: int) -> Configuration:
    """128 queries by 64 keys; smaller where D or the element is larger, so that two stages of keys fit."""
    small = width * itemsize > 256
    queries, keys = (64, 32) if small else (128, 64)
    if INTERPRETED:
        queries, keys = 16, 16
    return Configuration(blocks=blocks(QUERIES=queries, KEYS=keys), warps=4 if small or width <= 64 else 8, stages=3)


def _launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_starts: Tensor | None,
    k_starts: Tensor | None,
    longest: int,
    causal: bool,
    window: int,
    scale: float,
    out: Tensor,
) -> None:
    packed = q_starts is not None
    H, D = q.shape[-2:]
    batch = q_starts.shape[0] - 1 if q_starts is not None else q.shape[0]
    if q.numel() == 0 or batch == 0 or longest == 0:
        return
    width = max(16, power_of_two(D))
    chosen = configuration(
        "attention", f"d{width} {8 * q.element_size()}bit", q, default_configuration(width, q.element_size())
    )
    strides = [stride for t in (q, k, v, out) for stride in (((0,) if packed else ()) + t.stride())[:3]]
    _kernel[(triton.cdiv(longest, chosen.blocks["QUERIES"]), H, batch)](
        *(q, k, v, out, q if q_starts is None else q_starts, q if k_starts is None else k_starts),
        *(longest, 0 if packed else k.shape[1], H // k.shape[-2], scale * LOG2_E, window),
        *strides,
        PACKED=packed,
        CAUSAL=causal,
        WINDOW=window > 0,
        COMPUTE=compute_type(q.dtype),
        D=D,
        WIDTH=width,
        **chosen.launch,
    )


ATTENTION = register("attention", _launch)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
    q_starts: Tensor | None = None,
    k_starts: Tensor | None = None,
    longest: int | None = None,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """[B, N, H, D], or [T, H, D] for packed sequences, in `out` if given.

    `scale`: 1 / sqrt(D) unless given. `window`: keys each query sees at most, with `causal` only. `longest`: the most
    queries of a packed sequence, to spare reading it from the device. Raises ValueError for what does not fit.
    """
    _check(q, k, v, q_starts, k_starts, causal, window)
    takes = q.dtype in FLOATS and all(t.stride(-1) == 1 for t in (q, k, v))
    if choose("attention", q, backend, triton_takes=takes, weights=(k, v)) == "torch":
        return written(_through_torch(q, k, v, q_starts, k_starts, causal, window, scale), out)
    o = output(q, out)
    if longest is None:
        longest = q.shape[1] if q_starts is None else int(q_starts.diff().max()) if q_starts.shape[0] > 1 else 0
    operator = ATTENTION if compiling() else _launch
    operator(q, k, v, q_starts, k_starts, longest, causal, window or 0, softmax_scale(q, scale), o)
    return o


def _through_torch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_starts: Tensor | None,
    k_starts: Tensor | None,
    causal: bool,
    window: int | None,
    scale: float | None,
) -> Tensor:
    """A sequence at a time through torch's own fused attention."""
    if q_starts is None or k_starts is None:
        return (
            torch.stack([one_sequence(*qkv, causal, window, scale) for qkv in zip(q, k, v, strict=True)])
            if len(q)
            else q
        )
    ends = list(zip(q_starts.tolist(), k_starts.tolist(), strict=True))
    parts = [one_sequence(q[q0:q1], k[k0:k1], v[k0:k1], causal, window, scale) for (q0, k0), (q1, k1) in pairwise(ends)]
    return torch.cat(parts) if parts else q.clone()


def one_sequence(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None, scale: float | None) -> Tensor:
    """[N, H, D] of one sequence through torch's fused attention, as `reference` defines it."""
    n, m = q.shape[0], k.shape[0]
    if n == 0 or m == 0:
        return torch.zeros_like(q)
    plain = not causal or (window is None and n == m)
    seen = None if plain else visible(n, m, causal=causal, window=window, device=q.device)
    heads_first = [t.transpose(0, 1)[None] for t in (q, k, v)]
    o = torch.nn.functional.scaled_dot_product_attention(
        heads_first[0],
        heads_first[1],
        heads_first[2],
        attn_mask=seen,
        is_causal=causal and plain,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )[0].transpose(0, 1)
    return o if seen is None else torch.where(seen.any(dim=1)[:, None, None], o, 0.0)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_starts: Tensor | None,
    k_starts: Tensor | None,
    causal: bool,
    window: int | None,
) -> None:
    dimensions = 4 if q_starts is None else 3
    if q.ndim != dimensions or not q.is_floating_point() or (q_starts is None) != (k_starts is None):
        raise ValueError(
            f"got q {tuple(q.shape)} {q.dtype}, starts of queries and keys given: {q_starts is not None}, "
            f"{k_starts is not None}; allowed: [B, N, H, D] without starts, [T, H, D] with both"
        )
    same = k.shape == v.shape and k.shape[-1] == q.shape[-1] and k.dtype == v.dtype == q.dtype and k.ndim == q.ndim
    if not same or k.shape[-2] == 0 or q.shape[-2] % k.shape[-2] or (q_starts is None and k.shape[0] != q.shape[0]):
        raise ValueError(
            f"got k {tuple(k.shape)} {k.dtype} and v {tuple(v.shape)} {v.dtype} for q {tuple(q.shape)} {q.dtype}; "
            "allowed: k and v alike, of q's dtype, width and batch, with a number of heads that divides q's"
        )
    if window is not None and (window < 1 or not causal):
        raise ValueError(f"got window {window} with causal {causal}; allowed: at least 1, with causal=True")
