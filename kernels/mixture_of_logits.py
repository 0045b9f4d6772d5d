"""Mixture-of-Logits scores of queries and items: dot products of component pairs, mixed by a gate of every pair.

    l_p   = <f_i, g_j> / tau                     p = (i, j), i P_X + j: P = P_Q P_X pairs of components
    a     = u * v + W2 silu(W1 l + b1) + b2      u: gates of the query, v: of the item, W: across the pairs' logits
    pi    = softmax(silu(a))
    score = sum_p pi_p l_p                       <= max_p l_p, since pi is convex

Zhai et al., KDD 2023, arXiv:2306.04039; Ding and Zhai, arXiv:2407.15462. Shapes: f_BQD, g_NXD (both of length 1 for
cosines), u_BP, v_NP, W1_HP, b1_H, W2_PH, b2_P, scores_BN. Dtypes: float16, bfloat16, float32, float64, all alike;
scores float32 (float64 for such). g and v depend on the item alone: they are what an index keeps.

No [B, N, P] tensor is made. Torch works on queries x items at most as large as `CHUNK_ELEMENTS` allows, forward and
backward; backward computes the chunk again:

    dl = ds pi,  da = silu'(a) ds pi (l - score)           and on through W1, W2 into f, g, u, v

The kernel holds a tile of items against one query after another in registers: one product for l, two for the gate, in
the tensors' dtype with float32 sums. Bytes: f, u once for every tile, g, v once for every QUERIES queries, scores.
Operations for a query and an item: 2 P D + 4 P H, and P exponentials twice, H once. `mixture_topk` goes by tiles of
items and keeps k of each, ties by row, lowest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from rolecall.kernels.attention import compute_type
from rolecall.kernels.configurations import Configuration, blocks, configuration, power_of_two
from rolecall.kernels.dispatch import (
    INTERPRETED,
    Pointer,
    Scalar,
    choose,
    compiling,
    constexpr,
    jit,
    needs_gradient,
    register,
    tl,
    triton,
)
from rolecall.kernels.int8_topk import Best
from rolecall.kernels.rows import FLOATS, accumulating, written

CHUNK_ELEMENTS = 2**18  # of the widest tensor of a chunk on a CPU, whose cache it should not leave
_DEVICE_ELEMENTS = 2**24
_TILE_ITEMS = 4096  # of top-k
_NO_ROW = -1


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side gives: `components` f_BQD or g_NXD, `gates` u_BP or v_NP."""

    components: Tensor
    gates: Tensor

    def rows(self, first: int, end: int) -> Side:
        return Side(components=self.components[first:end], gates=self.gates[first:end])


@dataclass(frozen=True, kw_only=True)
class CrossGate:
    """The gate across a pair's logits: W1_HP, b1_H, W2_PH, b2_P."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.w1, self.b1, self.w2, self.b2


# --- reference ---


def reference(queries: Side, items: Side, cross: CrossGate, *, tau: float) -> Tensor:
    """scores_BN by way of [B, N, P]."""
    sides = (queries.components, queries.gates, items.components, items.gates)
    return _mixed(tau, *map(accumulating, (*sides, *cross.tensors)))[0]


def _mixed(
    tau: float, f: Tensor, u: Tensor, g: Tensor, v: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(scores [b, n], pi, l, a, hidden [b, n, P or H]) of a chunk; hidden before its silu."""
    b, Q, D = f.shape
    n, X, _ = g.shape
    dots = (f.reshape(b * Q, D) @ g.reshape(n * X, D).t()).view(b, Q, n, X)
    logits = dots.transpose(1, 2).reshape(b, n, Q * X) / tau
    hidden = logits @ w1.t() + b1
    a = torch.nn.functional.silu(hidden) @ w2.t() + b2 + u[:, None] * v
    pi = torch.softmax(torch.nn.functional.silu(a), dim=-1)
    return (pi * logits).sum(-1), pi, logits, a, hidden


# --- torch, by chunks ---


def chunks(b: int, n: int, width: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Queries and items of each chunk: at most `most` elements where each pair has `width`, or else one pair."""
    columns = max(1, min(n, most // max(1, width)))
    rows = max(1, most // max(1, width * columns))
    for first in range(0, b, rows):
        for start in range(0, n, columns):
            yield slice(first, first + rows), slice(start, start + columns)


def _chunks_of(f: Tensor, g: Tensor, w1: Tensor) -> Iterator[tuple[slice, slice]]:
    width = max(w1.shape)
    return chunks(len(f), len(g), width, _DEVICE_ELEMENTS if f.is_cuda else CHUNK_ELEMENTS)


class _Mixture(torch.autograd.Function):
    """Scores, with a backward that keeps nothing of size [B, N, P]."""

    @staticmethod
    def forward(ctx: Any, tau: float, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        ctx.tau = tau
        return _by_chunks(tau, *inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        narrow = ctx.saved_tensors
        inputs = [accumulating(each) for each in narrow]
        f, u, g, v = inputs[:4]
        sums = [torch.zeros_like(each) for each in inputs]
        df, du, dg, dv = sums[:4]
        for rows, columns in _chunks_of(f, g, inputs[4]):
            slopes = _slopes(gradients[0][rows, columns], f[rows], u[rows], g[columns], v[columns], inputs[4:], ctx.tau)
            df[rows] += slopes[0]
            du[rows] += slopes[1]
            dg[columns] += slopes[2]
            dv[columns] += slopes[3]
            for total, slope in zip(sums[4:], slopes[4:], strict=True):
                total += slope
        return None, *(each.to(like.dtype) for each, like in zip(sums, narrow, strict=True))


def _slopes(
    ds: Tensor, f: Tensor, u: Tensor, g: Tensor, v: Tensor, cross: list[Tensor], tau: float
) -> tuple[Tensor, ...]:
    """Gradients of a chunk in the order of its inputs, from ds [b, n]."""
    w1, b1, w2, b2 = cross
    scores, pi, logits, a, hidden = _mixed(tau, f, u, g, v, w1, b1, w2, b2)
    shares = pi * ds[:, :, None]
    da = _silu_slope(a) * shares * (logits - scores[:, :, None])
    dhidden = (da @ w2) * _silu_slope(hidden)
    dlogits = (shares + dhidden @ w1) / tau
    (b, Q, D), (n, X, _) = f.shape, g.shape
    flat = dlogits.view(b, n, Q, X).transpose(1, 2).reshape(b * Q, n * X)
    return (
        (flat @ g.reshape(n * X, D)).view(b, Q, D),
        (da * v).sum(1),
        (flat.t() @ f.reshape(b * Q, D)).view(n, X, D),
        (da * u[:, None]).sum(0),
        dhidden.flatten(0, 1).t() @ logits.flatten(0, 1),
        dhidden.sum((0, 1)),
        da.flatten(0, 1).t() @ torch.nn.functional.silu(hidden).flatten(0, 1),
        da.sum((0, 1)),
    )


def _silu_slope(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


def _by_chunks(tau: float, *inputs: Tensor) -> Tensor:
    wide = [accumulating(each) for each in inputs]
    f, u, g, v = wide[:4]
    out = f.new_empty(len(f), len(g))
    for rows, columns in _chunks_of(f, g, wide[4]):
        w1, b1, w2, b2 = wide[4:]
        out[rows, columns] = _mixed(tau, f[rows], u[rows], g[columns], v[columns], w1, b1, w2, b2)[0]
    return out


# --- kernel ---


@jit
def _kernel(
    f_ptr: Pointer,
    u_ptr: Pointer,
    g_ptr: Pointer,
    v_ptr: Pointer,
    w1_ptr: Pointer,
    b1_ptr: Pointer,
    w2_ptr: Pointer,
    b2_ptr: Pointer,
    out_ptr: Pointer,
    B: Scalar,
    N: Scalar,
    inverse_tau: Scalar,
    out_stride: Scalar,
    Q: constexpr,
    X: constexpr,
    D: constexpr,
    H: constexpr,
    QUERY_PARTS: constexpr,
    ITEM_PARTS: constexpr,
    PAIRS: constexpr,
    WIDTH: constexpr,
    HIDDEN: constexpr,
    COMPUTE: constexpr,
    ITEMS: constexpr,
    QUERIES: constexpr,
) -> None:
    """ITEMS items against QUERIES queries. Pairs lie as j QUERY_PARTS + i here, both padded to powers of two."""
    start = tl.program_id(0) * ITEMS
    d = tl.arange(0, WIDTH)
    part = tl.arange(0, ITEMS * ITEM_PARTS)
    item, j = (start + part // ITEM_PARTS).to(tl.int64), part % ITEM_PARTS
    there = ((item < N) & (j < X))[:, None] & (d < D)[None, :]
    g = tl.load(g_ptr + (item * X + j)[:, None] * D + d[None, :], mask=there, other=0.0).to(COMPUTE)
    pair = tl.arange(0, PAIRS)
    i, j = pair % QUERY_PARTS, pair // QUERY_PARTS
    real = (i < Q) & (j < X)
    column = i * X + j
    h = tl.arange(0, HIDDEN)
    items = (start + tl.arange(0, ITEMS)).to(tl.int64)
    v_at = v_ptr + items[:, None] * (Q * X) + column[None, :]
    v = tl.load(v_at, mask=(items < N)[:, None] & real[None, :], other=0.0).to(tl.float32)
    both = real[:, None] & (h < H)[None, :]
    w1 = tl.load(w1_ptr + column[:, None] + (h * (Q * X))[None, :], mask=both, other=0.0).to(COMPUTE)  # [PAIRS, H]
    w2 = tl.load(w2_ptr + column[:, None] * H + h[None, :], mask=both, other=0.0).to(COMPUTE)  # [PAIRS, H]
    b1 = tl.load(b1_ptr + h, mask=h < H, other=0.0).to(tl.float32)
    b2 = tl.load(b2_ptr + column, mask=real, other=0.0).to(tl.float32)
    parts = tl.arange(0, QUERY_PARTS)
    for each in tl.range(0, QUERIES):
        query = (tl.program_id(1) * QUERIES + each).to(tl.int64)
        known = (query < B) & (parts < Q)[None, :] & (d < D)[:, None]
        f = tl.load(f_ptr + (query * Q + parts)[None, :] * D + d[:, None], mask=known, other=0.0).to(COMPUTE)
        logits = tl.dot(g, f, input_precision="ieee") * inverse_tau  # [ITEMS * ITEM_PARTS, QUERY_PARTS]
        logits = tl.reshape(logits, (ITEMS, PAIRS))
        hidden = tl.dot(logits.to(COMPUTE), w1, input_precision="ieee") + b1[None, :]
        hidden = hidden / (1.0 + tl.exp(-hidden))
        u = tl.load(u_ptr + query * (Q * X) + column, mask=(query < B) & real, other=0.0).to(tl.float32)
        a = tl.dot(hidden.to(COMPUTE), tl.trans(w2), input_precision="ieee") + b2[None, :] + u[None, :] * v
        a = tl.where(real[None, :], a / (1.0 + tl.exp(-a)), float("-inf"))
        pi = tl.exp(a - tl.max(a, axis=1)[:, None])
        score = tl.sum(pi * logits, axis=1) / tl.sum(pi, axis=1)
        tl.store(out_ptr + query * out_stride + items, score, mask=(items < N) & (query < B))


# --- launch ---


def _launch(
    tau: float,
    f: Tensor,
    u: Tensor,
    g: Tensor,
    v: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    out: Tensor,
) -> None:
    """All inputs contiguous; `out` [B, N] with contiguous rows."""
    (B, Q, D), (N, X, _), H = f.shape, g.shape, len(b1)
    if B == 0 or N == 0:
        return
    default = Configuration(blocks=blocks(ITEMS=32, QUERIES=16), warps=4)
    if INTERPRETED:
        default = Configuration(blocks=blocks(ITEMS=16, QUERIES=2))
    chosen = configuration("mol", f"q{Q}x{X}d{D}", f, default)
    query_parts, item_parts = max(16, power_of_two(Q)), power_of_two(X)
    _kernel[(triton.cdiv(N, chosen.blocks["ITEMS"]), triton.cdiv(B, chosen.blocks["QUERIES"]))](
        *(f, u, g, v, w1, b1, w2, b2, out, B, N, 1.0 / tau, out.stride(0)),
        Q=Q,
        X=X,
        D=D,
        H=H,
        QUERY_PARTS=query_parts,
        ITEM_PARTS=item_parts,
        PAIRS=query_parts * item_parts,
        WIDTH=max(16, power_of_two(D)),
        HIDDEN=max(16, power_of_two(H)),
        COMPUTE=compute_type(f.dtype),
        **chosen.launch,
    )


MIXTURE_OF_LOGITS = register("mixture_of_logits", _launch)


# --- public ---


def mixture_of_logits(
    queries: Side,
    items: Side,
    cross: CrossGate,
    *,
    tau: float = 0.05,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """scores_BN, differentiable in every tensor (once; and not with `out`).

    Raises ValueError for shapes, dtypes or a backend that do not fit.
    """
    _check(queries, items, cross, tau)
    inputs = (queries.components, queries.gates, items.components, items.gates, *cross.tensors)
    f = queries.components
    chosen = choose("mixture_of_logits", f, backend, triton_takes=f.dtype in FLOATS, weights=inputs)
    if chosen == "torch":
        if out is None and needs_gradient(*inputs):
            return cast(Tensor, _Mixture.apply(tau, *inputs))  # type: ignore[no-untyped-call]
        return written(_by_chunks(tau, *inputs), out)
    if out is None:
        out = f.new_empty(len(f), len(items.components), dtype=torch.float32)
    elif out.shape != (len(f), len(items.components)) or out.dtype != torch.float32 or out.stride(1) != 1:
        raise ValueError(f"got out {tuple(out.shape)} {out.dtype}; allowed: float32 [B, N], rows without gaps")
    function: Callable[..., None] = MIXTURE_OF_LOGITS if compiling() else _launch
    function(tau, *(each.contiguous() for each in inputs), out)
    return out


def mixture_topk(
    queries: Side,
    items: Side,
    cross: CrossGate,
    k: int,
    *,
    tau: float = 0.05,
    allowed: Tensor | None = None,
    backend: str | None = None,
) -> Best:
    """The best `k` items for each query, by score, then by row; every item is scored, k + 4,096 scores held a query.

    `allowed`: bool [N] or [B, N]; where fewer than k are, the rest is score -inf, row -1. NaN counts as -inf.
    Raises ValueError as `mixture_of_logits` does, and for k < 0 or a mask that does not fit.
    """
    B, N = len(queries.components), len(items.components)
    if k < 0 or (allowed is not None and (allowed.dtype != torch.bool or tuple(allowed.shape) not in ((N,), (B, N)))):
        mask = None if allowed is None else f"{tuple(allowed.shape)} {allowed.dtype}"
        raise ValueError(f"got k {k}, allowed {mask}; allowed: k >= 0; bool [{N}] or [{B}, {N}]")
    with torch.no_grad():
        device = queries.components.device
        scores = accumulating(queries.components[:0]).new_full((B, k), -torch.inf)
        rows = torch.full((B, k), _NO_ROW, dtype=torch.int64, device=device)
        for first in range(0, N, _TILE_ITEMS):
            tile = items.rows(first, first + _TILE_ITEMS)
            found = mixture_of_logits(queries, tile, cross, tau=tau, backend=backend).nan_to_num_(nan=-torch.inf)
            if allowed is not None:
                found.masked_fill_(~allowed[..., first : first + _TILE_ITEMS], -torch.inf)
            numbers = torch.arange(first, first + found.shape[1], device=device).expand(B, -1)
            both = torch.cat([scores, found], dim=1)
            scores, order = both.sort(dim=1, descending=True, stable=True)
            scores, order = scores[:, :k], order[:, :k]
            rows = torch.cat([rows, numbers], dim=1).gather(1, order).masked_fill_(scores == -torch.inf, _NO_ROW)
    return Best(scores=scores, rows=rows)


def _check(queries: Side, items: Side, cross: CrossGate, tau: float) -> None:
    f, g = queries.components, items.components
    if f.ndim != 3 or g.ndim != 3 or f.shape[2] != g.shape[2] or not tau > 0:
        raise ValueError(
            f"got components {tuple(f.shape)} and {tuple(g.shape)}, tau {tau}; "
            "allowed: [B, P_Q, D] and [N, P_X, D], tau above 0"
        )
    P, H = f.shape[1] * g.shape[1], cross.b1.numel()
    expected = {
        "query gates": (queries.gates, (len(f), P)),
        "item gates": (items.gates, (len(g), P)),
        "w1": (cross.w1, (H, P)),
        "b1": (cross.b1, (H,)),
        "w2": (cross.w2, (P, H)),
        "b2": (cross.b2, (P,)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"got {name} {tuple(tensor.shape)}; allowed: {list(shape)}")
    kinds = {(t.dtype, t.device) for t in (f, g, queries.gates, items.gates, *cross.tensors)}
    if len(kinds) > 1 or not f.is_floating_point() or P == 0:
        raise ValueError(f"got tensors of {sorted(map(str, kinds))}, {P} pairs; allowed: one float dtype, one device")
