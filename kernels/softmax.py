"""Softmax and log-softmax over the last dimension, with an optional mask, forward and backward.

    softmax:      y = exp(s x - m) / sum exp(s x - m)            dx = s y (dy - sum(y dy))
    log-softmax:  y = s x - m - log sum exp(s x - m)             dx = s (dy - exp(y) sum(dy))

with m the row's maximum and s a scale. Shapes: x_MN, mask_MN (True keeps an element; None keeps all), y_MN. Dtypes:
float16, bfloat16, float32 (float64 through torch); sums are float32. Masked elements get probability 0 (log-probability
-inf) whatever they hold, NaN included, and gradient 0. A row with nothing kept, or only -inf, is all zeros (all -inf),
its gradient zeros. Bytes: 2 tensors forward, 3 backward. A row wider than a program holds is read twice, its maximum
and sum carried along as in Milakov and Gimelshein, arXiv:1805.02867. A row alone has the bits it has in any batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rolecall.kernels.configurations import configuration, row_configuration
from rolecall.kernels.dispatch import (
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
from rolecall.kernels.rows import FLOATS, accumulating, cells, check_float, output, rows_of, written, written_rows

_INFINITY = float("inf")


def reference(x: Tensor, mask: Tensor | None = None, *, scale: float = 1.0, log: bool = False) -> Tensor:
    """y in x's dtype."""
    wide = accumulating(x) * scale
    if mask is not None:
        wide = wide.masked_fill(~mask, -_INFINITY)
    if x.shape[-1] == 0:
        return x.clone()
    empty = (wide == -_INFINITY).all(dim=-1, keepdim=True)
    wide = wide.masked_fill(empty, 0.0)  # so that no NaN arises, neither here nor in the gradient
    if log:
        return torch.log_softmax(wide, dim=-1).masked_fill(empty, -_INFINITY).to(x.dtype)
    return torch.softmax(wide, dim=-1).masked_fill(empty, 0.0).to(x.dtype)


def reference_backward(y: Tensor, dy: Tensor, *, scale: float = 1.0, log: bool = False) -> Tensor:
    """dx in y's dtype, from the forward result y and the gradient dy."""
    wide, slope = accumulating(y), accumulating(dy)
    kept = wide != (-_INFINITY if log else 0.0)
    slope = torch.where(kept, slope, 0.0)
    if log:
        dx = slope - torch.exp(wide) * slope.sum(dim=-1, keepdim=True)
    else:
        dx = wide * (slope - (wide * slope).sum(dim=-1, keepdim=True))
    return torch.where(kept, dx * scale, 0.0).to(y.dtype)


@jit
def _kernel(
    x_ptr: Pointer,
    mask_ptr: Pointer,
    y_ptr: Pointer,
    M: Scalar,
    N: Scalar,
    x_stride: Scalar,
    mask_stride: Scalar,
    y_stride: Scalar,
    scale: Scalar,
    MASKED: constexpr,
    LOG: constexpr,
    STEPS: constexpr,
    ROWS: constexpr,
    BLOCK: constexpr,
) -> None:
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    x_ptr += rows * x_stride
    mask_ptr += rows * mask_stride
    y_ptr += rows * y_stride
    if STEPS == 1:  # the row is read once and stays in registers
        columns, inside = cells(rows, 0, M, N, BLOCK)
        x = _kept(x_ptr + columns, mask_ptr + columns, inside, scale, MASKED)
        peak = _finite(tl.max(x, axis=1))
        raised = tl.exp(x - peak[:, None])
        y = _answer(x, raised, peak[:, None], tl.sum(raised, axis=1)[:, None], LOG)
        tl.store(y_ptr + columns, y.to(y_ptr.dtype.element_ty), mask=inside)
    else:
        running = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        for step in tl.range(0, STEPS):
            columns, inside = cells(rows, step, M, N, BLOCK)
            x = _kept(x_ptr + columns, mask_ptr + columns, inside, scale, MASKED)
            higher = tl.maximum(running, tl.max(x, axis=1))
            peak = _finite(higher)
            total = total * tl.exp(running - peak) + tl.sum(tl.exp(x - peak[:, None]), axis=1)
            running = higher
        peak = _finite(running)[:, None]
        for step in tl.range(0, STEPS):
            columns, inside = cells(rows, step, M, N, BLOCK)
            x = _kept(x_ptr + columns, mask_ptr + columns, inside, scale, MASKED)
            y = _answer(x, tl.exp(x - peak), peak, total[:, None], LOG)
            tl.store(y_ptr + columns, y.to(y_ptr.dtype.element_ty), mask=inside)


@jit
def _kept(x_ptr: Pointer, mask_ptr: Pointer, inside: Scalar, scale: Scalar, MASKED: constexpr) -> Scalar:
    """The scaled elements, -inf where there are none or they are masked."""
    if MASKED:
        inside = inside & (tl.load(mask_ptr, mask=inside, other=0) != 0)
    x = tl.load(x_ptr, mask=inside, other=0.0).to(tl.float32)
    return tl.where(inside, x * scale, float("-inf"))


@jit
def _finite(peak: Scalar) -> Scalar:
    """A maximum that may be subtracted: 0 for a row with nothing in it."""
    return tl.where(peak == float("-inf"), 0.0, peak)


@jit
def _answer(x: Scalar, raised: Scalar, peak: Scalar, total: Scalar, LOG: constexpr) -> Scalar:
    empty = total == 0.0
    if LOG:
        y = tl.where(empty, float("-inf"), x - peak - tl.log(tl.where(empty, 1.0, total)))
    else:
        y = tl.where(empty, 0.0, raised / tl.where(empty, 1.0, total))
    return y


@jit
def _backward_kernel(
    y_ptr: Pointer,
    dy_ptr: Pointer,
    dx_ptr: Pointer,
    M: Scalar,
    N: Scalar,
    y_stride: Scalar,
    dy_stride: Scalar,
    dx_stride: Scalar,
    scale: Scalar,
    LOG: constexpr,
    STEPS: constexpr,
    ROWS: constexpr,
    BLOCK: constexpr,
) -> None:
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    y_ptr += rows * y_stride
    dy_ptr += rows * dy_stride
    dx_ptr += rows * dx_stride
    if STEPS == 1:
        columns, inside = cells(rows, 0, M, N, BLOCK)
        p, slope = _slopes(y_ptr + columns, dy_ptr + columns, inside, LOG)
        total = tl.sum(slope if LOG else p * slope, axis=1)[:, None]
        _descend(p, slope, total, scale, dx_ptr + columns, inside, LOG)
    else:
        sums = tl.zeros([ROWS], tl.float32)
        for step in tl.range(0, STEPS):
            columns, inside = cells(rows, step, M, N, BLOCK)
            p, slope = _slopes(y_ptr + columns, dy_ptr + columns, inside, LOG)
            sums += tl.sum(slope if LOG else p * slope, axis=1)
        for step in tl.range(0, STEPS):
            columns, inside = cells(rows, step, M, N, BLOCK)
            p, slope = _slopes(y_ptr + columns, dy_ptr + columns, inside, LOG)
            _descend(p, slope, sums[:, None], scale, dx_ptr + columns, inside, LOG)


@jit
def _slopes(y_ptr: Pointer, dy_ptr: Pointer, inside: Scalar, LOG: constexpr) -> Scalar:
    """Probabilities, and the gradient where they are not zero by mask."""
    dy = tl.load(dy_ptr, mask=inside, other=0.0).to(tl.float32)
    if LOG:
        y = tl.load(y_ptr, mask=inside, other=float("-inf")).to(tl.float32)
        slope = tl.where(y == float("-inf"), 0.0, dy)
        p = tl.exp(y)
    else:
        p = tl.load(y_ptr, mask=inside, other=0.0).to(tl.float32)
        slope = tl.where(p == 0.0, 0.0, dy)
    return p, slope


@jit
def _descend(
    p: Scalar, slope: Scalar, total: Scalar, scale: Scalar, dx_ptr: Pointer, inside: Scalar, LOG: constexpr
) -> None:
    dx = tl.where(p == 0.0, slope, slope - p * total) if LOG else p * (slope - total)
    tl.store(dx_ptr, (dx * scale).to(dx_ptr.dtype.element_ty), mask=inside)


def _launch(x: Tensor, mask: Tensor | None, scale: float, log: bool, out: Tensor) -> None:
    x_MN, y_MN = rows_of(x), written_rows(out)
    M, N = x_MN.shape
    if M == 0 or N == 0:
        return
    mask_MN = x_MN if mask is None else rows_of(mask)
    chosen = configuration("softmax", str(N), x, row_configuration(N))
    _kernel[(triton.cdiv(M, chosen.blocks["ROWS"]),)](
        x_MN,
        mask_MN,
        y_MN,
        M,
        N,
        x_MN.stride(0),
        mask_MN.stride(0),
        y_MN.stride(0),
        scale,
        MASKED=mask is not None,
        LOG=log,
        STEPS=triton.cdiv(N, chosen.blocks["BLOCK"]),
        **chosen.launch,
    )


def _launch_backward(y: Tensor, dy: Tensor, scale: float, log: bool, out: Tensor) -> None:
    y_MN, dy_MN, dx_MN = rows_of(y), rows_of(dy), written_rows(out)
    M, N = y_MN.shape
    if M == 0 or N == 0:
        return
    chosen = configuration("softmax_backward", str(N), y, row_configuration(N))
    _backward_kernel[(triton.cdiv(M, chosen.blocks["ROWS"]),)](
        y_MN,
        dy_MN,
        dx_MN,
        M,
        N,
        y_MN.stride(0),
        dy_MN.stride(0),
        dx_MN.stride(0),
        scale,
        LOG=log,
        STEPS=triton.cdiv(N, chosen.blocks["BLOCK"]),
        **chosen.launch,
    )


SOFTMAX = register("softmax", _launch)
SOFTMAX_BACKWARD = register("softmax_backward", _launch_backward)


class _Softmax(torch.autograd.Function):
    """The kernels as one differentiable step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor | None, scale: float, log: bool) -> Tensor:
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        (SOFTMAX if compiling() else _launch)(x, mask, scale, log, y)
        ctx.save_for_backward(y)
        ctx.scale, ctx.log = scale, log
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (y,) = ctx.saved_tensors
        dx = torch.empty_like(y)
        (SOFTMAX_BACKWARD if compiling() else _launch_backward)(y, gradients[0], ctx.scale, ctx.log, dx)
        return dx, None, None, None


def softmax(
    x: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float = 1.0,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Probabilities [..., N], differentiable; in `out` if given (x itself is allowed; then without a gradient).

    `mask`: bool, broadcast against x. Raises ValueError for shapes, dtypes or a backend that do not fit.
    """
    return _distribution(x, mask, scale, False, out, backend)


def log_softmax(
    x: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float = 1.0,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Log-probabilities [..., N], as `softmax`."""
    return _distribution(x, mask, scale, True, out, backend)


def softmax_backward(
    y: Tensor,
    dy: Tensor,
    *,
    scale: float = 1.0,
    log: bool = False,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """dx from the forward result `y` (log-probabilities if `log`) and the gradient `dy`; `out` may be `dy`."""
    check_float(y)
    if y.shape != dy.shape or y.dtype != dy.dtype:
        raise ValueError(f"got y {tuple(y.shape)} {y.dtype} and dy {tuple(dy.shape)} {dy.dtype}; allowed: two alike")
    if choose("softmax_backward", y, backend, triton_takes=y.dtype in FLOATS) == "torch":
        return written(reference_backward(y, dy, scale=scale, log=log), out)
    dx = output(y, out)
    (SOFTMAX_BACKWARD if compiling() else _launch_backward)(y, dy, scale, log, dx)
    return dx


def _distribution(
    x: Tensor, mask: Tensor | None, scale: float, log: bool, out: Tensor | None, backend: str | None
) -> Tensor:
    check_float(x)
    if mask is not None:
        if mask.dtype != torch.bool:
            raise ValueError(f"got a mask of {mask.dtype}; allowed: bool, True where an element counts")
        mask = mask.expand(x.shape)
    with torch.no_grad():  # the kernels have a gradient of their own
        chosen = choose("softmax", x, backend, triton_takes=x.dtype in FLOATS)
    if chosen == "torch":
        return written(reference(x, mask, scale=scale, log=log), out)
    if out is None and needs_gradient(x):
        result: Tensor = _Softmax.apply(x, mask, scale, log)  # type: ignore[no-untyped-call]
        return result
    y = output(x, out)
    (SOFTMAX if compiling() else _launch)(x, mask, scale, log, y)
    return y
