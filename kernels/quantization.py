"""Symmetric int8 quantisation of the rows of a matrix.

    scale = max |x| / 127,   code = clamp(round(x / scale), -127, 127),   x' = code * scale

Halves are rounded away from zero (Jacob et al., arXiv:1712.05877, leave the mode open; `torch.round`
goes to even, and the mode is part of the format). |x - x'| <= scale / 2 for every element.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 127


@dataclass(frozen=True, kw_only=True)
class QuantizedRows:
    """`codes`: int8 [n, d] in -127..127. `scales`: float32 [n]; 0 marks a row of zeros."""

    codes: Tensor
    scales: Tensor


def quantize_rows(x: Tensor) -> QuantizedRows:
    """Quantise each row of a finite float [n, d] by its own scale. Raises ValueError on any other input."""
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"got {tuple(x.shape)} {x.dtype}; allowed: a floating-point matrix [n, d]")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("got a value that is not finite; allowed: finite numbers; drop or repair such rows first")
    x = x.float()
    peaks = x.abs().amax(dim=1) if x.shape[1] else x.new_zeros(x.shape[0])
    scales = peaks / LEVELS
    return QuantizedRows(codes=quantize(x, scales[:, None]), scales=scales)


def quantize(x: Tensor, scale: Tensor) -> Tensor:
    """int8 codes of `x` at a given scale (broadcast against x); where the scale is 0 the code is 0."""
    ratio = torch.where(scale > 0, x / scale, torch.zeros_like(x))
    return round_half_away(ratio).clamp(-LEVELS, LEVELS).to(torch.int8)


def dequantize(rows: QuantizedRows) -> Tensor:
    """float32 [n, d]."""
    return rows.codes.float() * rows.scales[:, None]


def round_half_away(x: Tensor) -> Tensor:
    """Nearest integer, halves away from zero, without the error of adding .5 to .49999997."""
    whole = x.trunc()
    return whole + torch.where((x - whole).abs() >= 0.5, x.sign(), torch.zeros_like(x))
