"""The k best of N int8 items for B queries, exactly, without an N x B matrix of scores.

    score_bn = s_b (s_n sum_d q_bd c_nd)        c, s_n: the items' codes and scales; q, s_b: the query's, made here

The order is that of s_n sum(..) in float32, ties by row, lowest first; the integer sum is exact, so the result is the
same on every machine. `allowed` masks items inside the scan: a masked item never meets the threshold. Where fewer than
k items are allowed the rest of a row is score -inf, row -1.

With `prefix` p, Matryoshka vectors (arXiv:2205.13147) are scored twice: all items on their first p columns, then the
best `oversample` * k of those on all columns. That is exact for the second stage given the first.

The compiled code reads codes once and keeps a little more than k candidates (threshold from a sample, verified);
the torch path computes scores a block of queries at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rolecall.kernels.cpp import build
from rolecall.kernels.dispatch import choose
from rolecall.kernels.quantization import QuantizedRows, quantize_rows

MOST_ITEMS = 2**32 - 1
_EXACT_COLUMNS = 2**24 // 127**2  # float32 holds sums of this many products exactly
_NO_ROW = -1


@dataclass(frozen=True, kw_only=True)
class Best:
    """`scores`: float32 [B, k], falling. `rows`: int64 [B, k], -1 (score -inf) where no item was left."""

    scores: Tensor
    rows: Tensor


# --- reference ---


def reference(queries: QuantizedRows, items: QuantizedRows, k: int, allowed: Tensor | None = None) -> Best:
    """By way of all scores; any device."""
    exact = (
        torch.float32 if items.codes.shape[1] <= _EXACT_COLUMNS and items.codes.device.type == "cpu" else torch.float64
    )
    best = [
        _best_of(
            (items.codes.to(exact) @ codes_D.to(exact)).float() * items.scales + 0.0,
            k,
            None if allowed is None else allowed[b] if allowed.ndim == 2 else allowed,
        )
        for b, codes_D in enumerate(queries.codes)
    ]
    if not best:
        return Best(scores=items.scales.new_zeros(0, k), rows=items.codes.new_zeros(0, k, dtype=torch.int64))
    scores = torch.stack([scores for scores, _ in best]) * queries.scales[:, None]
    rows = torch.stack([rows for _, rows in best])
    return Best(scores=scores.masked_fill(rows == _NO_ROW, -torch.inf), rows=rows)


def _best_of(scores_N: Tensor, k: int, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(scores_N), device=scores_N.device) if allowed is None else allowed.nonzero()[:, 0]
    scores = scores_N[rows]
    if k and len(rows) > k:
        kept = scores >= scores.topk(k, sorted=False).values.amin()
        scores, rows = scores[kept], rows[kept]
    scores, order = scores.sort(descending=True, stable=True)
    missing = max(0, k - len(order))
    pad = torch.nn.functional.pad
    return pad(scores[:k], (0, missing), value=-torch.inf), pad(rows[order][:k], (0, missing), value=_NO_ROW)


# --- launch ---


def _launch_cpp(queries: QuantizedRows, items: QuantizedRows, width: int, k: int, allowed: Tensor | None) -> Best:
    operators: Any = build.library()
    best = _empty(len(queries.codes), k)
    operators.lasting.int8_topk(
        items.codes.data_ptr(),
        items.codes.stride(0),
        items.scales.data_ptr(),
        len(items.codes),
        width,
        queries.codes.data_ptr(),
        queries.scales.data_ptr(),
        len(queries.codes),
        None if allowed is None else allowed.data_ptr(),
        len(items.codes) if allowed is not None and allowed.ndim == 2 else 0,
        k,
        best.scores.data_ptr(),
        best.rows.data_ptr(),
        torch.get_num_threads(),
    )
    return best


def _rescore_cpp(queries: QuantizedRows, items: QuantizedRows, found: Best, k: int) -> Best:
    operators: Any = build.library()
    best = _empty(len(queries.codes), k)
    operators.lasting.int8_rescore(
        items.codes.data_ptr(),
        items.codes.stride(0),
        items.scales.data_ptr(),
        items.codes.shape[1],
        queries.codes.data_ptr(),
        queries.scales.data_ptr(),
        len(queries.codes),
        found.rows.data_ptr(),
        found.rows.shape[1],
        k,
        best.scores.data_ptr(),
        best.rows.data_ptr(),
        torch.get_num_threads(),
    )
    return best


def _rescore_torch(queries: QuantizedRows, items: QuantizedRows, found: Best, k: int) -> Best:
    allowed = torch.zeros(len(found.rows), len(items.codes) + 1, dtype=torch.bool, device=found.rows.device)
    allowed.scatter_(1, torch.where(found.rows < 0, len(items.codes), found.rows), True)
    return reference(queries, items, k, allowed[:, :-1])


# --- public ---


def int8_topk(
    queries_BD: Tensor,
    items: QuantizedRows,
    k: int,
    *,
    allowed: Tensor | None = None,
    prefix: int | None = None,
    prefix_scales: Tensor | None = None,
    oversample: int = 4,
    backend: str | None = None,
) -> Best:
    """The best `k` items for each query.

    `queries_BD`: finite floats, quantised here row by row. `allowed`: bool [N], or [B, N] for a mask of each query.
    `prefix`: columns scored first; `prefix_scales`: float32 [N] that replaces the items' scales there, for instance
    divided by the length of the prefix. Raises ValueError where shapes, types or sizes do not fit.
    """
    _check(queries_BD, items, k, allowed)
    chosen = choose("int8_topk", items.codes, backend, cpp=build.available, triton_takes=False)
    items = QuantizedRows(codes=_with_unit_stride(items.codes), scales=items.scales.contiguous())
    if allowed is not None:
        allowed = allowed.contiguous()
    full = quantize_rows(queries_BD)
    if prefix is None:
        if chosen == "cpp":
            return _launch_cpp(full, items, items.codes.shape[1], k, allowed)
        return reference(full, items, k, allowed)
    _check_prefix(items, prefix, prefix_scales, oversample)
    first = quantize_rows(queries_BD[:, :prefix])
    scales = items.scales if prefix_scales is None else prefix_scales.contiguous()
    wide = min(k * oversample, len(items.codes))
    head = QuantizedRows(codes=items.codes[:, :prefix], scales=scales)
    if chosen == "cpp":
        return _rescore_cpp(full, items, _launch_cpp(first, head, prefix, wide, allowed), k)
    return _rescore_torch(full, items, reference(first, head, wide, allowed), k)


def _empty(B: int, k: int) -> Best:
    return Best(scores=torch.empty(B, k), rows=torch.empty(B, k, dtype=torch.int64))


def _with_unit_stride(codes: Tensor) -> Tensor:
    return codes if codes.stride(1) == 1 and codes.stride(0) >= codes.shape[1] else codes.contiguous()


def _check(queries_BD: Tensor, items: QuantizedRows, k: int, allowed: Tensor | None) -> None:
    N, D = items.codes.shape
    if queries_BD.ndim != 2 or queries_BD.shape[1] != D or queries_BD.device != items.codes.device:
        raise ValueError(f"got queries {tuple(queries_BD.shape)}; allowed: [B, {D}] on {items.codes.device}")
    if items.codes.dtype != torch.int8 or items.scales.dtype != torch.float32 or items.scales.shape != (N,):
        raise ValueError(
            f"got codes {items.codes.dtype}, scales {tuple(items.scales.shape)} {items.scales.dtype}; "
            "allowed: int8 [N, D] and float32 [N], as quantize_rows makes them"
        )
    if k < 0 or N > MOST_ITEMS:
        raise ValueError(f"got k {k}, {N} items; allowed: k >= 0, at most {MOST_ITEMS} items; split them")
    if allowed is not None and (
        allowed.dtype != torch.bool
        or tuple(allowed.shape) not in ((N,), (len(queries_BD), N))
        or allowed.device != items.codes.device
    ):
        raise ValueError(f"got allowed {tuple(allowed.shape)} {allowed.dtype}; allowed: bool [{N}] or [B, {N}]")


def _check_prefix(items: QuantizedRows, prefix: int, scales: Tensor | None, oversample: int) -> None:
    N, D = items.codes.shape
    if not 1 <= prefix <= D or oversample < 1:
        raise ValueError(f"got prefix {prefix}, oversample {oversample}; allowed: 1 to {D}, 1 or more")
    if scales is not None and (scales.dtype != torch.float32 or scales.shape != (N,)):
        raise ValueError(f"got prefix_scales {tuple(scales.shape)} {scales.dtype}; allowed: float32 [{N}]")
