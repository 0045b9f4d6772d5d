"""Launch configurations: block sizes, warps and pipeline stages by operator, shape class and device.

`configuration` looks a launch up in the table; where the table is silent the operator's closed-form
default holds (`row_configuration` for operators that work a row at a time). Nothing is tuned while the program runs:
a figure changes only when a benchmark on that device shows that it should, and then it is changed here
(tests/bench/kernels_gpu.py --tune proposes). An entry says whether it was measured: `tuned` is False for one that was
reasoned from the device's sizes or taken over from kernels known to be fast there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, TypeAlias

import torch

HOPPER = ("h100", "h200")
WIDEST_ROW = 16_384  # elements a program holds in registers; wider rows are read in several steps


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """`blocks`: the kernel's constexpr sizes by name. `warps`: of 32 threads. `stages`: loads in flight in a loop.

    `tuned`: whether a benchmark on the device chose it.
    """

    blocks: MappingProxyType[str, int] = field(default_factory=lambda: MappingProxyType({}))
    warps: int = 4
    stages: int = 2
    tuned: bool = False

    @property
    def launch(self) -> dict[str, Any]:
        """Keyword arguments of the launch."""
        return {**self.blocks, "num_warps": self.warps, "num_stages": self.stages}


def blocks(**sizes: int) -> MappingProxyType[str, int]:
    """Named block sizes that cannot change."""
    return MappingProxyType(sizes)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least `n` (n >= 1)."""
    return 1 << (n - 1).bit_length()


Key: TypeAlias = tuple[str, str, str]  # operator, shape class, device


class Table:
    """Configurations by operator, shape class and device (`h100`, `h200`, or `hopper` for both)."""

    def __init__(self, entries: Mapping[Key, Configuration]) -> None:
        self.entries = MappingProxyType(dict(entries))

    def entry(self, op: str, shape: str, device: str, default: Configuration) -> Configuration:
        """The device's own entry, that of its family, or `default`."""
        found = self.entries.get((op, shape, device))
        if found is None and device in HOPPER:
            found = self.entries.get((op, shape, "hopper"))
        return default if found is None else found


def _rows(block: int, warps: int, *, stages: int = 2) -> Configuration:
    return Configuration(blocks=blocks(ROWS=1, BLOCK=block), warps=warps, stages=stages)


# H100 and H200 have the same multiprocessors and differ in memory bandwidth only, so an entry for "hopper" serves both
# unless one of them has its own. None of these has been measured by us.
TABLE = Table(
    {
        # A row of a model's width: 16 bytes a lane and load want 8 bfloat16 of a row in each of a warp's 32 lanes.
        **{
            (op, str(width), "hopper"): _rows(power_of_two(width), warps)
            for op in ("rms_norm", "layer_norm")
            for width, warps in ((2048, 4), (3072, 8), (4096, 8), (5120, 8), (8192, 16))
        },
        # A vocabulary is read in two passes whatever its block; the smaller one leaves registers for loads in flight.
        **{
            (op, str(width), "hopper"): _rows(8192, 16, stages=3)
            for op in ("softmax", "softmax_backward")
            for width in (32_000, 32_768, 49_152, 128_256, 151_936)
        },
        # 128 x 128 is the causal tile of FlashAttention-3 (arXiv:2407.08608) for width 128, where keys and values of
        # one stage take 64 KB; at width 64 a third stage fits.
        ("attention", "d128 16bit", "hopper"): Configuration(blocks=blocks(QUERIES=128, KEYS=128), warps=8, stages=2),
        ("attention", "d64 16bit", "hopper"): Configuration(blocks=blocks(QUERIES=128, KEYS=128), warps=8, stages=3),
        # A page's keys of one head are 4 KB at width 128: long splits keep many in flight, and the join small.
        ("paged_decode", "d128", "hopper"): Configuration(blocks=blocks(KEYS=64, SPLIT=512), warps=4, stages=3),
        ("paged_decode", "d64", "hopper"): Configuration(blocks=blocks(KEYS=128, SPLIT=512), warps=4, stages=3),
        # The tile of wgmma's widest int8 instruction twice in each direction (CUTLASS's default on sm_90).
        ("int8_gemm", "wide", "hopper"): Configuration(
            blocks=blocks(BLOCK_M=128, BLOCK_N=256, BLOCK_K=128, BAND=8), warps=8, stages=3
        ),
    }
)


def configuration(op: str, shape: str, x: torch.Tensor, default: Configuration) -> Configuration:
    """The table's entry for this operator, shape class and the device of `x`; `default` where it has none."""
    return TABLE.entry(op, shape, device_name(x.device.index or 0) if x.is_cuda else x.device.type, default)


@cache
def device_name(index: int) -> str:
    """`h100`, `h200`, or the lower-case name of CUDA device `index`."""
    name = torch.cuda.get_device_name(index).lower()
    return next((short for short in HOPPER if short in name), name)


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
