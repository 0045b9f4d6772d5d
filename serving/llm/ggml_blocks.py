"""The blocks of numbers in GGUF files, and what they stand for.

A row of a tensor is cut into blocks of 32 columns (256 for the K types), each with its scales. In the K types a block
has 8 or 16 parts, whose scales and minima are small integers times the block's two float16 factors d and m:
W = d * s * q - m * t (Q2_K, Q4_K, Q5_K) or d * s * q (Q3_K, Q6_K). Of those the kernels keep the codes of Q4_K alone:
they have no minima beside eight bits, and no parts of 16 columns. Source: github.com/ggml-org/llama.cpp,
ggml/src/ggml-common.h and ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from rolecall.kernels.weight_formats import Format, QuantizedWeight, dequantize_weight, from_gguf


@dataclass(frozen=True, kw_only=True)
class Block:
    """`elements` columns in `size` bytes. `format`: the kernels' own, where it holds the same numbers."""

    name: str
    elements: int
    size: int
    format: Format | None = None


BLOCKS: dict[int, Block] = {
    0: Block(name="F32", elements=1, size=4),
    1: Block(name="F16", elements=1, size=2),
    2: Block(name="Q4_0", elements=32, size=18, format="int4_group"),
    3: Block(name="Q4_1", elements=32, size=20, format="int4_affine"),
    6: Block(name="Q5_0", elements=32, size=22),
    7: Block(name="Q5_1", elements=32, size=24),
    8: Block(name="Q8_0", elements=32, size=34, format="int8_group"),
    10: Block(name="Q2_K", elements=256, size=84),
    11: Block(name="Q3_K", elements=256, size=110),
    12: Block(name="Q4_K", elements=256, size=144),
    13: Block(name="Q5_K", elements=256, size=176),
    14: Block(name="Q6_K", elements=256, size=210),
    30: Block(name="BF16", elements=1, size=2),
}


def quantized(raw: Tensor, block: Block, columns: int, *, rounded: bool = False) -> QuantizedWeight | None:
    """The weight of the bytes of whole rows, code for code, where the kernels have its format; None else.

    `rounded`: Q4_K counts as such, its scales and minima rounded to the float16 that the kernels keep: a number is off
    by at most 2^-11 of its minimum and of its 15th step, a hundredth of what quantising it has cost.
    """
    if block.format is not None:
        return from_gguf(raw, block.format, columns)
    if block.name != "Q5_0" and not (rounded and block.name == "Q4_K"):
        return None
    codes, *heads = _UNPACKED[block.name](raw.view(-1, block.size))
    scales, minima = (head.reshape(-1, columns // codes.shape[2]).half() for head in heads)
    if not bool(scales.isfinite().all() and minima.isfinite().all()):
        return None
    codes = codes.reshape(-1, columns).to(torch.int8)
    if block.name == "Q5_0":
        return QuantizedWeight(format="int8_group", codes=codes, scales=scales)
    return QuantizedWeight(format="int4_affine", codes=codes, scales=scales, minima=-minima)


def dequantized(raw: Tensor, block: Block, columns: int) -> Tensor:
    """float32 [rows, columns] of the bytes of whole rows."""
    if block.format is not None:
        return dequantize_weight(from_gguf(raw, block.format, columns))
    plain = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}.get(block.name)
    if plain is not None:
        aligned = raw if raw.data_ptr() % 4 == 0 else raw.clone()
        return aligned.view(plain).float().view(-1, columns)
    codes, scales, minima = _UNPACKED[block.name](raw.view(-1, block.size))
    return (codes * scales[:, :, None] - minima[:, :, None]).view(-1, columns)


Parts: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Of n blocks of g parts: codes [n, g, columns of a part], what they are multiplied by, and what is then taken off."""


def _half(x: Tensor) -> Tensor:
    """float32 [n] of two bytes a row."""
    return x.contiguous().view(torch.float16).float()


def _high_bits(x: Tensor) -> Tensor:
    """uint8 [n, 32]: bit i of the 32 in four bytes."""
    shifts = torch.arange(8, dtype=torch.uint8, device=x.device)
    return ((x[:, :, None] >> shifts) & 1).flatten(1)


def _q5(x: Tensor) -> Tensor:
    """[n, 1, 32] codes of the 20 bytes that end a block."""
    q = x[:, 4:]
    return (torch.cat([q & 15, q >> 4], dim=1) | (_high_bits(x[:, :4]) << 4))[:, None]


def _q5_0(x: Tensor) -> Parts:
    d = _half(x[:, :2])
    return _q5(x[:, 2:]).float() - 16, d, torch.zeros_like(d)


def _q5_1(x: Tensor) -> Parts:
    return _q5(x[:, 4:]), _half(x[:, :2]), -_half(x[:, 2:4])


def _two_bits(q: Tensor) -> Tensor:
    """[n, 16, 16] codes of 64 bytes: two halves, four shifts of each, two parts of 16."""
    halves = q.reshape(-1, 2, 1, 32)
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=q.device)[:, None]
    return ((halves >> shifts) & 3).reshape(-1, 16, 16)


def _q2_k(x: Tensor) -> Parts:
    scales, d, m = x[:, :16], _half(x[:, 80:82]), _half(x[:, 82:84])
    return _two_bits(x[:, 16:80]), d * (scales & 15), m * (scales >> 4)


def _q3_k(x: Tensor) -> Parts:
    mask, q, packed, d = x[:, :32], x[:, 32:96], x[:, 96:108], _half(x[:, 108:110])
    low = torch.cat([packed[:, :8] & 15, packed[:, :8] >> 4], dim=1)
    high = torch.cat([(packed[:, 8:] >> shift) & 3 for shift in (0, 2, 4, 6)], dim=1)
    scales = d * ((low | (high << 4)).float() - 32)
    bits = torch.arange(8, dtype=torch.uint8, device=x.device)[:, None]
    above = ((mask[:, None, :] >> bits) & 1).reshape(-1, 16, 16)
    return _two_bits(q).float() - 4 * (1 - above.float()), scales, torch.zeros_like(scales)


def _steps(head: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and minima [n, 8] of the sixteen bytes that begin a block of Q4_K and Q5_K: d, m, then six bits each."""
    d, m, a, b, c = _half(head[:, :2]), _half(head[:, 2:4]), head[:, 4:8], head[:, 8:12], head[:, 12:16]
    scales = torch.cat([a & 63, (c & 15) | ((a >> 6) << 4)], dim=1)
    minima = torch.cat([b & 63, (c >> 4) | ((b >> 6) << 4)], dim=1)
    return d * scales, m * minima


def _nibbles(q: Tensor) -> Tensor:
    """[n, 8, 32] codes of 128 bytes: of each 32 bytes the low halves, then the high ones."""
    quarters = q.reshape(-1, 4, 1, 32)
    return torch.cat([quarters & 15, quarters >> 4], dim=2).reshape(-1, 8, 32)


def _q4_k(x: Tensor) -> Parts:
    return _nibbles(x[:, 16:]), *_steps(x[:, :16])


def _q5_k(x: Tensor) -> Parts:
    parts = torch.arange(8, dtype=torch.uint8, device=x.device)[:, None]
    high = (x[:, None, 16:48] >> parts) & 1
    return _nibbles(x[:, 48:]) | (high << 4), *_steps(x[:, :16])


def _q6_k(x: Tensor) -> Parts:
    low, high = x[:, :128].reshape(-1, 2, 2, 32), x[:, 128:192].reshape(-1, 2, 1, 32)
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=x.device)[:, None]
    codes = torch.cat([low & 15, low >> 4], dim=2) | (((high >> shifts) & 3) << 4)
    scales = _half(x[:, 208:]) * x[:, 192:208].contiguous().view(torch.int8)
    return codes.reshape(-1, 16, 16).float() - 32, scales, torch.zeros_like(scales)


_UNPACKED: dict[str, Callable[[Tensor], Parts]] = {
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
