"""Product of two int8 matrices with the scales of their rows: y = (A B^T) s_A s_B.

    y_mn = a_m b_n sum_k A_mk B_nk          A [M, K], B [N, K] int8; a [M], b [N] float32, as `quantize_rows` makes them

The sum is an exact int32 (K up to 131,072 with codes in -127..127), so every implementation and every batch gives the
same bits: a_m * b_n is rounded first, then its product with the sum taken as float32. y: [M, N] in `dtype`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rolecall.kernels.configurations import Configuration, blocks, configuration
from rolecall.kernels.cpp import build
from rolecall.kernels.dispatch import Pointer, Scalar, choose, compiling, constexpr, jit, register, tl
from rolecall.kernels.quantization import QuantizedRows

MOST_COLUMNS = 131_072
_EXACT_COLUMNS = 2**24 // 127**2  # float32 holds sums of this many products exactly
_BRIEF = 1 << 23  # products: below, about 100 microseconds, Python's lock is kept
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


# --- reference ---


def reference(a: QuantizedRows, b: QuantizedRows, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same product by way of floating-point sums wide enough to be exact; any device.

    `torch._int_mm` is not used: on the CPU it was seen to return memory it had not written, for one column (2.13).
    """
    narrow = a.codes.shape[1] <= _EXACT_COLUMNS and a.codes.device.type == "cpu"  # CUDA may round float32 to TF32
    exact = torch.float32 if narrow else torch.float64
    sums_MN = a.codes.to(exact) @ b.codes.to(exact).t()
    return (sums_MN.float() * (a.scales[:, None] * b.scales)).to(dtype)


# --- kernel ---


@jit
def banded_block(M: Scalar, N: Scalar, BLOCK_M: constexpr, BLOCK_N: constexpr, BAND: constexpr) -> Scalar:
    """Rows and columns of this program's block of an [M, N] product.

    Programs go down BAND blocks of rows before the next column, so that the right matrix's blocks stay in cache.
    """
    program = tl.program_id(0)
    across = tl.cdiv(N, BLOCK_N)
    first = program // (BAND * across) * BAND
    height = tl.minimum(tl.cdiv(M, BLOCK_M) - first, BAND)
    inside = program % (BAND * across)
    row = (first + inside % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    return row, (inside // height) * BLOCK_N + tl.arange(0, BLOCK_N)


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
    BLOCK_M: constexpr,
    BLOCK_N: constexpr,
    BLOCK_K: constexpr,
    BAND: constexpr,
) -> None:
    """One block of y."""
    row, column = banded_block(M, N, BLOCK_M, BLOCK_N, BAND)
    step = tl.arange(0, BLOCK_K)
    a_at = a + row.to(tl.int64)[:, None] * a_stride + step[None, :]
    b_at = b + column.to(tl.int64)[None, :] * b_stride + step[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    k = 0
    while k < K:
        left = step < K - k
        a_block = tl.load(a_at + k, mask=(row < M)[:, None] & left[None, :], other=0)
        b_block = tl.load(b_at + k, mask=(column < N)[None, :] & left[:, None], other=0)
        sums = tl.dot(a_block, b_block, acc=sums, out_dtype=tl.int32)
        k += BLOCK_K
    scales = (
        tl.load(a_scales + row, mask=row < M, other=0.0)[:, None]
        * tl.load(b_scales + column, mask=column < N, other=0.0)[None, :]
    )
    out = y + row.to(tl.int64)[:, None] * y_stride + column[None, :]
    tl.store(
        out, (sums.to(tl.float32) * scales).to(y.dtype.element_ty), mask=(row < M)[:, None] & (column < N)[None, :]
    )


# --- launch ---


def _default(M: int) -> Configuration:
    if M <= 16:
        return Configuration(blocks=blocks(BLOCK_M=16, BLOCK_N=64, BLOCK_K=128, BAND=8), warps=4, stages=4)
    return Configuration(blocks=blocks(BLOCK_M=128, BLOCK_N=128, BLOCK_K=128, BAND=8), warps=8, stages=3)


def _launch_triton(a: QuantizedRows, b: QuantizedRows, y_MN: Tensor) -> None:
    (M, K), N = a.codes.shape, len(b.codes)
    chosen = configuration("int8_gemm", "thin" if M <= 16 else "wide", a.codes, _default(M))
    sizes = chosen.blocks
    grid = (-(-M // sizes["BLOCK_M"]) * -(-N // sizes["BLOCK_N"]),)
    _gemm_kernel[grid](
        a.codes,
        b.codes,
        a.scales,
        b.scales,
        y_MN,
        M,
        N,
        K,
        a.codes.stride(0),
        b.codes.stride(0),
        y_MN.stride(0),
        **chosen.launch,
    )


def _launch_cpp(a: QuantizedRows, b: QuantizedRows, y_MN: Tensor) -> None:
    operators: Any = build.library()
    (M, K), N = a.codes.shape, len(b.codes)
    y = y_MN if y_MN.dtype == torch.float32 else torch.empty_like(y_MN, dtype=torch.float32)
    functions = operators.brief if M * N * K <= _BRIEF else operators.lasting
    functions.int8_gemm(
        a.codes.data_ptr(),
        a.codes.stride(0),
        a.scales.data_ptr(),
        b.codes.data_ptr(),
        b.codes.stride(0),
        b.scales.data_ptr(),
        y.data_ptr(),
        y.stride(0),
        M,
        N,
        K,
        torch.get_num_threads(),
    )
    if y is not y_MN:
        y_MN.copy_(y)


def _launch_torch(a: QuantizedRows, b: QuantizedRows, y_MN: Tensor) -> None:
    y_MN.copy_(reference(a, b))


def _run(a: QuantizedRows, b: QuantizedRows, backend: str | None, y_MN: Tensor) -> None:
    if y_MN.numel() == 0:
        return
    if a.codes.shape[1] == 0:
        y_MN.zero_()
        return
    chosen = choose("int8_gemm", a.codes, backend, cpp=build.available)
    if chosen == "cpp":
        _launch_cpp(a, b, y_MN)
    elif chosen == "triton":
        _launch_triton(a, b, y_MN)
    else:
        _launch_torch(a, b, y_MN)


def _launch(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor, backend: str | None, out: Tensor) -> None:
    _run(QuantizedRows(codes=a, scales=a_scales), QuantizedRows(codes=b, scales=b_scales), backend, out)


_operator = register("int8_gemm", _launch)


# --- public ---


def int8_gemm(
    a: QuantizedRows,
    b: QuantizedRows,
    *,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """[M, N] in `dtype`, or in `out`, [M, N] with unit column stride. Raises ValueError where things do not fit."""
    a, b = _checked(a, b, dtype if out is None else out.dtype)
    shape = (len(a.codes), len(b.codes))
    if out is not None and (tuple(out.shape) != shape or out.device != a.codes.device or out.stride(1) != 1):
        raise ValueError(
            f"got out {tuple(out.shape)} on {out.device}; allowed: {shape} on {a.codes.device}, rows whole"
        )
    y_MN = torch.empty(shape, dtype=dtype, device=a.codes.device) if out is None else out
    if compiling():
        _operator(a.codes, a.scales, b.codes, b.scales, backend, y_MN)
    else:
        _run(a, b, backend, y_MN)
    return y_MN


def _checked(a: QuantizedRows, b: QuantizedRows, dtype: torch.dtype) -> tuple[QuantizedRows, QuantizedRows]:
    for rows in (a, b):
        fits = rows.codes.dtype == torch.int8 and rows.scales.dtype == torch.float32
        if not fits or rows.codes.ndim != 2 or rows.scales.shape != rows.codes.shape[:1]:
            raise ValueError(
                f"got codes {tuple(rows.codes.shape)} {rows.codes.dtype}, scales {tuple(rows.scales.shape)} "
                f"{rows.scales.dtype}; allowed: int8 [n, K] and float32 [n], as quantize_rows makes them"
            )
    K = a.codes.shape[1]
    if b.codes.shape[1] != K or b.codes.device != a.codes.device or K > MOST_COLUMNS:
        raise ValueError(
            f"got {K} and {b.codes.shape[1]} columns on {a.codes.device} and {b.codes.device}; "
            f"allowed: the same, up to {MOST_COLUMNS}"
        )
    if dtype not in _DTYPES:
        raise ValueError(f"got dtype {dtype}; allowed: {', '.join(map(str, _DTYPES))}")
    return _with_whole_rows(a), _with_whole_rows(b)


def _with_whole_rows(rows: QuantizedRows) -> QuantizedRows:
    if rows.codes.stride(1) == 1 and rows.scales.is_contiguous():
        return rows
    return QuantizedRows(codes=rows.codes.contiguous(), scales=rows.scales.contiguous())
