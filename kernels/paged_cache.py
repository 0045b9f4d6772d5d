"""The key-value cache in pages: its tensors, and what quantised entries stand for.

    key of token t, head g = keys[page, slot, g] * key_scales[page, slot, g]     (values alike; scale 1 without scales)

with page = block_table[t // S] and slot = t % S, S the page size. Entries are float16, bfloat16, float32, or int8
(scale = max |x| / 127, halves rounded away from zero) or float8_e4m3fn (scale = max |x| / 448), a scale for each token
and head. A page may hold anything, NaN included, in slots that its sequence has not yet written.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

QUANTIZED = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}  # dtype -> its largest code


@dataclass(frozen=True, kw_only=True)
class PagedCache:
    """`keys`, `values`: [pages, S, G, D]. `key_scales`, `value_scales`: float32 [pages, S, G] of quantised entries."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for tensors that do not belong together."""
        k, v = self.keys, self.values
        if k.ndim != 4 or k.shape != v.shape or k.dtype != v.dtype or k.stride(3) != 1 or v.stride(3) != 1:
            raise ValueError(
                f"got keys {tuple(k.shape)} {k.dtype} and values {tuple(v.shape)} {v.dtype}; "
                "allowed: two alike, [pages, page size, heads, width], elements of a head side by side"
            )
        for scales in (self.key_scales, self.value_scales):
            fits = scales is not None and scales.shape == k.shape[:3] and scales.dtype == torch.float32
            if (scales is None) == (k.dtype in QUANTIZED) or (scales is not None and not fits):
                raise ValueError(
                    f"got scales {None if scales is None else tuple(scales.shape)} for a cache of {k.dtype}; "
                    f"allowed: float32 {tuple(k.shape[:3])} for int8 and float8_e4m3fn, None for other types"
                )

    @property
    def page_size(self) -> int:
        """Tokens a page holds."""
        return self.keys.shape[1]

    @property
    def quantized(self) -> bool:
        """Whether entries are codes."""
        return self.keys.dtype in QUANTIZED

    def gather(self, table: Tensor, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values [length, G, D] of the sequence whose pages `table` names."""
        pages = table[: -(-length // self.page_size)].long()
        both = []
        for entries, scales in ((self.keys, self.key_scales), (self.values, self.value_scales)):
            rows = entries[pages].flatten(0, 1)[:length].to(dtype)
            both.append(rows if scales is None else rows * scales[pages].flatten(0, 1)[:length, :, None].to(dtype))
        return both[0], both[1]


def empty_cache(
    *, pages: int, page_size: int, heads: int, width: int, dtype: torch.dtype, device: torch.device | str | None = None
) -> PagedCache:
    """A cache whose entries are whatever memory held; 2 pages S G D entries."""
    shape = (pages, page_size, heads, width)
    keys, values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
    if dtype not in QUANTIZED:
        return PagedCache(keys=keys, values=values)
    scales = [torch.empty(shape[:3], device=device) for _ in range(2)]
    return PagedCache(keys=keys, values=values, key_scales=scales[0], value_scales=scales[1])
