"""Paged caches for tests: random entries in shuffled pages, NaN wherever a sequence has nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rolecall.kernels.paged_cache import QUANTIZED, PagedCache

from .oracle import DEVICE, random


def filled_cache(
    lengths: Sequence[int],
    *,
    page_size: int,
    heads: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    spare: int = 2,
    seed: int = 0,
) -> tuple[PagedCache, Tensor, Tensor]:
    """(cache, block tables, lengths); tables are `spare` pages wider than the longest sequence needs."""
    needed = [-(-length // page_size) for length in lengths]
    pages = sum(needed) + 1
    order = torch.randperm(pages, generator=torch.Generator().manual_seed(seed)).tolist()
    tables = torch.full((len(lengths), max(needed, default=0) + spare), order.pop(), dtype=torch.int32)
    written = torch.zeros(pages, page_size, dtype=torch.bool)
    for row, length in enumerate(lengths):
        for index in range(needed[row]):
            tables[row, index] = page = order.pop()
            written[page, : min(page_size, length - index * page_size)] = True
    written = written.to(DEVICE)
    shape = (pages, page_size, heads, width)
    entries, scales = zip(*(_entries(shape, dtype, written, seed + i) for i in (1, 2)), strict=True)
    cache = PagedCache(keys=entries[0], values=entries[1], key_scales=scales[0], value_scales=scales[1])
    return cache, tables.to(DEVICE), torch.tensor(list(lengths), dtype=torch.int32, device=DEVICE)


def _entries(
    shape: tuple[int, int, int, int], dtype: torch.dtype, written: Tensor, seed: int
) -> tuple[Tensor, Tensor | None]:
    numbers = random(*shape, seed=seed)
    if dtype not in QUANTIZED:
        return torch.where(written[..., None, None], numbers, float("nan")).to(dtype), None
    scales = numbers.abs().amax(dim=3) / QUANTIZED[dtype]
    codes = numbers / scales[..., None]
    codes = codes.round() if dtype == torch.int8 else codes
    return codes.to(dtype), torch.where(written[..., None], scales, float("nan"))
