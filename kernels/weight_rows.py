"""Some rows of a weight that is kept in tiles, as floats: y_m = W'[rows_m], W' as `weight_formats` defines it.

The lookup of token embeddings where they share their matrix with a linear layer. Shapes: rows_M int64, y [M, K]
float32, the very numbers of `dequantize_weight`; rows are not compared with those of W on a GPU. Bytes: a tile a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rolecall.kernels.cpp import build
from rolecall.kernels.cpp.recording import Recording
from rolecall.kernels.dispatch import choose, compiling
from rolecall.kernels.weight_formats import (
    FORMATS,
    TILE_ROWS,
    QuantizedWeight,
    TiledWeight,
    dequantize_weight,
    untile_weight,
)


def reference(weight: TiledWeight, rows_M: Tensor) -> Tensor:
    """float32 [M, K]: the tiles of these rows, undone."""
    tiles = weight.tiles.view(-(-weight.rows // TILE_ROWS), -1)[rows_M // TILE_ROWS]
    few = TiledWeight(
        format=weight.format, rows=len(rows_M) * TILE_ROWS, columns=weight.columns, tiles=tiles.contiguous().view(-1)
    )
    at = torch.arange(len(rows_M), device=rows_M.device) * TILE_ROWS + rows_M % TILE_ROWS
    all_rows = untile_weight(few)
    return dequantize_weight(
        QuantizedWeight(
            format=weight.format,
            codes=all_rows.codes[at],
            scales=all_rows.scales[at],
            minima=None if all_rows.minima is None else all_rows.minima[at],
        )
    )


def weight_rows_into(weight: TiledWeight, rows_M: Tensor, y_MK: Tensor, recording: Recording | None = None) -> None:
    """The compiled operator and nothing else, made or noted in `recording`: for a loop that has checked its shapes.

    `rows_M` contiguous, `y_MK` float32 with unit column stride; only where `build.available()`.
    """
    (recording or build.functions(brief=True)).weight_rows(
        weight.tiles.data_ptr(),
        rows_M.data_ptr(),
        y_MK.data_ptr(),
        y_MK.stride(0),
        len(rows_M),
        weight.columns,
        FORMATS.index(weight.format),
    )


def weight_rows(
    weight: TiledWeight, rows_M: Tensor, *, out: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """float32 [M, K], in `out` if given: contiguous, on the weight's device.

    Raises ValueError for rows, an `out` or a backend that do not fit.
    """
    if rows_M.ndim != 1 or rows_M.dtype != torch.int64 or rows_M.device != weight.tiles.device:
        raise ValueError(f"got rows {tuple(rows_M.shape)} {rows_M.dtype}; allowed: int64 [M] on {weight.tiles.device}")
    if not rows_M.is_cuda and len(rows_M) and not 0 <= int(rows_M.min()) <= int(rows_M.max()) < weight.rows:
        raise ValueError(f"got rows {int(rows_M.min())} to {int(rows_M.max())}; allowed: 0 to {weight.rows - 1}")
    shape = len(rows_M), weight.columns
    if out is not None and (out.shape != shape or out.dtype != torch.float32 or not out.is_contiguous()):
        raise ValueError(f"got out {tuple(out.shape)} {out.dtype}; allowed: contiguous float32 {shape}")
    y = torch.empty(shape, device=weight.tiles.device) if out is None else out
    cpp = None if compiling() else build.available
    if choose("weight_rows", weight.tiles, backend, cpp=cpp, triton_takes=False) == "cpp":
        weight_rows_into(weight, rows_M.contiguous(), y)
    else:
        y.copy_(reference(weight, rows_M))
    return y
