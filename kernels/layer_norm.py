"""Layer normalisation.

    y = (x - mean(x)) / sqrt(var(x) + eps) * w + b,   var with divisor N

Shapes: x_MN, w_N and b_N (None: ones, zeros), y_MN. Dtypes: float16, bfloat16, float32 (float64 through torch); sums
are float32. Ba, Kiros and Hinton, arXiv:1607.06450. Bytes: x read and y written once. A row wider than a program holds
is read twice, its chunks' means and squares joined by the formula of Chan, Golub and LeVeque (1979), so that a large
mean costs no digits. A row alone has the bits it has in any batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rolecall.kernels.configurations import configuration, row_configuration
from rolecall.kernels.dispatch import Pointer, Scalar, choose, compiling, constexpr, jit, register, tl, triton
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


def reference(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5) -> Tensor:
    """y in x's dtype."""
    wide = accumulating(x)
    centred = wide - wide.mean(dim=-1, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + eps)
    if weight is not None:
        y = y * weight.to(y.dtype)
    if bias is not None:
        y = y + bias.to(y.dtype)
    return y.to(x.dtype)


@jit
def _kernel(
    x_ptr: Pointer,
    w_ptr: Pointer,
    b_ptr: Pointer,
    y_ptr: Pointer,
    M: Scalar,
    N: Scalar,
    x_stride: Scalar,
    y_stride: Scalar,
    eps: Scalar,
    WEIGHT: constexpr,
    BIAS: constexpr,
    STEPS: constexpr,
    ROWS: constexpr,
    BLOCK: constexpr,
) -> None:
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    x_ptr += rows * x_stride
    y_ptr += rows * y_stride
    if STEPS == 1:  # the row is read once and stays in registers
        columns, inside = cells(rows, 0, M, N, BLOCK)
        x = tl.load(x_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        centred = tl.where(columns < N, x - (tl.sum(x, axis=1) / N)[:, None], 0.0)
        inverse = tl.rsqrt(tl.sum(centred * centred, axis=1) / N + eps)[:, None]
        y = _scaled(centred * inverse, w_ptr, b_ptr, columns, N, WEIGHT, BIAS)
        tl.store(y_ptr + columns, y.to(y_ptr.dtype.element_ty), mask=inside)
    else:
        mean = tl.zeros([ROWS], tl.float32)
        squares = tl.zeros([ROWS], tl.float32)
        for step in tl.range(0, STEPS):
            columns, inside = cells(rows, step, M, N, BLOCK)
            x = tl.load(x_ptr + columns, mask=inside, other=0.0).to(tl.float32)
            before = step * BLOCK
            count = tl.minimum(N - before, BLOCK)
            chunk = tl.sum(x, axis=1) / count
            centred = tl.where(columns < N, x - chunk[:, None], 0.0)
            moved = chunk - mean
            mean += moved * count / (before + count)
            squares += tl.sum(centred * centred, axis=1) + moved * moved * count * before / (before + count)
        inverse = tl.rsqrt(squares / N + eps)[:, None]
        for step in tl.range(0, STEPS):
            columns, inside = cells(rows, step, M, N, BLOCK)
            x = tl.load(x_ptr + columns, mask=inside, other=0.0).to(tl.float32)
            y = _scaled((x - mean[:, None]) * inverse, w_ptr, b_ptr, columns, N, WEIGHT, BIAS)
            tl.store(y_ptr + columns, y.to(y_ptr.dtype.element_ty), mask=inside)


@jit
def _scaled(
    y: Scalar, w_ptr: Pointer, b_ptr: Pointer, columns: Scalar, N: Scalar, WEIGHT: constexpr, BIAS: constexpr
) -> Scalar:
    if WEIGHT:
        y *= tl.load(w_ptr + columns, mask=columns < N, other=0.0).to(tl.float32)
    if BIAS:
        y += tl.load(b_ptr + columns, mask=columns < N, other=0.0).to(tl.float32)
    return y


def _launch(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, out: Tensor) -> None:
    x_MN, y_MN = rows_of(x), written_rows(out)
    M, N = x_MN.shape
    if M == 0 or N == 0:
        return
    chosen = configuration("layer_norm", str(N), x, row_configuration(N))
    _kernel[(triton.cdiv(M, chosen.blocks["ROWS"]),)](
        x_MN,
        x_MN if weight is None else weight,
        x_MN if bias is None else bias,
        y_MN,
        M,
        N,
        x_MN.stride(0),
        y_MN.stride(0),
        eps,
        WEIGHT=weight is not None,
        BIAS=bias is not None,
        STEPS=triton.cdiv(N, chosen.blocks["BLOCK"]),
        **chosen.launch,
    )


LAYER_NORM = register("layer_norm", _launch)


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """y [..., N], in `out` if given (x itself is allowed).

    Raises ValueError for shapes or a backend that do not fit.
    """
    check_float(x)
    check_vector("weight", weight, x)
    check_vector("bias", bias, x)
    if choose("layer_norm", x, backend, triton_takes=x.dtype in FLOATS, weights=(weight, bias)) == "torch":
        return written(reference(x, weight, bias, eps=eps), out)
    y = output(x, out)
    (LAYER_NORM if compiling() else _launch)(x, weight, bias, eps, y)
    return y
