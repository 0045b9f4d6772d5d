"""What a device can do, measured: bytes a second by how they are reached, operations a second by type.

    time of an operator >= max(bytes / bandwidth, operations / peak)

The device's data sheet is not asked. Rates are the fastest of a few turns: they are ceilings. Bandwidths count the
useful bytes read and written:
`read` every byte of a buffer; `copy` of one buffer to another; `gather` of rows of 256 bytes in random order; `stride`
the first 64 bytes of every 256. Peaks are those of a square product by the vendor's library, in float32 without TF32,
and for int8 on a CPU, where torch has no such product, of the processor's own instruction on operands in registers.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rolecall.kernels.configurations import device_name
from rolecall.kernels.cpp import build
from rolecall.kernels.intensity import Access, Arithmetic, Work
from rolecall.kernels.stopwatch import CACHES, largest_cache, walk_seconds

ROW_BYTES = 256
HEAD_BYTES = 64
_GPU_BYTES, _GPU_EDGE = 2**31, 8192
_CPU_EDGE = 1024
_private: Any = torch  # its names that begin with an underscore


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The least `seconds` some work can take, and the `rate` that says so."""

    seconds: float
    rate: Access | Arithmetic


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """`device` in words; `bandwidth` in bytes a second; `peak` in operations a second, of the types measured."""

    device: str
    bandwidth: Mapping[Access, float]
    peak: Mapping[Arithmetic, float]

    def limit(self, work: Work) -> Limit:
        """The slower of moving the bytes and doing the operations; a type of arithmetic not measured limits nothing."""
        limits = [Limit(seconds=work.bytes / self.bandwidth[work.access], rate=work.access)]
        for kind, count in work.operations.items():
            if kind in self.peak:
                limits.append(Limit(seconds=count / self.peak[kind], rate=kind))
        return max(limits, key=lambda limit: limit.seconds)


def measure(device: torch.device, *, size: int | None = None, edge: int | None = None, turns: int = 7) -> Roofline:
    """The device's roofline, on as many threads as torch uses, with buffers of `size` bytes and products of `edge`^3.

    Sizes are the device's own unless given. Raises ValueError for a device that is not there.
    """
    check_device(device)
    gpu = device.type == "cuda"
    size = size or (_GPU_BYTES if gpu else max(2**26, CACHES * largest_cache(device)))
    edge = edge or (_GPU_EDGE if gpu else _CPU_EDGE)
    with torch.inference_mode():
        return Roofline(
            device=describe(device),
            bandwidth=measure_bandwidth(device, size, turns),
            peak=measure_peak(device, edge, turns),
        )


def check_device(device: torch.device) -> None:
    """Raise ValueError unless operators can run on `device` here."""
    if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()):
        return
    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    why = (
        "" if torch.cuda.is_available() else "; torch sees no CUDA device (no GPU, no driver, or a CPU build of torch)"
    )
    raise ValueError(f"got device {device}; allowed here: {', '.join(there)}{why}")


def describe(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) + f" ({device_name(device.index or 0)})"
    return f"{processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure_bandwidth(device: torch.device, size: int, turns: int) -> dict[Access, float]:
    """Bytes a second by access. A read is never slower than a copy, whose loads it has."""
    rows = max(1, size // ROW_BYTES)
    source = torch.randint(-99, 99, (rows, ROW_BYTES // 4), dtype=torch.int32, device=device)
    target = torch.zeros_like(source)  # zeros, so that its pages are there before a walk writes to them
    order = torch.randperm(rows, device=device)
    heads = target.view(-1)[: rows * HEAD_BYTES // 4].view(rows, HEAD_BYTES // 4)
    moved = rows * ROW_BYTES
    copied = 2 * moved / fastest(lambda: target.copy_(source), device, turns)
    return {
        "read": max(copied, moved / fastest(_reading(source), device, turns)),
        "copy": copied,
        "gather": (2 * moved + 8 * rows)
        / fastest(lambda: torch.index_select(source, 0, order, out=target), device, turns),
        "stride": 2 * rows * HEAD_BYTES / fastest(lambda: heads.copy_(source[:, : HEAD_BYTES // 4]), device, turns),
    }


def _reading(source: Tensor) -> Callable[[], object]:
    library = None if source.is_cuda else build.library()
    if library is None:
        numbers = source.view(torch.float32)
        return lambda: numbers.sum()
    threads = torch.get_num_threads()
    return lambda: library.lasting.read_bytes(source.data_ptr(), source.numel() * 4, threads)


def measure_peak(device: torch.device, edge: int, turns: int) -> dict[Arithmetic, float]:
    """Operations a second of the types the device multiplies in."""
    walks: dict[Arithmetic, Callable[[], object]] = {
        "fp32": _product(torch.float32, device, edge),
        "bf16": _product(torch.bfloat16, device, edge),
    }
    if device.type == "cuda":
        walks |= {"fp16": _product(torch.float16, device, edge), "int8": _int8_product(device, edge)}
        if torch.cuda.get_device_capability(device) >= (8, 9):
            walks["fp8"] = _fp8_product(device, edge)
    peaks: dict[Arithmetic, float] = {
        kind: 2.0 * edge**3 / fastest(walk, device, turns) for kind, walk in walks.items()
    }
    library = build.library() if device.type == "cpu" else None
    if library is not None:
        threads, rounds = torch.get_num_threads(), 40 * edge
        done = fastest(lambda: library.lasting.int8_rate(rounds, threads), device, turns)
        peaks["int8"] = library.lasting.int8_rate(1, 1) * rounds / done
    return peaks


def _product(dtype: torch.dtype, device: torch.device, edge: int) -> Callable[[], object]:
    a, b = (torch.randn(edge, edge, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _int8_product(device: torch.device, edge: int) -> Callable[[], object]:
    a, b = (torch.randint(-127, 128, (edge, edge), dtype=torch.int8, device=device) for _ in range(2))
    return lambda: _private._int_mm(a, b.t())


def _fp8_product(device: torch.device, edge: int) -> Callable[[], object]:
    a, b = (torch.randn(edge, edge, device=device).to(torch.float8_e4m3fn) for _ in range(2))
    one = torch.ones((), device=device)
    return lambda: _private._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def fastest(walk: Callable[[], object], device: torch.device, turns: int) -> float:
    """Seconds of the fastest of `turns` walks after one untimed."""
    walk()
    return max(1e-9, min(walk_seconds(walk, device) for _ in range(turns)))
