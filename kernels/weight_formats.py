"""Weights of a linear layer in 8 or 4 bits: how they are quantised, and the tiles in which they are kept.

| format | W' of a row of W, by groups of 32 columns | bits a weight | repacks without loss |
|---|---|---|---|
| `int8_channel` | code * scale, one float32 scale a row, code in -127..127 | 8 + 32 / K | |
| `int8_group` | code * scale, float16 | 8.5 | GGUF Q8_0 |
| `int4_group` | code * scale, float16, code in -8..7 | 4.5 | GGUF Q4_0 |
| `int4_affine` | code * scale + minimum, both float16, code in 0..15 | 5 | GGUF Q4_1 |

Scales are rounded to their stored type before codes are chosen, so codes are the nearest to what will be read. Halves
are rounded away from zero. A scale may be negative (in `int4_group` the extreme of largest size has code -8).

A tile is 16 rows, so that a lane of a vector, or of a warp, is a row and no sum crosses lanes: first the header
(`int8_channel`: 16 float32 scales; else for each group 16 float16 scales, and in `int4_affine` 16 float16 minima,
filled up to 64 bytes), then for each group its words, each word for all 16 rows in turn. A word is 32 bits, little
end first: four codes + 128, or eight codes (+ 8 in `int4_group`), the lowest column in the lowest bits. Missing rows
and columns have codes of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from rolecall.kernels.quantization import quantize_rows, round_half_away

Format: TypeAlias = Literal["int8_channel", "int8_group", "int4_group", "int4_affine"]
FORMATS: tuple[Format, ...] = get_args(Format)  # the order is that of the compiled code's `enum Format`

GROUP = 32
TILE_ROWS = 16
_ALIGN = 64
_GGUF_BYTES = {"int8_group": 34, "int4_group": 18, "int4_affine": 20}


@dataclass(frozen=True, kw_only=True)
class QuantizedWeight:
    """A weight with one code a byte, as it is made and looked at.

    `codes`: int8 [N, K]. `scales`: float32 [N, 1] for `int8_channel`, float16 [N, G] else, G = ceil(K / 32).
    `minima`: float16 [N, G] for `int4_affine`, None else.
    """

    format: Format
    codes: Tensor
    scales: Tensor
    minima: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class TiledWeight:
    """A weight as products read it. `tiles`: uint8, contiguous, one tile of 16 rows after another."""

    format: Format
    rows: int
    columns: int
    tiles: Tensor

    def to(self, device: torch.device | str) -> TiledWeight:
        """The same weight on `device`."""
        return TiledWeight(format=self.format, rows=self.rows, columns=self.columns, tiles=self.tiles.to(device))


def quantize_weight(w_NK: Tensor, format: Format) -> QuantizedWeight:
    """Quantise a finite floating-point matrix.

    Raises ValueError for any other input, and for values beyond what a float16 scale reaches (about 5e5 in 4 bits).
    """
    if format not in FORMATS:
        raise ValueError(f"got format {format!r}; allowed: {', '.join(FORMATS)}")
    rows = quantize_rows(w_NK)  # which also refuses what is no finite matrix
    if format == "int8_channel":
        return QuantizedWeight(format=format, codes=rows.codes, scales=rows.scales[:, None])
    w_NGC = _in_groups(w_NK.float())
    low, high = w_NGC.amin(dim=2), w_NGC.amax(dim=2)
    minima = None
    if format == "int8_group":
        wanted, lowest, highest = torch.maximum(high, -low) / 127, -127, 127
    elif format == "int4_group":
        wanted, lowest, highest = torch.where(high > -low, high, low) / -8, -8, 7
    else:
        wanted, lowest, highest = (high - low) / 15, 0, 15
        minima = low.half()
        w_NGC = w_NGC - minima.float()[:, :, None]
    scales = wanted.half()
    if not bool(torch.isfinite(scales).all() and (minima is None or torch.isfinite(minima).all())):
        raise ValueError(
            f"got |w| up to {float(w_NK.abs().max()):.3g}, allowed: scales a float16 holds; use int8_channel"
        )
    step = scales.float()[:, :, None]
    ratio = torch.where(step != 0, w_NGC / step, torch.zeros_like(w_NGC))
    codes = round_half_away(ratio).clamp(lowest, highest).to(torch.int8)
    codes = codes.reshape(w_NK.shape[0], codes.shape[1] * GROUP)[:, : w_NK.shape[1]].contiguous()
    return QuantizedWeight(format=format, codes=codes, scales=scales, minima=minima)


def dequantize_weight(weight: QuantizedWeight) -> Tensor:
    """float32 [N, K]: exactly the numbers that products multiply by."""
    if weight.format == "int8_channel":
        return weight.codes.float() * weight.scales
    w_NGC = _in_groups(weight.codes.float()) * weight.scales.float()[:, :, None]
    if weight.minima is not None:
        w_NGC = w_NGC + weight.minima.float()[:, :, None]
    return w_NGC.reshape(w_NGC.shape[0], w_NGC.shape[1] * GROUP)[:, : weight.codes.shape[1]]


def tile_weight(weight: QuantizedWeight) -> TiledWeight:
    """The weight in tiles. Nothing is rounded: `untile_weight` gives it back."""
    N, K = weight.codes.shape
    T, G = _count(N, TILE_ROWS), _count(K, GROUP)
    per_word, bias = _word(weight.format)
    codes = torch.full((T * TILE_ROWS, G * GROUP), bias, dtype=torch.int32, device=weight.codes.device)
    codes[:N, :K] = weight.codes.int() + bias
    shifts = torch.arange(per_word, device=codes.device, dtype=torch.int32) * (32 // per_word)
    codes = codes.view(T, TILE_ROWS, G * GROUP // per_word, per_word)
    body = _bytes((codes << shifts).sum(dim=3, dtype=torch.int32).transpose(1, 2), T)
    parts = [weight.scales] if weight.minima is None else [weight.scales, weight.minima]
    header = torch.stack([_padded_rows(part, T * TILE_ROWS) for part in parts])  # [parts, T * 16, groups]
    header = _bytes(header.view(len(parts), T, TILE_ROWS, header.shape[2]).permute(1, 3, 0, 2), T)
    fill = header.new_zeros(T, -header.shape[1] % _ALIGN)
    tiles = torch.cat([header, fill, body], dim=1).view(-1)
    return TiledWeight(format=weight.format, rows=N, columns=K, tiles=tiles)


def untile_weight(weight: TiledWeight) -> QuantizedWeight:
    """The weight with one code a byte: the inverse of `tile_weight`."""
    N, K = weight.rows, weight.columns
    T, G = _count(N, TILE_ROWS), _count(K, GROUP)
    per_word, bias = _word(weight.format)
    tiles = weight.tiles.view(T, header_bytes(weight.format, K) + G * GROUP // per_word * TILE_ROWS * 4)
    kind = torch.float32 if weight.format == "int8_channel" else torch.float16
    parts = 2 if weight.format == "int4_affine" else 1
    groups = 1 if weight.format == "int8_channel" else G
    header = tiles[:, : groups * parts * TILE_ROWS * kind.itemsize].reshape(-1).view(kind)
    scales = header.view(T, groups, parts, TILE_ROWS).permute(2, 0, 3, 1).reshape(parts, T * TILE_ROWS, groups)[:, :N]
    words = tiles[:, header_bytes(weight.format, K) :].reshape(-1).view(torch.int32)
    shifts = torch.arange(per_word, device=tiles.device, dtype=torch.int32) * (32 // per_word)
    codes = (words.view(T, G * GROUP // per_word, TILE_ROWS, 1) >> shifts) & (2 ** (32 // per_word) - 1)
    codes = (codes - bias).transpose(1, 2).reshape(T * TILE_ROWS, G * GROUP)[:N, :K].to(torch.int8)
    return QuantizedWeight(
        format=weight.format, codes=codes.contiguous(), scales=scales[0], minima=scales[1] if parts == 2 else None
    )


def header_bytes(format: Format, columns: int) -> int:
    """Bytes of a tile before its codes."""
    if format == "int8_channel":
        return TILE_ROWS * 4
    halves = _count(columns, GROUP) * TILE_ROWS * (2 if format == "int4_affine" else 1)
    return _count(2 * halves, _ALIGN) * _ALIGN


def from_gguf(blocks: Tensor, format: Format, columns: int) -> QuantizedWeight:
    """The weight in GGUF blocks of 32 columns (Q8_0, Q4_0, Q4_1), code for code and scale for scale.

    `blocks`: uint8, any shape, rows of the weight in turn, `columns` a multiple of 32. A block is a float16 scale, in
    Q4_1 a float16 minimum, then 32 int8 codes or 16 bytes that hold column i low and column i + 16 high
    (ggml-common.h). Raises ValueError where the sizes do not fit.
    """
    size = _GGUF_BYTES.get(format)
    if size is None or columns % GROUP or columns < GROUP or blocks.numel() % (size * (columns // GROUP)):
        raise ValueError(
            f"got {blocks.numel()} bytes for {columns} columns of {format}; allowed: {', '.join(_GGUF_BYTES)}, "
            "whole rows of blocks of 32 columns"
        )
    cells = blocks.contiguous().view(-1, columns // GROUP, size)
    heads = 2 if format == "int4_affine" else 1
    scales = cells[:, :, : 2 * heads].contiguous().view(torch.float16)
    body = cells[:, :, 2 * heads :]
    if format == "int8_group":
        codes = body.contiguous().view(torch.int8)
    else:
        codes = torch.cat([body & 15, body >> 4], dim=2).to(torch.int8) - (8 if format == "int4_group" else 0)
    return QuantizedWeight(
        format=format,
        codes=codes.reshape(cells.shape[0], columns),
        scales=scales[:, :, 0].contiguous(),
        minima=scales[:, :, 1].contiguous() if heads == 2 else None,
    )


def _word(format: Format) -> tuple[int, int]:
    """Codes in a 32-bit word, and what is added to each."""
    return {"int8_channel": (4, 128), "int8_group": (4, 128), "int4_group": (8, 8), "int4_affine": (8, 0)}[format]


def _in_groups(x_NK: Tensor) -> Tensor:
    """[N, G, 32]; missing columns repeat the last one, so that they widen no range."""
    missing = -x_NK.shape[1] % GROUP
    if missing and x_NK.shape[1]:
        x_NK = torch.cat([x_NK, x_NK[:, -1:].expand(-1, missing)], dim=1)
    return x_NK.reshape(x_NK.shape[0], x_NK.shape[1] // GROUP, GROUP)


def _padded_rows(x: Tensor, rows: int) -> Tensor:
    return torch.cat([x, x.new_zeros(rows - x.shape[0], x.shape[1])]) if rows > x.shape[0] else x


def _bytes(x: Tensor, rows: int) -> Tensor:
    """uint8 [rows, bytes of a row] of a tensor whose first dimension is `rows`."""
    x = x.contiguous()
    width = x.numel() // rows * x.element_size() if rows else 0
    return x.view(-1).view(torch.uint8).view(rows, width)


def _count(size: int, step: int) -> int:
    return -(-size // step)
