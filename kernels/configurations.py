"""Launch configurations: block sizes, warps and pipeline stages by operator, shape class and device.

`configuration` looks a launch up in the table; where the table is silent the operator's closed-form
default holds (`row_configuration` for operators that work a row at a time). Nothing is tuned while the program runs:
a figure changes only when a benchmark on that device shows that it should, and then it is changed here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

import torch

WIDEST_ROW = 16_384  # elements a program holds in registers; wider rows are read in several steps


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """`blocks`: the kernel's constexpr sizes by name. `warps`: of 32 threads. `stages`: loads in flight in a loop."""

    blocks: MappingProxyType[str, int] = field(default_factory=lambda: MappingProxyType({}))
    warps: int = 4
    stages: int = 2

    @property
    def launch(self) -> dict[str, Any]:
        """Keyword arguments of the launch."""
        return {**self.blocks, "num_warps": self.warps, "num_stages": self.stages}


def blocks(**sizes: int) -> MappingProxyType[str, int]:
    """Named block sizes that cannot change."""
    return MappingProxyType(sizes)


# (operator, shape class, device) -> configuration. H100 and H200 have the same multiprocessors and differ in memory
# bandwidth only, so an entry for "hopper" serves both unless one of them has its own.
TABLE: MappingProxyType[tuple[str, str, str], Configuration] = MappingProxyType({})


def configuration(op: str, shape: str, x: torch.Tensor, default: Configuration) -> Configuration:
    """The table's entry for this operator, shape class and the device of `x`; `default` where it has none."""
    if not x.is_cuda:
        return default
    device = device_name(x.device.index or 0)
    found = TABLE.get((op, shape, device))
    if found is None and device in ("h100", "h200"):
        found = TABLE.get((op, shape, "hopper"))
    return default if found is None else found


@cache
def device_name(index: int) -> str:
    """`h100`, `h200`, or the lower-case name of CUDA device `index`."""
    name = torch.cuda.get_device_name(index).lower()
    return next((short for short in ("h100", "h200") if short in name), name)


@cache
def multiprocessors(index: int) -> int:
    """Streaming multiprocessors of CUDA device `index` (132 on an H100 SXM)."""
    return torch.cuda.get_device_properties(index).multi_processor_count


def row_configuration(width: int) -> Configuration:
    """Closed form for operators that hold rows: ROWS x BLOCK elements a program, 1 to 16 warps.

    BLOCK is the next power of two, up to `WIDEST_ROW`; rows shorter than 1,024 share a program. Both follow from the
    width alone, never from the number of rows, so a row is reduced in the same order in whichever batch it is.
    """
    block = min(power_of_two(max(width, 16)), WIDEST_ROW)
    rows = max(1, 1024 // block)
    return Configuration(blocks=blocks(ROWS=rows, BLOCK=block), warps=min(16, rows * block // 512), stages=2)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least `n` (n >= 1)."""
    return 1 << (n - 1).bit_length()
