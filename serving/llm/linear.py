"""One linear layer of a model, its weight whole or quantised, and the lookup of token embeddings.

A matrix comes from a file as a float tensor or as codes (`QuantizedWeight`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor

from rolecall.kernels.weight_formats import (
    Format,
    QuantizedWeight,
    TiledWeight,
    dequantize_weight,
    quantize_weight,
    tile_weight,
)
from rolecall.kernels.weight_only import Mode, weight_only_linear
from rolecall.kernels.weight_rows import weight_rows
from rolecall.serving.llm.tensor_parallel import Ranks

Matrix: TypeAlias = Tensor | QuantizedWeight


@dataclass(frozen=True, kw_only=True)
class Linear:
    """y = x W^T + b. `parts`: W's rows, in turn; one part unless the formats of what was joined differ."""

    parts: tuple[TiledWeight | Tensor, ...]
    mode: Mode
    bias: Tensor | None = None

    @property
    def rows(self) -> int:
        """N, the width of y."""
        return sum(_rows(part) for part in self.parts)

    def __call__(self, x_MK: Tensor, out_MN: Tensor, *, backend: str | None = None) -> Tensor:
        """`out_MN`, written: contiguous, of x's type."""
        for part, y in self.pieces(out_MN):
            whole = y if len(self.parts) == 1 else y.new_empty(y.shape)
            _product(x_MK, part, self.mode, whole, backend)
            if whole is not y:
                y.copy_(whole)
        return out_MN if self.bias is None else out_MN.add_(self.bias)

    def pieces(self, out_MN: Tensor) -> list[tuple[TiledWeight | Tensor, Tensor]]:
        """Each part with the columns of the output that it makes."""
        ends = list(accumulate(map(_rows, self.parts)))
        return [(part, out_MN[:, end - _rows(part) : end]) for part, end in zip(self.parts, ends, strict=True)]

    @property
    def bytes(self) -> int:
        """Bytes of the weight as it is kept."""
        return sum(p.tiles.numel() if isinstance(p, TiledWeight) else p.numel() * p.element_size() for p in self.parts)


def linear(
    matrices: Sequence[Matrix],
    *,
    mode: Mode,
    dtype: torch.dtype,
    device: torch.device | str,
    format: Format | None = None,
    biases: Sequence[Tensor] = (),
) -> Linear:
    """Matrices of as many columns joined into one layer.

    Codes stay codes. Floats are quantised to `format` if one is given, else kept in `dtype`.
    """
    kept = [quantize_weight(m, format) if isinstance(m, Tensor) and format else m for m in matrices]
    parts = [
        tile_weight(m).to(device) if isinstance(m, QuantizedWeight) else m.to(device=device, dtype=dtype).contiguous()
        for m in _joined(kept)
    ]
    bias = torch.cat(list(biases)).to(device=device, dtype=dtype) if biases else None
    return Linear(parts=tuple(parts), mode=mode, bias=bias)


class Embedding:
    """The rows of the token matrix, those of `vocabulary` that this rank has, or zeros in their place until all ranks
    have added theirs; quantised rows are read out of the tiles of the layer that shares them."""

    def __init__(self, weight: TiledWeight | Tensor, *, vocabulary: int, ranks: Ranks) -> None:
        self.weight, self.ranks, self._held = weight, ranks, ranks.share(vocabulary)

    def __call__(self, tokens_T: Tensor, out_TH: Tensor, *, backend: str | None = None) -> Tensor:
        """`out_TH`, written: contiguous."""
        if self.ranks.size == 1:
            return self._rows(tokens_T, out_TH, backend)
        mine = (tokens_T >= self._held.start) & (tokens_T < self._held.stop)
        self._rows(torch.where(mine, tokens_T - self._held.start, 0), out_TH, backend)
        return self.ranks.sum(out_TH.masked_fill_(~mine[:, None], 0))

    def _rows(self, tokens_T: Tensor, out_TH: Tensor, backend: str | None) -> Tensor:
        if isinstance(self.weight, Tensor):
            return out_TH.copy_(self.weight[tokens_T])
        whole = out_TH.dtype == torch.float32
        rows = weight_rows(self.weight, tokens_T, out=out_TH if whole else None, backend=backend)
        return rows if whole else out_TH.copy_(rows)


def rows_of(matrix: Matrix, rows: Tensor) -> Matrix:
    """Some rows, in the order given."""
    if isinstance(matrix, Tensor):
        return matrix[rows]
    return QuantizedWeight(
        format=matrix.format,
        codes=matrix.codes[rows].contiguous(),
        scales=matrix.scales[rows].contiguous(),
        minima=None if matrix.minima is None else matrix.minima[rows].contiguous(),
    )


def floats(matrix: Matrix) -> Tensor:
    """The numbers themselves: float32 for codes."""
    return matrix if isinstance(matrix, Tensor) else dequantize_weight(matrix)


def _joined(matrices: Sequence[Matrix]) -> list[Matrix]:
    kinds = {m.format if isinstance(m, QuantizedWeight) else "float" for m in matrices}
    if len(kinds) > 1:
        return list(matrices)
    codes = [m for m in matrices if isinstance(m, QuantizedWeight)]
    if not codes:
        return [torch.cat([floats(m) for m in matrices]) if len(matrices) > 1 else matrices[0]]
    minima = [m.minima for m in codes if m.minima is not None]
    return [
        QuantizedWeight(
            format=codes[0].format,
            codes=torch.cat([m.codes for m in codes]),
            scales=torch.cat([m.scales for m in codes]),
            minima=torch.cat(minima) if minima else None,
        )
    ]


def _rows(part: TiledWeight | Tensor) -> int:
    return part.shape[0] if isinstance(part, Tensor) else part.rows


def _product(x: Tensor, weight: TiledWeight | Tensor, mode: Mode, out: Tensor, backend: str | None) -> None:
    if isinstance(weight, Tensor):
        torch.mm(x, weight.t(), out=out)
    else:
        weight_only_linear(x, weight, mode=mode, backend=backend, out=out)
