"""What operators on the rows of a tensor share: its view as a matrix, the tensor they write, its checks, and the places
of a kernel's step.

Shapes: any [..., N] is worked on as x_MN. A row must be contiguous; its distance to the next may be anything, so a
slice of a wider buffer is read in place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rolecall.kernels.dispatch import Scalar, constexpr, jit, tl

FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def rows_of(x: Tensor) -> Tensor:
    """x as [M, N] with contiguous rows: a view where there is one, else a copy."""
    if x.ndim == 0:
        raise ValueError("got a tensor without dimensions; allowed: [..., N]; add one with unsqueeze(0)")
    matrix = x if x.ndim == 2 else x.reshape(x.numel() // x.shape[-1] if x.shape[-1] else 0, x.shape[-1])
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] <= 1 else matrix.contiguous()


def written_rows(out: Tensor) -> Tensor:
    """`out` as [M, N] for writing: never a copy. Raises ValueError where its rows do not lie evenly spaced."""
    if out.ndim == 2 and (out.stride(1) == 1 or out.shape[1] <= 1):
        return out
    if out.is_contiguous():
        return out.view(out.numel() // out.shape[-1] if out.shape[-1] else 0, out.shape[-1])
    raise ValueError(f"got out with strides {out.stride()}; allowed: contiguous, or a matrix with contiguous rows")


def output(x: Tensor, out: Tensor | None, *, dtype: torch.dtype | None = None) -> Tensor:
    """`out` once it is known to fit, or a new tensor of x's shape (and `dtype`, x's own by default)."""
    dtype = dtype or x.dtype
    if out is None:
        return torch.empty(x.shape, dtype=dtype, device=x.device)
    if out.shape != x.shape or out.dtype != dtype or out.device != x.device:
        raise ValueError(
            f"got out {tuple(out.shape)} {out.dtype} on {out.device}; "
            f"allowed: {tuple(x.shape)} {dtype} on {x.device}; or None for a new tensor"
        )
    return out


def written(result: Tensor, out: Tensor | None) -> Tensor:
    """`result`, copied into `out` if there is one."""
    return result if out is None else output(result, out).copy_(result)


def accumulating(x: Tensor) -> Tensor:
    """x in the type sums are held in: float64 as it is, anything else as float32."""
    return x if x.dtype == torch.float64 else x.float()


def check_vector(name: str, vector: Tensor | None, x: Tensor) -> None:
    """Raise ValueError unless `vector` is absent or a contiguous [N] beside x's [..., N]."""
    if vector is None:
        return
    if vector.shape != x.shape[-1:] or not vector.is_contiguous() or vector.device != x.device:
        raise ValueError(
            f"got {name} {tuple(vector.shape)}, strides {vector.stride()}, on {vector.device} for {tuple(x.shape)} on "
            f"{x.device}; allowed: [{x.shape[-1]}], contiguous, on the same device"
        )


def check_float(x: Tensor) -> None:
    """Raise ValueError unless x is a floating-point tensor of at least one dimension."""
    if x.ndim == 0 or not x.is_floating_point():
        raise ValueError(f"got {tuple(x.shape)} {x.dtype}; allowed: floating-point [..., N]")


@jit
def cells(rows: Scalar, step: Scalar, M: Scalar, N: Scalar, BLOCK: constexpr) -> Scalar:
    """The columns [1, BLOCK] of a kernel's step, and which of their cells in `rows` [ROWS, 1] lie in the matrix."""
    columns = step * BLOCK + tl.arange(0, BLOCK)[None, :]
    return columns, (rows < M) & (columns < N)
