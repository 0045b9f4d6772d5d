"""Quantisation to integers: x' = (code - zero point) * scale.

    symmetric  zero point 0, scale = max |x| / L, codes -L..L, L = 2^(bits - 1) - 1
    affine     scale = (high - low) / (2^bits - 1), zero point = round(-low / scale), codes 0..2^bits - 1
    code = clamp(round(x / scale) + zero point)

The rounding mode is part of the definition (Jacob et al., arXiv:1712.05877, leave it open): halves go away from zero,
the mode of everything stored here, or to even, as `torch.round` and most hardware do. |x - x'| <= scale / 2 for every
element that is not clamped. A scale is one number for a tensor, a channel (row) or a group of a row's columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Rounding: TypeAlias = Literal["half_away", "half_even"]
Granularity: TypeAlias = Literal["tensor", "channel", "group"]

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


@dataclass(frozen=True, kw_only=True)
class Affine:
    """How numbers become codes of `bits` bits, low..high, and back. `scale` > 0."""

    scale: float
    zero_point: int = 0
    low: int = -LEVELS
    high: int = LEVELS
    rounding: Rounding = "half_away"

    def codes(self, x: Tensor) -> Tensor:
        """int16 codes of finite x."""
        ratio = x / self.scale
        whole = round_half_away(ratio) if self.rounding == "half_away" else ratio.round()
        return (whole + self.zero_point).clamp(self.low, self.high).to(torch.int16)

    def values(self, codes: Tensor) -> Tensor:
        """float32 numbers that codes stand for."""
        return (codes.float() - self.zero_point) * self.scale

    def fake(self, x: Tensor) -> Tensor:
        """x as it comes back, in its own type; the gradient passes straight through where x was not clamped."""
        ends = torch.tensor([self.low, self.high], dtype=torch.float32, device=x.device)
        low, high = self.values(ends)
        clamped = x.clamp(low.to(x.dtype), high.to(x.dtype))
        return clamped + (self.values(self.codes(x.detach())).to(x.dtype) - clamped).detach()


def symmetric(peak: float, *, bits: int = 8, rounding: Rounding = "half_away") -> Affine:
    """Codes for |x| <= peak. Raises ValueError for a peak below 0 or bits outside 2..8."""
    _check_bits(bits)
    if not 0 <= peak < float("inf"):
        raise ValueError(f"got peak {peak}; allowed: 0 or more, finite")
    levels = 2 ** (bits - 1) - 1
    return Affine(scale=peak / levels or 1.0, low=-levels, high=levels, rounding=rounding)


def affine(low: float, high: float, *, bits: int = 8, rounding: Rounding = "half_away") -> Affine:
    """Codes for low <= x <= high, the range widened to hold 0, which has a code of its own, so that 0 stays 0.

    Raises ValueError where low > high, for a range that is not finite, or bits outside 2..8.
    """
    _check_bits(bits)
    if not -float("inf") < low <= high < float("inf"):
        raise ValueError(f"got a range {low} to {high}; allowed: finite, low <= high")
    low, high = min(low, 0.0), max(high, 0.0)
    top = 2**bits - 1
    scale = (high - low) / top or 1.0
    zero_point = int(round_half_away(torch.tensor(-low / scale, dtype=torch.float64)))
    return Affine(scale=scale, zero_point=zero_point, low=0, high=top, rounding=rounding)


def scales_of(x_NK: Tensor, per: Granularity, *, group: int = 32, levels: int = LEVELS) -> Tensor:
    """Symmetric scales that broadcast against x: [1, 1], [N, 1], or [N, K], one value a group of `group` columns."""
    peaks = x_NK.abs().float()
    if per == "tensor":
        return peaks.amax().reshape(1, 1) / levels if peaks.numel() else peaks.new_zeros(1, 1)
    if per == "channel":
        return peaks.amax(dim=1, keepdim=True) / levels if x_NK.shape[1] else peaks.new_zeros(len(x_NK), 1)
    if group < 1:
        raise ValueError(f"got group {group}; allowed: 1 or more")
    parts = [
        part.amax(dim=1, keepdim=True).expand_as(part) for part in torch.split(peaks, group, dim=1) if part.numel()
    ]
    return torch.cat(parts, dim=1) / levels if parts else peaks


def _check_bits(bits: int) -> None:
    if not 2 <= bits <= 8:
        raise ValueError(f"got bits {bits}; allowed: 2 to 8")
