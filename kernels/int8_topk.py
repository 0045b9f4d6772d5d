"""The k best of N int8 items for B queries, exactly, without an N x B matrix of scores.

    score_bn = s_b (s_n sum_d q_bd c_nd)        c, s_n: the items' codes and scales; q, s_b: the query's, made here

The order is that of s_n sum(..) in float32, ties by row, lowest first; the integer sum is exact, so the result is the
same on every machine. `allowed` masks items inside the scan: a masked item never meets the threshold. Where fewer than
k items are allowed the rest of a row is score -inf, row -1.

With `prefix` p, Matryoshka vectors (arXiv:2205.13147) are scored twice: all items on their first p columns, then the
best `oversample` * k of those on all columns. That is exact for the second stage given the first.

The compiled code reads codes once and keeps a little more than k candidates (threshold from a sample, verified).
The Triton path reads codes once and writes the best of every group of S rows (S near sqrt(N / k)); the best k items
lie in the k groups whose bests come first, whatever the order of the rows, so those groups' k S rows are scored again
and sorted. Every shape is known before a kernel runs: there is no copy to the host, no atomic, and two runs give the
same bits. An item is one 64-bit key throughout, score above, row below, so ties need no care of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from rolecall.kernels.configurations import Configuration, blocks, configuration, power_of_two
from rolecall.kernels.cpp import build
from rolecall.kernels.dispatch import Pointer, Scalar, choose, compiling, constexpr, jit, register, tl
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


# --- kernel ---


@jit
def _keys(sums: Scalar, scales: Scalar, row: Scalar, open: Scalar) -> Scalar:
    """int64: order of the float32 score in the upper half, order of the row, falling, in the lower."""
    score = sums.to(tl.float32) * scales
    bits = tl.where(score == 0.0, 0.0, score).to(tl.int32, bitcast=True)
    rising = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
    return tl.where(open & (score == score), (rising << 32) | (4294967295 - row), -9223372036854775808)


@jit
def _scan_kernel(
    codes: Pointer,
    scales: Pointer,
    queries: Pointer,
    allowed: Pointer,
    best: Pointer,
    N: Scalar,
    D: Scalar,
    B: Scalar,
    codes_stride: Scalar,
    queries_stride: Scalar,
    allowed_stride: Scalar,
    groups: Scalar,
    MASKED: constexpr,
    BLOCK_N: constexpr,
    BLOCK_B: constexpr,
    BLOCK_D: constexpr,
    GROUP: constexpr,
) -> None:
    """BLOCK_N rows by BLOCK_B queries: the largest key of each GROUP rows. best: [B, groups]."""
    block = tl.program_id(1).to(tl.int64)
    query = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)  # those of a block of rows run together
    row = block * BLOCK_N + tl.arange(0, BLOCK_N)
    step = tl.arange(0, BLOCK_D)
    sums = tl.zeros((BLOCK_N, BLOCK_B), tl.int32)
    d = 0
    while d < D:
        left = step < D - d
        item = tl.load(
            codes + row[:, None] * codes_stride + (d + step)[None, :], mask=(row < N)[:, None] & left[None, :], other=0
        )
        asked = tl.load(
            queries + query[None, :] * queries_stride + (d + step)[:, None],
            mask=(query < B)[None, :] & left[:, None],
            other=0,
        )
        sums = tl.dot(item, asked, acc=sums, out_dtype=tl.int32)
        d += BLOCK_D
    open = (row < N)[:, None] & (query < B)[None, :]
    if MASKED:
        open = open & (tl.load(allowed + query[None, :] * allowed_stride + row[:, None], mask=open, other=0) != 0)
    keys = _keys(sums, tl.load(scales + row, mask=row < N, other=0.0)[:, None], row[:, None], open)
    largest = tl.max(tl.reshape(keys, (BLOCK_N // GROUP, GROUP, BLOCK_B)), axis=1)
    group = block * (BLOCK_N // GROUP) + tl.arange(0, BLOCK_N // GROUP)
    out = best + query.to(tl.int64)[None, :] * groups + group[:, None]
    tl.store(out, largest, mask=(group < groups)[:, None] & (query < B)[None, :])


@jit
def _again_kernel(
    codes: Pointer,
    scales: Pointer,
    queries: Pointer,
    allowed: Pointer,
    found: Pointer,
    keys: Pointer,
    N: Scalar,
    D: Scalar,
    count: Scalar,
    codes_stride: Scalar,
    queries_stride: Scalar,
    allowed_stride: Scalar,
    MASKED: constexpr,
    BLOCK_N: constexpr,
    BLOCK_D: constexpr,
    GROUP: constexpr,
) -> None:
    """Keys of all rows of the groups in which the rows of the keys `found` [B, count] lie: [B, count * GROUP]."""
    query = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    key = tl.load(found + query * count + at // GROUP, mask=at // GROUP < count, other=-9223372036854775808)
    row = (4294967295 - (key & 4294967295)) // GROUP * GROUP + at % GROUP
    open = (key != -9223372036854775808) & (row < N)
    if MASKED:
        open = open & (tl.load(allowed + query * allowed_stride + row, mask=open, other=0) != 0)
    step = tl.arange(0, BLOCK_D)
    sums = tl.zeros((BLOCK_N,), tl.int32)
    d = 0
    while d < D:
        left = step < D - d
        item = tl.load(
            codes + row[:, None] * codes_stride + (d + step)[None, :], mask=open[:, None] & left[None, :], other=0
        )
        asked = tl.load(queries + query * queries_stride + d + step, mask=left, other=0)
        sums += tl.sum(item.to(tl.int32) * asked.to(tl.int32)[None, :], axis=1)
        d += BLOCK_D
    out = _keys(sums, tl.load(scales + row, mask=open, other=0.0), row, open)
    tl.store(keys + query * count * GROUP + at, out, mask=at < count * GROUP)


@jit
def _read_kernel(
    keys: Pointer, scales: Pointer, scores: Pointer, rows: Pointer, K: Scalar, found: Scalar, BLOCK: constexpr
) -> None:
    """Scores and rows [B, K] of the sorted keys [B, found], found <= K."""
    query = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + query * found + at, mask=at < found, other=-9223372036854775808)
    none = key == -9223372036854775808
    rising = (key >> 32).to(tl.int32)
    score = (rising ^ ((rising >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    score = score * tl.load(scales + query)
    tl.store(scores + query * K + at, tl.where(none, float("-inf"), score), mask=at < K)
    tl.store(rows + query * K + at, tl.where(none, -1, 4294967295 - (key & 4294967295)), mask=at < K)


# --- launch ---


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One stage: these rows of queries against all items on their first columns, or again against some items."""

    queries: QuantizedRows
    items: QuantizedRows
    allowed: Tensor | None

    def blocks(self) -> Configuration:
        D = self.items.codes.shape[1]
        default = Configuration(
            blocks=blocks(BLOCK_N=256, BLOCK_B=16, BLOCK_D=min(128, power_of_two(max(D, 32)))), warps=4, stages=3
        )
        return configuration("int8_topk", "narrow" if D <= 128 else "wide", self.items.codes, default)

    @property
    def mask(self) -> tuple[Tensor, int]:
        """What kernels take for `allowed`: bytes, and how far those of the next query are."""
        if self.allowed is None:
            return self.items.codes, 0
        return self.allowed.view(torch.uint8), len(self.items.codes) if self.allowed.ndim == 2 else 0


def _scan_triton(task: _Task, k: int) -> Tensor:
    """int64 [B, at most k]: the keys of the best k, falling."""
    (N, D), B = task.items.codes.shape, len(task.queries.codes)
    chosen = task.blocks()
    sizes = chosen.blocks
    group = min(sizes["BLOCK_N"], power_of_two(max(1, isqrt(N // k)))) if k else 1
    groups = -(-N // group)
    best = torch.empty(B, groups, dtype=torch.int64, device=task.items.codes.device)
    if best.numel() == 0:
        return best[:, :k]
    mask, mask_stride = task.mask
    grid = (-(-B // sizes["BLOCK_B"]), -(-N // sizes["BLOCK_N"]))
    _scan_kernel[grid](
        task.items.codes,
        task.items.scales,
        task.queries.codes,
        mask,
        best,
        N,
        D,
        B,
        task.items.codes.stride(0),
        task.queries.codes.stride(0),
        mask_stride,
        groups,
        MASKED=task.allowed is not None,
        GROUP=group,
        **chosen.launch,
    )
    best = best.topk(min(k, groups), dim=1).values
    return best if group == 1 else _again_triton(task, best, k, group)


def _again_triton(task: _Task, found: Tensor, k: int, group: int = 1) -> Tensor:
    """The keys of the best k among the rows of the groups in which those of `found` lie."""
    B, count = found.shape
    keys = torch.empty(B, count * group, dtype=torch.int64, device=found.device)
    if keys.numel() == 0:
        return keys
    chosen = task.blocks()
    sizes = chosen.blocks
    mask, mask_stride = task.mask
    _again_kernel[(-(-keys.shape[1] // sizes["BLOCK_N"]), B)](
        task.items.codes,
        task.items.scales,
        task.queries.codes,
        mask,
        found,
        keys,
        *task.items.codes.shape,
        count,
        task.items.codes.stride(0),
        task.queries.codes.stride(0),
        mask_stride,
        MASKED=task.allowed is not None,
        BLOCK_N=sizes["BLOCK_N"],
        BLOCK_D=sizes["BLOCK_D"],
        GROUP=group,
        num_warps=chosen.warps,
        num_stages=chosen.stages,
    )
    return keys.topk(min(k, keys.shape[1]), dim=1).values


def _launch_triton(first: _Task, wide: int, full: _Task | None, k: int, best: Best) -> None:
    keys = _scan_triton(first, wide)
    if full is not None:
        keys = _again_triton(full, keys, k)
    scales = (full or first).queries.scales
    B, found = keys.shape
    if best.rows.numel():
        _read_kernel[(-(-k // 256), B)](keys, scales, best.scores, best.rows, k, found, BLOCK=256, num_warps=4)


def _launch_cpp(first: _Task, wide: int, full: _Task | None, k: int, best: Best) -> None:
    found = _scan_cpp(first, wide, best if full is None else _empty(len(best.rows), wide, best.rows.device))
    if full is not None:
        _again_cpp(full, found, k, best)


def _scan_cpp(task: _Task, k: int, best: Best) -> Best:
    operators: Any = build.library()
    mask, mask_stride = task.mask
    operators.lasting.int8_topk(
        task.items.codes.data_ptr(),
        task.items.codes.stride(0),
        task.items.scales.data_ptr(),
        *task.items.codes.shape,
        task.queries.codes.data_ptr(),
        task.queries.scales.data_ptr(),
        len(task.queries.codes),
        None if task.allowed is None else mask.data_ptr(),
        mask_stride,
        k,
        best.scores.data_ptr(),
        best.rows.data_ptr(),
        torch.get_num_threads(),
    )
    return best


def _again_cpp(task: _Task, found: Best, k: int, best: Best) -> None:
    operators: Any = build.library()
    operators.lasting.int8_rescore(
        task.items.codes.data_ptr(),
        task.items.codes.stride(0),
        task.items.scales.data_ptr(),
        task.items.codes.shape[1],
        task.queries.codes.data_ptr(),
        task.queries.scales.data_ptr(),
        len(task.queries.codes),
        found.rows.data_ptr(),
        found.rows.shape[1],
        k,
        best.scores.data_ptr(),
        best.rows.data_ptr(),
        torch.get_num_threads(),
    )


def _launch_torch(first: _Task, wide: int, full: _Task | None, k: int, best: Best) -> None:
    found = reference(first.queries, first.items, wide, first.allowed)
    if full is not None:
        kept = torch.zeros(len(found.rows), len(full.items.codes) + 1, dtype=torch.bool, device=found.rows.device)
        kept.scatter_(1, torch.where(found.rows < 0, len(full.items.codes), found.rows), True)
        found = reference(full.queries, full.items, k, kept[:, :-1])
    best.scores.copy_(found.scores)
    best.rows.copy_(found.rows)


_LAUNCHES: dict[str, Callable[[_Task, int, _Task | None, int, Best], None]] = {
    "triton": _launch_triton,
    "cpp": _launch_cpp,
    "torch": _launch_torch,
}


def _launch(
    queries: Tensor,
    query_scales: Tensor | None,
    codes: Tensor,
    scales: Tensor,
    allowed: Tensor | None,
    prefix: int | None,
    prefix_scales: Tensor | None,
    oversample: int,
    backend: str | None,
    best_scores: Tensor,
    best_rows: Tensor,
) -> None:
    """Stages: one on all columns, or one on the prefix and one of its best on all columns."""
    launch = _LAUNCHES[choose("int8_topk", codes, backend, cpp=build.available)]
    items = QuantizedRows(codes=_with_unit_stride(codes), scales=scales.contiguous())
    asked = quantize_rows(queries) if query_scales is None else QuantizedRows(codes=queries, scales=query_scales)
    asked = _contiguous(asked)
    allowed = None if allowed is None else allowed.contiguous()
    best, k = Best(scores=best_scores, rows=best_rows), best_rows.shape[1]
    if prefix is None:
        launch(_Task(queries=asked, items=items, allowed=allowed), k, None, k, best)
        return
    head = queries[:, :prefix]
    narrow = quantize_rows(head) if query_scales is None else QuantizedRows(codes=head, scales=query_scales)
    some = items.scales if prefix_scales is None else prefix_scales.contiguous()
    first = _Task(
        queries=_contiguous(narrow), items=QuantizedRows(codes=items.codes[:, :prefix], scales=some), allowed=allowed
    )
    full = _Task(queries=asked, items=items, allowed=None)
    launch(first, min(k * oversample, len(codes)), full, k, best)


_operator = register("int8_topk", _launch, writes=("best_scores", "best_rows"))


# --- public ---


def int8_topk(
    queries_BD: Tensor | QuantizedRows,
    items: QuantizedRows,
    k: int,
    *,
    allowed: Tensor | None = None,
    prefix: int | None = None,
    prefix_scales: Tensor | None = None,
    oversample: int = 4,
    backend: str | None = None,
    out: Best | None = None,
) -> Best:
    """The best `k` items for each query.

    `queries_BD`: finite floats, quantised here row by row, or the codes and positive scales of queries, which are taken
    as they are (a prefix of them too). `allowed`: bool [N], or [B, N] for a mask of each query.
    `prefix`: columns scored first; `prefix_scales`: float32 [N] that replaces the items' scales there, for instance
    divided by the length of the prefix. `out`: contiguous tensors [B, k] on the items' device.
    Raises ValueError where shapes, types or sizes do not fit.
    """
    queries, query_scales = (
        (queries_BD, None) if isinstance(queries_BD, Tensor) else (queries_BD.codes, queries_BD.scales)
    )
    _check(queries, query_scales, items, k, allowed)
    if prefix is not None:
        _check_prefix(items, prefix, prefix_scales, oversample)
    best = _empty(len(queries), k, items.codes.device) if out is None else _checked_out(out, len(queries), k, items)
    arguments = (queries, query_scales, items.codes, items.scales, allowed, prefix, prefix_scales, oversample, backend)
    (_operator if compiling() else _launch)(*arguments, best.scores, best.rows)
    return best


def _empty(B: int, k: int, device: torch.device) -> Best:
    return Best(scores=torch.empty(B, k, device=device), rows=torch.empty(B, k, dtype=torch.int64, device=device))


def _with_unit_stride(codes: Tensor) -> Tensor:
    return codes if codes.stride(1) == 1 and codes.stride(0) >= codes.shape[1] else codes.contiguous()


def _contiguous(rows: QuantizedRows) -> QuantizedRows:
    return QuantizedRows(codes=rows.codes.contiguous(), scales=rows.scales.contiguous())


def _checked_out(out: Best, B: int, k: int, items: QuantizedRows) -> Best:
    for name, tensor, dtype in (("scores", out.scores, torch.float32), ("rows", out.rows, torch.int64)):
        fits = tuple(tensor.shape) == (B, k) and tensor.dtype == dtype and tensor.device == items.codes.device
        if not fits or not tensor.is_contiguous():
            raise ValueError(
                f"got out.{name} {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}; "
                f"allowed: contiguous {(B, k)} {dtype} on {items.codes.device}"
            )
    return out


def _check(queries: Tensor, query_scales: Tensor | None, items: QuantizedRows, k: int, allowed: Tensor | None) -> None:
    N, D = items.codes.shape
    if queries.ndim != 2 or queries.shape[1] != D or queries.device != items.codes.device:
        raise ValueError(f"got queries {tuple(queries.shape)}; allowed: [B, {D}] on {items.codes.device}")
    if query_scales is not None and (
        queries.dtype != torch.int8 or query_scales.dtype != torch.float32 or query_scales.shape != queries.shape[:1]
    ):
        raise ValueError(
            f"got queries of {queries.dtype}, scales {tuple(query_scales.shape)} {query_scales.dtype}; "
            f"allowed: int8 and float32 [{len(queries)}], as quantize_rows makes them"
        )
    if items.codes.dtype != torch.int8 or items.scales.dtype != torch.float32 or items.scales.shape != (N,):
        raise ValueError(
            f"got codes {items.codes.dtype}, scales {tuple(items.scales.shape)} {items.scales.dtype}; "
            "allowed: int8 [N, D] and float32 [N], as quantize_rows makes them"
        )
    if k < 0 or N > MOST_ITEMS:
        raise ValueError(f"got k {k}, {N} items; allowed: k >= 0, at most {MOST_ITEMS} items; split them")
    if allowed is not None and (
        allowed.dtype != torch.bool
        or tuple(allowed.shape) not in ((N,), (len(queries), N))
        or allowed.device != items.codes.device
    ):
        raise ValueError(f"got allowed {tuple(allowed.shape)} {allowed.dtype}; allowed: bool [{N}] or [B, {N}]")


def _check_prefix(items: QuantizedRows, prefix: int, scales: Tensor | None, oversample: int) -> None:
    N, D = items.codes.shape
    if not 1 <= prefix <= D or oversample < 1:
        raise ValueError(f"got prefix {prefix}, oversample {oversample}; allowed: 1 to {D}, 1 or more")
    if scales is not None and (scales.dtype != torch.float32 or scales.shape != (N,)):
        raise ValueError(f"got prefix_scales {tuple(scales.shape)} {scales.dtype}; allowed: float32 [{N}]")
