"""A bias added and negative values cut: y = max(x + b, 0).

Shapes: x_MN, b_N, y_MN. Dtypes: float16, bfloat16, float32 (float64 through torch); the sum is float32. A NaN stays a
NaN, as in torch. Bytes: 2 tensors. A row alone has the bits it has in any batch.
"""

from __future__ import annotations

from torch import Tensor

from rolecall.kernels.configurations import Configuration, blocks, configuration
from rolecall.kernels.dispatch import Pointer, Scalar, choose, compiling, constexpr, jit, register, tl, triton
from rolecall.kernels.rows import (
    FLOATS,
    accumulating,
    check_float,
    check_vector,
    output,
    rows_of,
    written,
    written_rows,
)

DEFAULT = Configuration(blocks=blocks(BLOCK=1024), warps=4)


def reference(x: Tensor, bias: Tensor) -> Tensor:
    """y in x's dtype."""
    return (accumulating(x) + bias.to(accumulating(x).dtype)).relu().to(x.dtype)


@jit
def _kernel(
    x_ptr: Pointer,
    b_ptr: Pointer,
    y_ptr: Pointer,
    N: Scalar,
    x_stride: Scalar,
    y_stride: Scalar,
    BLOCK: constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < N
    x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
    total = x + tl.load(b_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    y = tl.where(total <= 0.0, 0.0, total)  # false for NaN, which therefore stays
    tl.store(y_ptr + row * y_stride + columns, y.to(y_ptr.dtype.element_ty), mask=inside)


def _launch(x: Tensor, bias: Tensor, out: Tensor) -> None:
    x_MN, y_MN = rows_of(x), written_rows(out)
    M, N = x_MN.shape
    if M == 0 or N == 0:
        return
    chosen = configuration("bias_relu", str(N), x, DEFAULT)
    grid = (M, triton.cdiv(N, chosen.blocks["BLOCK"]))
    _kernel[grid](x_MN, bias, y_MN, N, x_MN.stride(0), y_MN.stride(0), **chosen.launch)


BIAS_RELU = register("bias_relu", _launch)


def bias_relu(x: Tensor, bias: Tensor, *, out: Tensor | None = None, backend: str | None = None) -> Tensor:
    """max(x + bias, 0), [..., N], in `out` if given (x itself is allowed).

    Raises ValueError for shapes or a backend that do not fit.
    """
    check_float(x)
    check_vector("bias", bias, x)
    if choose("bias_relu", x, backend, triton_takes=x.dtype in FLOATS, weights=(bias,)) == "torch":
        return written(reference(x, bias), out)
    y = output(x, out)
    (BIAS_RELU if compiling() else _launch)(x, bias, y)
    return y
