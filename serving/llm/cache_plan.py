"""How much memory the key-value cache gets, and what that is worth in tokens."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

SHARE = 0.25  # of the memory that is free, unless told otherwise
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class CachePlan:
    """`token_bytes` = 2 x layers x KV heads x head width x bytes an entry. `context`: tokens one sequence may have."""

    context: int
    blocks: int
    block_size: int
    token_bytes: int

    @property
    def tokens(self) -> int:
        """Tokens the cache holds."""
        return self.blocks * self.block_size

    @property
    def bytes(self) -> int:
        """Bytes of the cache."""
        return self.tokens * self.token_bytes

    def __str__(self) -> str:
        return (
            f"KV cache: {self.tokens:,} tokens in {self.blocks:,} blocks of {self.block_size}, "
            f"{self.token_bytes / 1024:.1f} KiB a token, {self.bytes / MIB:,.0f} MiB"
        )


def plan_cache(*, token_bytes: int, context: int, budget: int, block_size: int = 16, sequences: int = 64) -> CachePlan:
    """As many blocks as `budget` bytes hold, at most what `sequences` whole contexts need.

    Raises ValueError if not even one context fits, saying what would.
    """
    whole = -(-context // block_size)
    blocks = min(budget // (token_bytes * block_size), sequences * whole)
    if blocks < whole:
        raise ValueError(
            f"got {budget / MIB:,.0f} MiB for the KV cache; allowed: at least "
            f"{whole * block_size * token_bytes / MIB:,.0f} MiB, one context of {context:,} tokens at "
            f"{token_bytes / 1024:.1f} KiB; give it more, or use a shorter context"
        )
    return CachePlan(context=context, blocks=blocks, block_size=block_size, token_bytes=token_bytes)


def free_bytes(device: torch.device) -> int:
    """Memory nobody uses now, in bytes: of the GPU, else of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else os.sysconf("SC_PHYS_PAGES") // 2
    return pages * os.sysconf("SC_PAGE_SIZE")
