"""Root-mean-square normalisation, alone, with the residual added first, and with int8 quantisation after.

    h = x + r (rounded to x's dtype)          y = h / sqrt(mean(h^2) + eps) * w
    scale = max |y| / 127                     code = clamp(round(y / scale), -127, 127), halves away from zero

Shapes: x_MN, r_MN, w_N (None: ones), y_MN, code_MN, scale_M. Dtypes: float16, bfloat16, float32 (float64 through
torch); sums, and y before it is rounded or quantised, are float32. Zhang and Sennrich, arXiv:1910.07467.
Bytes: 2 tensors moved alone, 4 with the residual. A row alone has the bits it has in any batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rolecall.kernels.configurations import configuration, row_configuration
from rolecall.kernels.cpp import build
from rolecall.kernels.cpp.recording import Recording
from rolecall.kernels.dispatch import Pointer, Scalar, choose, compiling, constexpr, jit, register, tl, triton
from rolecall.kernels.quantization import QuantizedRows, quantize_rows
from rolecall.kernels.rows import (
    FLOATS,
    accumulating,
    cells,
    check_float,
    check_vector,
    output,
    rows_of,
    written,
    written_rows,
)


def reference(x: Tensor, weight: Tensor | None = None, *, eps: float = 1e-6) -> Tensor:
    """y in x's dtype."""
    return _normalized(x, weight, eps).to(x.dtype)


def _normalized(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    wide = accumulating(x)
    y = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return y if weight is None else y * weight.to(y.dtype)


@jit
def _kernel(
    x_ptr: Pointer,
    r_ptr: Pointer,
    w_ptr: Pointer,
    y_ptr: Pointer,
    h_ptr: Pointer,
    scale_ptr: Pointer,
    M: Scalar,
    N: Scalar,
    x_stride: Scalar,
    r_stride: Scalar,
    y_stride: Scalar,
    h_stride: Scalar,
    eps: Scalar,
    RESIDUAL: constexpr,
    WEIGHT: constexpr,
    QUANTIZE: constexpr,
    STEPS: constexpr,
    ROWS: constexpr,
    BLOCK: constexpr,
) -> None:
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    x_ptr += rows * x_stride
    r_ptr += rows * r_stride
    y_ptr += rows * y_stride
    h_ptr += rows * h_stride
    if STEPS == 1:  # the row is read once and stays in registers
        columns, inside = cells(rows, 0, M, N, BLOCK)
        h = _sum(x_ptr, r_ptr, h_ptr, columns, inside, RESIDUAL)
        inverse = tl.rsqrt(tl.sum(h * h, axis=1) / N + eps)[:, None]
        y = _scaled(h, inverse, w_ptr, columns, N, WEIGHT)
        step = tl.max(tl.abs(y), axis=1)[:, None] / 127.0
        _write(y, step, y_ptr + columns, inside, QUANTIZE)
    else:
        total = tl.zeros([ROWS], tl.float32)
        for index in tl.range(0, STEPS):
            columns, inside = cells(rows, index, M, N, BLOCK)
            h = _sum(x_ptr, r_ptr, h_ptr, columns, inside, RESIDUAL)
            total += tl.sum(h * h, axis=1)
        inverse = tl.rsqrt(total / N + eps)[:, None]
        tl.debug_barrier()  # h has been written by all threads before any reads it again
        source = h_ptr if RESIDUAL else x_ptr
        peak = tl.zeros([ROWS], tl.float32)
        if QUANTIZE:
            for index in tl.range(0, STEPS):
                columns, inside = cells(rows, index, M, N, BLOCK)
                h = tl.load(source + columns, mask=inside, other=0.0).to(tl.float32)
                y = _scaled(h, inverse, w_ptr, columns, N, WEIGHT)
                peak = tl.maximum(peak, tl.max(tl.abs(y), axis=1))
        step = peak[:, None] / 127.0
        for index in tl.range(0, STEPS):
            columns, inside = cells(rows, index, M, N, BLOCK)
            h = tl.load(source + columns, mask=inside, other=0.0).to(tl.float32)
            y = _scaled(h, inverse, w_ptr, columns, N, WEIGHT)
            _write(y, step, y_ptr + columns, inside, QUANTIZE)
    if QUANTIZE:
        tl.store(scale_ptr + rows, step, mask=rows < M)


@jit
def _sum(
    x_ptr: Pointer, r_ptr: Pointer, h_ptr: Pointer, columns: Scalar, inside: Scalar, RESIDUAL: constexpr
) -> Scalar:
    """h = x, or x + r, rounded and written."""
    h = tl.load(x_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    if RESIDUAL:
        h += tl.load(r_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        rounded = h.to(h_ptr.dtype.element_ty)
        tl.store(h_ptr + columns, rounded, mask=inside)
        h = rounded.to(tl.float32)
    return h


@jit
def _scaled(h: Scalar, inverse: Scalar, w_ptr: Pointer, columns: Scalar, N: Scalar, WEIGHT: constexpr) -> Scalar:
    y = h * inverse
    if WEIGHT:
        y *= tl.load(w_ptr + columns, mask=columns < N, other=0.0).to(tl.float32)
    return y


@jit
def int8_code(y: Scalar, step: Scalar) -> Scalar:
    """round(y / step), halves away from zero, at most 127 in size; 0 where the step is 0. Still float32."""
    ratio = tl.where(step > 0, tl.div_rn(tl.abs(y), tl.where(step > 0, step, 1.0)), 0.0)
    whole = tl.floor(ratio)
    code = tl.minimum(tl.where(ratio - whole >= 0.5, whole + 1.0, whole), 127.0)
    return tl.where(y < 0, -code, code)


@jit
def _write(y: Scalar, step: Scalar, y_ptr: Pointer, inside: Scalar, QUANTIZE: constexpr) -> None:
    if QUANTIZE:
        y = int8_code(y, step)
    tl.store(y_ptr, y.to(y_ptr.dtype.element_ty), mask=inside)


def _launch(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    eps: float,
    out: Tensor,
    residual_out: Tensor | None,
    scales: Tensor | None,
) -> None:
    x_MN, y_MN = rows_of(x), written_rows(out)
    M, N = x_MN.shape
    if M == 0 or N == 0:
        return
    r_MN = x_MN if residual is None else rows_of(residual)
    h_MN = y_MN if residual_out is None else written_rows(residual_out)
    chosen = configuration("rms_norm", str(N), x, row_configuration(N))
    _kernel[(triton.cdiv(M, chosen.blocks["ROWS"]),)](
        x_MN,
        r_MN,
        x_MN if weight is None else weight,
        y_MN,
        h_MN,
        x_MN if scales is None else scales,
        M,
        N,
        x_MN.stride(0),
        r_MN.stride(0),
        y_MN.stride(0),
        h_MN.stride(0),
        eps,
        RESIDUAL=residual is not None,
        WEIGHT=weight is not None,
        QUANTIZE=scales is not None,
        STEPS=triton.cdiv(N, chosen.blocks["BLOCK"]),
        **chosen.launch,
    )


def _plain(x: Tensor, weight: Tensor | None, eps: float, out: Tensor) -> None:
    _launch(x, None, weight, eps, out, None, None)


def _add(x: Tensor, residual: Tensor, weight: Tensor | None, eps: float, out: Tensor, residual_out: Tensor) -> None:
    _launch(x, residual, weight, eps, out, residual_out, None)


def _quantized(x: Tensor, weight: Tensor | None, eps: float, codes: Tensor, scales: Tensor) -> None:
    _launch(x, None, weight, eps, codes, None, scales)


_BRIEF = 1 << 18  # elements: below, about 100 microseconds, Python's lock is kept


def norm_into(
    x_MN: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    eps: float,
    out: Tensor,
    residual_out: Tensor | None,
    threads: int,
    recording: Recording | None = None,
) -> None:
    """The compiled operator and nothing else, made or noted in `recording`: for a loop that has checked its shapes.

    Float32 matrices [M, N] on the CPU with unit column stride; only where `build.available()`.
    """
    M, N = x_MN.shape
    r, h = residual, residual_out
    (recording or build.functions(brief=M * N <= _BRIEF)).rms_norm(
        *(x_MN.data_ptr(), x_MN.stride(0)),
        *((None, 0) if r is None else (r.data_ptr(), r.stride(0))),
        *((None, 0) if h is None else (h.data_ptr(), h.stride(0))),
        *(None if weight is None else weight.data_ptr(), out.data_ptr(), out.stride(0)),
        *(M, N, eps, threads),
    )


def _compiled(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, eps: float, out: Tensor, residual_out: Tensor | None
) -> None:
    r = None if residual is None else rows_of(residual)
    h = None if residual_out is None else written_rows(residual_out)
    norm_into(rows_of(x), r, weight, eps, written_rows(out), h, torch.get_num_threads())


def _built(*tensors: Tensor | None) -> Any:
    """What `choose` is told of the compiled operator: it takes float32 alone, and `torch.compile` traces torch."""
    fits = all(t is None or t.dtype == torch.float32 for t in tensors) and not compiling()
    return build.available if fits else None


RMS_NORM = register("rms_norm", _plain)
ADD_RMS_NORM = register("add_rms_norm", _add, writes=("out", "residual_out"))
RMS_NORM_QUANTIZED = register("rms_norm_quantized", _quantized, writes=("codes", "scales"))


def rms_norm(
    x: Tensor,
    weight: Tensor | None = None,
    *,
    eps: float = 1e-6,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """y [..., N], in `out` if given (x itself is allowed).

    Raises ValueError for shapes or a backend that do not fit.
    """
    check_float(x)
    check_vector("weight", weight, x)
    cpp = _built(x, weight)
    chosen = choose("rms_norm", x, backend, cpp=cpp, triton_takes=x.dtype in FLOATS, weights=(weight,))
    if chosen == "torch":
        return written(reference(x, weight, eps=eps), out)
    y = output(x, out)
    if chosen == "cpp":
        _compiled(x, None, weight, eps, y, None)
        return y
    (RMS_NORM if compiling() else _plain)(x, weight, eps, y)
    return y


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None = None,
    *,
    eps: float = 1e-6,
    out: Tensor | None = None,
    residual_out: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """(y, h): h = x + residual, and its normalisation. `out` may be x, `residual_out` may be `residual`.

    Equal, bit for bit, to the sum followed by `rms_norm`. Raises ValueError as `rms_norm` does.
    """
    check_float(x)
    check_vector("weight", weight, x)
    if residual.shape != x.shape or residual.dtype != x.dtype:
        raise ValueError(
            f"got residual {tuple(residual.shape)} {residual.dtype}; allowed: as x, {tuple(x.shape)} {x.dtype}"
        )
    weights = (weight, residual)
    cpp = _built(x, weight)
    chosen = choose("add_rms_norm", x, backend, cpp=cpp, triton_takes=x.dtype in FLOATS, weights=weights)
    if chosen == "torch":
        h = written(x + residual, residual_out)
        return written(reference(h, weight, eps=eps), out), h
    y, h = output(x, out), output(x, residual_out)
    if chosen == "cpp":
        _compiled(x, residual, weight, eps, y, h)
        return y, h
    (ADD_RMS_NORM if compiling() else _add)(x, residual, weight, eps, y, h)
    return y, h


def rms_norm_quantized(
    x: Tensor,
    weight: Tensor | None = None,
    *,
    eps: float = 1e-6,
    out: QuantizedRows | None = None,
    backend: str | None = None,
) -> QuantizedRows:
    """y as int8 codes [M, N] with a float32 scale [M] for each row; x is [M, N].

    Raises ValueError as `rms_norm` does.
    """
    check_float(x)
    check_vector("weight", weight, x)
    if x.ndim != 2:
        raise ValueError(f"got x {tuple(x.shape)}; allowed: [M, N]; flatten the leading dimensions first")
    scales_M = x.new_empty(x.shape[0], dtype=torch.float32) if out is None else out.scales
    codes_MN = output(x, None if out is None else out.codes, dtype=torch.int8)
    if choose("rms_norm_quantized", x, backend, triton_takes=x.dtype in FLOATS, weights=(weight,)) == "torch":
        rows = quantize_rows(_normalized(x, weight, eps).float())
        codes_MN.copy_(rows.codes)
        scales_M.copy_(rows.scales)
    else:
        (RMS_NORM_QUANTIZED if compiling() else _quantized)(x, weight, eps, codes_MN, scales_M)
    return QuantizedRows(codes=codes_MN, scales=scales_M)
