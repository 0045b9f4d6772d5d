"""Linear layer whose weight is kept in 8 or 4 bits: y = x W'^T, W' as `weight_formats` defines it.

    exact   y_mn = sum_k x_mk W'_nk                                        x in float32
    fast    y_mn = sum_g s_mg sum_(k in g) q_mk W'_nk                      groups g of 32 columns
            s_mg = max |x_mg| / 127,  q = clamp(round(x / s), -127, 127), halves away from zero

A decode step reads every weight once and does two operations with it, so its time is the bytes of W. The compiled
CPU code and the Triton kernel unpack codes in registers and never write W'; the torch path writes W' first and is there
for machines without either. Fast mode multiplies integers (dynamic quantisation of activations by blocks, as
Q8_0 in ggml), exact on the CPU's 8-bit dot products; a group of x that holds a value that is not finite gives NaN.

Deterministic and batch-invariant in every implementation: row m of y depends on row m of x alone, bit for bit.
x: [..., K] float32, bfloat16 or float16; y: [..., N] in the type of x; sums in float32.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from rolecall.kernels.cpp import build
from rolecall.kernels.cpp.recording import Recording
from rolecall.kernels.dispatch import Pointer, Scalar, choose, compiling, constexpr, jit, register, tl
from rolecall.kernels.quantization import LEVELS, quantize
from rolecall.kernels.weight_formats import (
    FORMATS,
    GROUP,
    TILE_ROWS,
    TiledWeight,
    dequantize_weight,
    header_bytes,
    untile_weight,
)

Mode: TypeAlias = Literal["exact", "fast"]

_BRIEF = 1 << 21  # bytes of W times rows of x: below, about 100 microseconds, Python's lock is kept
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


# --- reference ---


def reference(x_MK: Tensor, w_NK: Tensor, mode: Mode = "exact") -> Tensor:
    """[M, N] for a dequantised weight, in the type of `w_NK`, a row of x at a time: batch-invariant, differentiable."""
    x_MK = x_MK.to(w_NK.dtype)
    if mode == "fast":
        codes_MGC, scales_MG = quantize_activations(x_MK)
        x_MK = (codes_MGC.to(w_NK.dtype) * scales_MG[:, :, None]).flatten(1)[:, : x_MK.shape[1]]
    rows = [torch.mv(w_NK, x_K) for x_K in x_MK.contiguous()]
    return torch.stack(rows) if rows else x_MK.new_zeros(0, w_NK.shape[0])


def quantize_activations(x_MK: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes [M, G, 32] and scales [M, G] of x; a group that is not finite has codes 0 and scale NaN."""
    M, K = x_MK.shape
    x_MGC = torch.nn.functional.pad(x_MK, (0, -K % GROUP)).reshape(M, -(-K // GROUP), GROUP)
    finite = torch.isfinite(x_MGC).all(dim=2)
    kept = torch.where(finite[:, :, None], x_MGC, torch.zeros_like(x_MGC))
    scales = kept.abs().amax(dim=2) / LEVELS
    codes = quantize(kept, scales[:, :, None])
    return codes, torch.where(finite, scales, torch.full_like(scales, torch.nan))


# --- kernel ---


@jit
def _linear_kernel(
    words: Pointer,
    halves: Pointer,
    floats: Pointer,
    x: Pointer,
    y: Pointer,
    x_stride: Scalar,
    y_stride: Scalar,
    rows: Scalar,
    columns: Scalar,
    tile_words: Scalar,
    header_words: Scalar,
    PER_WORD: constexpr,
    BITS: constexpr,
    BIAS: constexpr,
    GROUPED: constexpr,
    AFFINE: constexpr,
    BLOCK: constexpr,
) -> None:
    """One tile of 16 rows of W by one row of x; a word holds PER_WORD codes + BIAS of BITS. BLOCK: words in a step."""
    tile = tl.program_id(0).to(tl.int64)
    m = tl.program_id(1)
    row = tl.arange(0, 16)
    step = tl.arange(0, BLOCK)
    stored = tile_words - header_words  # words of codes, of 16 rows
    total = tl.zeros((16,), tl.float32)
    start = 0
    while start * 16 < stored:
        at = start + step
        inside = at * 16 < stored
        cells = at[:, None] * 16 + row[None, :]
        word = tl.load(words + tile * tile_words + header_words + cells, mask=inside[:, None], other=0)
        part = tl.zeros((BLOCK, 16), tl.float32)
        sums = tl.zeros((BLOCK,), tl.float32)
        for n in tl.static_range(PER_WORD):
            column = at * PER_WORD + n
            value = tl.load(x + m * x_stride + column, mask=column < columns, other=0.0).to(tl.float32)
            code = ((word >> (BITS * n)) & (2**BITS - 1)) - BIAS
            part += code.to(tl.float32) * value[:, None]
            sums += value
        if GROUPED:
            group = at * PER_WORD // 32
            if AFFINE:
                head = halves + tile * tile_words * 2 + group[:, None] * 32 + row[None, :]
                scale = tl.load(head, mask=inside[:, None], other=0.0).to(tl.float32)
                middle = tl.load(head + 16, mask=inside[:, None], other=0.0).to(tl.float32) + 8 * scale
                part = part * scale + middle * sums[:, None]
            else:
                head = halves + tile * tile_words * 2 + group[:, None] * 16 + row[None, :]
                part = part * tl.load(head, mask=inside[:, None], other=0.0).to(tl.float32)
        total += tl.sum(part, axis=0)
        start += BLOCK
    if not GROUPED:
        total = total * tl.load(floats + tile * tile_words + row)
    out = tile * 16 + row
    tl.store(y + m * y_stride + out, total.to(y.dtype.element_ty), mask=out < rows)


# --- launch ---


def _launch_triton(x_MK: Tensor, weight: TiledWeight, mode: Mode, y_MN: Tensor) -> None:
    M, K = x_MK.shape
    if mode == "fast":
        codes, scales = quantize_activations(x_MK.float())
        x_MK = (codes.float() * scales[:, :, None]).flatten(1)
    count = -(-weight.rows // TILE_ROWS)
    if M == 0 or count == 0:
        return
    tile_words = weight.tiles.numel() // count // 4
    bits = 8 if weight.format.startswith("int8") else 4
    _linear_kernel[(count, M)](
        weight.tiles.view(torch.int32),
        weight.tiles.view(torch.float16),
        weight.tiles.view(torch.float32),
        x_MK,
        y_MN,
        x_MK.stride(0),
        y_MN.stride(0),
        weight.rows,
        K,
        tile_words,
        header_bytes(weight.format, K) // 4,
        PER_WORD=32 // bits,
        BITS=bits,
        BIAS=1 << (bits - 1),
        GROUPED=weight.format != "int8_channel",
        AFFINE=weight.format == "int4_affine",
        BLOCK=32,
        num_warps=4,
    )


def _launch_torch(x_MK: Tensor, weight: TiledWeight, mode: Mode, y_MN: Tensor) -> None:
    y_MN.copy_(reference(x_MK, dequantize_weight(untile_weight(weight)), mode))


def linear_into(
    x_MK: Tensor,
    weight: TiledWeight,
    y_MN: Tensor,
    *,
    fast: bool,
    threads: int,
    recording: Recording | None = None,
) -> None:
    """The compiled product and nothing else: for a decode loop that has checked its shapes once.

    `x_MK`, `y_MN`: float32 on the CPU with unit column stride, y not overlapping x; only where `build.available()`.
    """
    M, K = x_MK.shape
    N = weight.rows
    (recording or build.functions(brief=M * weight.tiles.numel() <= _BRIEF)).weight_only_linear(
        weight.tiles.data_ptr(),
        x_MK.data_ptr(),
        x_MK.stride(0),
        y_MN.data_ptr(),
        y_MN.stride(0),
        M,
        N,
        K,
        2 * _KIND[weight.format] + fast,
        threads,
    )


_KIND: dict[str, int] = {name: number for number, name in enumerate(FORMATS)}


def _launch_cpp(x_MK: Tensor, weight: TiledWeight, mode: Mode, y_MN: Tensor) -> None:
    x = x_MK if x_MK.dtype == torch.float32 and x_MK.stride(1) == 1 else x_MK.float().contiguous()
    y = y_MN if y_MN.dtype == torch.float32 and y_MN.stride(1) == 1 else torch.empty_like(y_MN, dtype=torch.float32)
    linear_into(x, weight, y, fast=mode == "fast", threads=torch.get_num_threads())
    if y is not y_MN:
        y_MN.copy_(y)


def _run(x_MK: Tensor, weight: TiledWeight, mode: Mode, backend: str | None, y_MN: Tensor) -> None:
    chosen = choose("weight_only_linear", x_MK, backend, cpp=build.available)
    if chosen == "cpp":
        _launch_cpp(x_MK, weight, mode, y_MN)
    elif chosen == "triton":
        _launch_triton(x_MK, weight, mode, y_MN)
    else:
        _launch_torch(x_MK, weight, mode, y_MN)


def _launch(
    x: Tensor, tiles: Tensor, rows: int, columns: int, format: str, fast: bool, backend: str | None, out: Tensor
) -> None:
    weight = TiledWeight(format=FORMATS[_KIND[format]], rows=rows, columns=columns, tiles=tiles)
    _run(x, weight, "fast" if fast else "exact", backend, out)


_operator = register("weight_only_linear", _launch)


# --- public ---


def weight_only_linear(
    x: Tensor, weight: TiledWeight, *, mode: Mode = "exact", backend: str | None = None, out: Tensor | None = None
) -> Tensor:
    """[..., N] for x [..., K]. With `out`, a tensor [..., N] of x's type and device, nothing is allocated.

    Raises ValueError where shapes, types, devices, `mode` or `backend` do not fit.
    """
    _check(x, weight, mode, out)
    if torch.is_grad_enabled() and x.requires_grad and backend in (None, "auto", "torch") and out is None:
        return _differentiable(x, weight, mode)
    y = x.new_empty(*x.shape[:-1], weight.rows) if out is None else out
    M = math.prod(x.shape[:-1])
    x_MK, y_MN = x.reshape(M, weight.columns), y.view(M, weight.rows)
    if compiling():
        _operator(x_MK, weight.tiles, weight.rows, weight.columns, weight.format, mode == "fast", backend, y_MN)
    else:
        _run(x_MK, weight, mode, backend, y_MN)
    return y


def _differentiable(x: Tensor, weight: TiledWeight, mode: Mode) -> Tensor:
    if mode == "fast":
        raise ValueError("got an x that needs a gradient in fast mode, allowed: exact mode; rounding has no gradient")
    x_MK = x.reshape(math.prod(x.shape[:-1]), weight.columns)
    y_MN = reference(x_MK, dequantize_weight(untile_weight(weight)))
    return y_MN.to(x.dtype).reshape(*x.shape[:-1], weight.rows)


def _check(x: Tensor, weight: TiledWeight, mode: str, out: Tensor | None) -> None:
    if x.dtype not in _DTYPES or x.ndim == 0 or x.shape[-1] != weight.columns or x.device != weight.tiles.device:
        raise ValueError(
            f"got x {tuple(x.shape)} {x.dtype} on {x.device}; allowed: [..., {weight.columns}] float32, bfloat16 or "
            f"float16 on {weight.tiles.device}"
        )
    if mode not in ("exact", "fast"):
        raise ValueError(f"got mode {mode!r}; allowed: exact, fast")
    if out is not None:
        fits = out.shape == (*x.shape[:-1], weight.rows) and out.dtype == x.dtype and out.device == x.device
        if not fits or not out.is_contiguous():
            raise ValueError(
                f"got out {tuple(out.shape)} {out.dtype} on {out.device}; allowed: contiguous "
                f"{(*x.shape[:-1], weight.rows)} {x.dtype} on {x.device}"
            )
