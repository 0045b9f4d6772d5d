"""Products of matrices kept in 8-bit floating point (e4m3): y = (A B^T) s_A s_B.

    y_mn = a_m b_n sum_k A_mk B_nk      A [M, K], B [N, K] float8_e4m3fn; a [M] or [1], b [N] or [1] float32
    fp8_gemm     both in fp8
    fp8_linear   x float32, bfloat16 or float16 [..., K], the weight alone in fp8: y = x W'^T

e4m3 has 3 bits of mantissa and reaches 448 (Micikevicius et al., arXiv:2209.05433); a row's scale is max |x| / 448, so
rows use the whole range. The conversion rounds halves to even and does not saturate, so values are clamped before.

Hopper's tensor cores add fp8 products in about 14 bits of mantissa, which at K = 4,096 is an error near 2%
(DeepSeek-V3, arXiv:2412.19437, section 3.3.2); the kernel moves their sums to float32 every 128 columns. That is fixed,
and so is the instruction that multiplies: a row has the same sums whatever the batch.
y: [M, N] in `dtype`, for `fp8_linear` in the type of x; sums in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rolecall.kernels.configurations import Configuration, blocks, configuration
from rolecall.kernels.dispatch import INTERPRETED, Pointer, Scalar, choose, compiling, constexpr, jit, register, tl
from rolecall.kernels.int8_gemm import banded_block

LARGEST = 448.0  # of e4m3
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class Fp8Rows:
    """`codes`: float8_e4m3fn [n, K]. `scales`: float32 [n], or [1] for all rows; 0 marks zeros."""

    codes: Tensor
    scales: Tensor


def quantize_rows_fp8(x_NK: Tensor, *, per_tensor: bool = False) -> Fp8Rows:
    """The nearest e4m3 numbers to a finite float matrix, with a scale a row or one in all. Values are not checked.

    Raises ValueError for anything but a floating-point matrix.
    """
    if x_NK.ndim != 2 or not x_NK.is_floating_point():
        raise ValueError(f"got {tuple(x_NK.shape)} {x_NK.dtype}; allowed: a floating-point matrix [n, K]")
    x = x_NK.float()
    peaks = x.abs().amax(dim=1) if x.shape[1] else x.new_zeros(len(x))
    if per_tensor:
        peaks = peaks.amax().reshape(1) if len(peaks) else x.new_zeros(1)
    scales = peaks / LARGEST
    ratio = torch.where(scales[:, None] > 0, x / scales[:, None], torch.zeros_like(x))
    return Fp8Rows(codes=ratio.clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scales=scales)


# --- reference ---


def reference(a: Tensor, a_scales: Tensor | None, b: Fp8Rows, dtype: torch.dtype = torch.float32) -> Tensor:
    """[M, N] for codes with scales, or floats without; any device. float64 in `dtype` gives sums without rounding."""
    wide = torch.promote_types(dtype, torch.float32)
    rows = [torch.mv(b.codes.to(wide), row) for row in a.to(wide)]
    sums_MN = torch.stack(rows) if rows else a.new_zeros(0, len(b.codes), dtype=wide)
    scales = b.scales.to(wide) if a_scales is None else a_scales.to(wide)[:, None] * b.scales.to(wide)
    return (sums_MN * scales).to(dtype)


# --- kernel ---


@jit
def _gemm_kernel(
    a: Pointer,
    b: Pointer,
    a_scales: Pointer,
    b_scales: Pointer,
    y: Pointer,
    M: Scalar,
    N: Scalar,
    K: Scalar,
    a_stride: Scalar,
    b_stride: Scalar,
    y_stride: Scalar,
    a_scale_stride: Scalar,
    b_scale_stride: Scalar,
    WEIGHT_ONLY: constexpr,
    DOT: constexpr,
    BLOCK_M: constexpr,
    BLOCK_N: constexpr,
    BLOCK_K: constexpr,
    BAND: constexpr,
) -> None:
    """One block of y. DOT: the type numbers are multiplied in where the weight alone is fp8."""
    row, column = banded_block(M, N, BLOCK_M, BLOCK_N, BAND)
    step = tl.arange(0, BLOCK_K)
    a_at = a + row.to(tl.int64)[:, None] * a_stride + step[None, :]
    b_at = b + column.to(tl.int64)[None, :] * b_stride + step[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    k = 0
    while k < K:
        left = step < K - k
        a_block = tl.load(a_at + k, mask=(row < M)[:, None] & left[None, :], other=0.0)
        b_block = tl.load(b_at + k, mask=(column < N)[None, :] & left[:, None], other=0.0)
        if WEIGHT_ONLY:
            sums = tl.dot(a_block.to(DOT), b_block.to(tl.float32).to(DOT), acc=sums, input_precision="ieee")
        else:
            sums = tl.dot(a_block, b_block, acc=sums, max_num_imprecise_acc=BLOCK_K)
        k += BLOCK_K
    scales = tl.load(b_scales + column * b_scale_stride, mask=column < N, other=0.0)[None, :]
    if not WEIGHT_ONLY:
        scales = tl.load(a_scales + row * a_scale_stride, mask=row < M, other=0.0)[:, None] * scales
    out = y + row.to(tl.int64)[:, None] * y_stride + column[None, :]
    tl.store(out, (sums * scales).to(y.dtype.element_ty), mask=(row < M)[:, None] & (column < N)[None, :])


# --- launch ---


def _default(M: int, bytes_of_a: int) -> Configuration:
    """64 rows at least, so that thin and wide products go through the same tensor-core instruction."""
    if M <= 64 or bytes_of_a == 4:
        return Configuration(
            blocks=blocks(BLOCK_M=64, BLOCK_N=64, BLOCK_K=128 // bytes_of_a, BAND=8), warps=4, stages=4
        )
    return Configuration(blocks=blocks(BLOCK_M=128, BLOCK_N=128, BLOCK_K=128 // bytes_of_a, BAND=8), warps=8, stages=3)


def _launch_triton(a: Tensor, a_scales: Tensor | None, b: Fp8Rows, y_MN: Tensor) -> None:
    (M, K), N = a.shape, len(b.codes)
    name = "fp8_gemm" if a_scales is not None else "fp8_linear"
    chosen = configuration(name, "thin" if M <= 64 else "wide", a, _default(M, a.element_size()))
    grid = (-(-M // chosen.blocks["BLOCK_M"]) * -(-N // chosen.blocks["BLOCK_N"]),)
    _gemm_kernel[grid](
        a,
        b.codes,
        b.scales if a_scales is None else a_scales,
        b.scales,
        y_MN,
        M,
        N,
        K,
        a.stride(0),
        b.codes.stride(0),
        y_MN.stride(0),
        0 if a_scales is None or len(a_scales) == 1 else 1,
        0 if len(b.scales) == 1 else 1,
        WEIGHT_ONLY=a_scales is None,
        DOT=_dot_type(a),
        **chosen.launch,
    )


def _dot_type(a: Tensor) -> Any:
    """Halves are multiplied as they are, but in the interpreter, which gets bfloat16 wrong."""
    if INTERPRETED or a.dtype not in (torch.bfloat16, torch.float16):
        return tl.float32
    return tl.bfloat16 if a.dtype == torch.bfloat16 else tl.float16


def _launch(a: Tensor, a_scales: Tensor | None, b: Tensor, b_scales: Tensor, backend: str | None, out: Tensor) -> None:
    weight = Fp8Rows(codes=b, scales=b_scales)
    if out.numel() == 0:
        return
    if a.shape[1] == 0:
        out.zero_()
    elif choose("fp8_gemm", a, backend) == "triton":
        _launch_triton(a, a_scales, weight, out)
    else:
        out.copy_(reference(a, a_scales, weight))


_operator = register("fp8_gemm", _launch)


# --- public ---


def fp8_gemm(
    a: Fp8Rows,
    b: Fp8Rows,
    *,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """[M, N] in `dtype`, or in `out`, [M, N] with unit column stride. Raises ValueError where things do not fit."""
    _check_rows(a)
    y_MN = _output(a.codes, b, dtype if out is None else out.dtype, out)
    run = _operator if compiling() else _launch
    run(_whole(a.codes), a.scales.contiguous(), _whole(b.codes), b.scales.contiguous(), backend, y_MN)
    return y_MN


def fp8_linear(x: Tensor, weight: Fp8Rows, *, backend: str | None = None, out: Tensor | None = None) -> Tensor:
    """[..., N] for x [..., K], in the type of x, or in `out`, contiguous. Raises ValueError where things do not fit."""
    if x.dtype not in _DTYPES or x.ndim == 0 or (out is not None and (out.dtype != x.dtype or not out.is_contiguous())):
        raise ValueError(f"got x {tuple(x.shape)} {x.dtype}; allowed: [..., K] of {_DTYPES}, `out` like it, contiguous")
    M, shape = math.prod(x.shape[:-1]), (*x.shape[:-1], len(weight.codes))
    if out is not None and tuple(out.shape) != shape:
        raise ValueError(f"got out {tuple(out.shape)}; allowed: {shape}")
    x_MK = x.reshape(M, x.shape[-1])
    y_MN = _output(x_MK, weight, x.dtype, None if out is None else out.view(M, shape[-1]))
    run = _operator if compiling() else _launch
    run(_whole(x_MK), None, _whole(weight.codes), weight.scales.contiguous(), backend, y_MN)
    return y_MN.view(shape) if out is None else out


def _output(a: Tensor, b: Fp8Rows, dtype: torch.dtype, out: Tensor | None) -> Tensor:
    _check_rows(b)
    if b.codes.shape[1] != a.shape[1] or b.codes.device != a.device or dtype not in _DTYPES:
        raise ValueError(
            f"got {a.shape[1]} and {b.codes.shape[1]} columns on {a.device} and {b.codes.device} for {dtype}; "
            f"allowed: the same, for {', '.join(map(str, _DTYPES))}"
        )
    shape = (len(a), len(b.codes))
    if out is None:
        return torch.empty(shape, dtype=dtype, device=a.device)
    if tuple(out.shape) != shape or out.device != a.device or out.stride(1) != 1:
        raise ValueError(f"got out {tuple(out.shape)} on {out.device}; allowed: {shape} on {a.device}, rows whole")
    return out


def _check_rows(rows: Fp8Rows) -> None:
    codes, scales = rows.codes, rows.scales
    fits = codes.dtype == torch.float8_e4m3fn and scales.dtype == torch.float32 and codes.ndim == 2
    if not fits or scales.shape not in ((len(codes),), (1,)):
        raise ValueError(
            f"got codes {tuple(codes.shape)} {codes.dtype}, scales {tuple(scales.shape)} {scales.dtype}; allowed: "
            "float8_e4m3fn [n, K] and float32 [n] or [1], as quantize_rows_fp8 makes them"
        )


def _whole(codes: Tensor) -> Tensor:
    return codes if codes.stride(1) == 1 else codes.contiguous()
